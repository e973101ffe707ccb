"""A user who is not root and is in the group docker: every clean-up works, whoever wrote what is to go."""

import os
import unittest

from harness.runs import flag
from harness.tests import plain_user

#: Containers write as other users into the test's directory, in ways that shut its owner out.
WRITES = """
import os, sys, unittest
from harness import DockerTestCase, Mount, images, start_services
import harness.images

HOW = {
    "a file of another user": ("games", "mkdir -p /d/g/deep && echo > /d/g/deep/file && chown -R 10001:10001 /d/g"),
    "a directory that nobody may read": ("games", "mkdir -p /d/g/x && echo > /d/g/x/y && chmod 000 /d/g/x /d/g"),
    "the whole directory": (".", "mkdir /d/more && chown -R 999:999 /d && chmod 700 /d"),
    "odd names": ("logs", "mkdir '/d/-rf *' && echo > '/d/-rf */.hidden' && chown -R 1:1 '/d/-rf *'"),
}

class Writing(DockerTestCase):
    def write(self, how):
        where, script = HOW[how]
        self.start_container(
            harness.images.redis(), entrypoint=["sh", "-c", script], user="0", network="none",
            mounts=[Mount(self.state_root.directory / where, "/d")],
        ).wait_for_exit()

for number, how in enumerate(HOW):
    setattr(Writing, f"test_{number}", lambda self, how=how: self.write(how))
"""

KILLED = """
import os, signal
from test_writes import *

class Killed(Writing):
    def test_all(self):
        for how in HOW:
            self.setUp()
            self.write(how)
        os.kill(os.getpid(), signal.SIGKILL)
"""


class PlainUserTest(unittest.TestCase):
    def setUp(self) -> None:
        flag.check()
        plain_user.check()
        self.folder = plain_user.folder(self)
        (self.folder / "test_writes.py").write_text(WRITES.replace("Mount, images,", "Mount,"))
        self.states = self.folder / "states"
        self.environment = {"RTM_INTEGRATION": "require", "RTM_IT_STATE_DIR": str(self.states)}

    def left(self) -> list[str]:
        return [str(each) for each in self.states.iterdir() if each.name != ".runners"] + os.listdir(
            self.states / ".runners"
        )

    def test_what_containers_wrote_as_other_users_is_removed_with_the_test(self) -> None:
        run = plain_user.python("-m", "unittest", "test_writes", cwd=self.folder, environment=self.environment)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("Ran 4 tests", run.stderr)
        self.assertEqual(self.left(), [])

    def test_after_kill_9_the_next_sweep_removes_it(self) -> None:
        (self.folder / "test_killed.py").write_text(KILLED)
        run = plain_user.python(
            "-m", "unittest", "test_killed.Killed.test_all", cwd=self.folder, environment=self.environment
        )
        self.assertEqual(run.returncode, -9, run.stderr)
        self.assertGreaterEqual(len(self.left()), 10)
        swept = plain_user.python("-m", "harness", "sweep", cwd=self.folder, environment=self.environment)
        self.assertEqual(swept.returncode, 0, swept.stderr)
        self.assertEqual(self.left(), [])

    def test_a_failed_test_has_artefacts_though_it_may_not_read_all(self) -> None:
        fails = "from test_writes import *\nclass Fails(Writing):\n    def test_it(self):\n"
        fails += "        for how in HOW: self.write(how)\n        self.fail('as told')\n"
        (self.folder / "test_fails.py").write_text(fails)
        run = plain_user.python(
            "-m", "unittest", "test_fails.Fails.test_it", cwd=self.folder, environment=self.environment
        )
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn("FAILED (failures=1)", run.stderr)
        self.assertIn("Fails.test_it: see ", run.stderr)
        removed = plain_user.python("-m", "harness", "kept", "--remove", cwd=self.folder, environment=self.environment)
        self.assertEqual(removed.returncode, 0, removed.stderr)
        self.assertEqual(self.left(), [])
