"""As a user who is not root but in the group docker, every clean-up works, whatever user wrote the files."""

import os
import unittest

from harness.runs import flag
from harness.tests import plain_user

#: Containers write to the test's directory as other users, with modes that exclude its owner.
WRITES = """
import os, sys, unittest
from harness import DockerTestCase, Mount, images, start_services
import harness.images

HOW = {
    "a file of another user": ("data", "mkdir -p /d/g/deep && echo > /d/g/deep/file && chown -R 10001:10001 /d/g"),
    "a directory that nobody may read": ("data", "mkdir -p /d/g/x && echo > /d/g/x/y && chmod 000 /d/g/x /d/g"),
    "the whole directory": (".", "mkdir /d/more && chown -R 999:999 /d && chmod 700 /d"),
    "odd names": ("logs", "mkdir '/d/-rf *' && echo > '/d/-rf */.hidden' && chown -R 1:1 '/d/-rf *'"),
}

class Writing(DockerTestCase):
    def setUp(self):
        super().setUp()
        self.state_root.folder("data")

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


#: Every fixture that needs no root, and a manager in the test's process and in its own.
EVERYTHING = """
import os, tempfile
from pathlib import Path
from harness import DockerTestCase, Mount, ServicesTestCase, build_image, faults, images, start_registry, start_services
from harness.rtm import RuntimeTestCase

def setUpModule():
    start_services()

class Everything(ServicesTestCase):
    def test_services_by_name_from_a_container(self):
        network = self.create_network()
        made = self.start_container(images.redis(), entrypoint=["redis-cli", "-h", "redis.test", "SET", "a", "1"],
                                    network=network.name)
        self.assertEqual(made.wait_for_exit(), 0, made.logs())
        self.assertEqual(self.redis.get("a"), "1")
        self.fresh_database().connect().close()

    def test_a_mount_an_image_and_a_proxy(self):
        folder = self.state_root.directory / "a folder: with a colon"
        folder.mkdir()
        (folder / "file").write_text("from the host")
        folder.chmod(0o755)
        (folder / "file").chmod(0o644)
        shown = self.start_container(images.redis(), entrypoint=["cat", "/d/file"], user="65534", network="none",
                                     mounts=[Mount(folder, "/d")])
        self.assertEqual((shown.wait_for_exit(), shown.logs()), (0, "from the host"))
        context = folder / "shop"
        context.mkdir()
        recipe = "ARG BASE_IMAGE;FROM ${BASE_IMAGE};COPY list /list;USER 65534;RUN cat /list;"
        (context / "Dockerfile").write_text(recipe.replace(";", chr(10)))
        (context / "list").write_text(folder.parent.name)
        ref = build_image(context, images.redis())
        self.docker.remove_image(ref)
        with faults.before((self.services.redis.host, self.services.redis.port)), faults.before("/var/run/docker.sock"):
            pass

class Manager(RuntimeTestCase):
    def test_a_game_in_the_test_s_process(self):
        self.start_runtime()
        self.post("start", {"image_ref": self.engine.ref})
        self.engine_call("GET", "/healthz")

    def test_a_game_of_a_process(self):
        self.start_process()
        self.post("start", {"image_ref": self.engine.ref})
        self.engine_call("POST", "/api/v1/admin/init", {"game_id": self.game_id})
        self.post("stop", {"reason": "finished"})
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
        return os.listdir(self.states)

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

    def test_every_fixture_runs_in_an_odd_environment(self) -> None:
        """With umask 077, without HOME, in the locale C, with an odd name of the directory for temporary files."""
        (self.folder / "test_everything.py").write_text(
            EVERYTHING.replace(", images,", ",").replace(
                "import os, tempfile", "import os, tempfile\nfrom harness import images"
            )
        )
        odd = self.folder / "tmp dir: é'$"
        odd.mkdir()
        os.chown(odd, plain_user.UID, plain_user.GID)
        odd.chmod(0o700)
        environment = {"RTM_INTEGRATION": "require", "TMPDIR": str(odd), "LC_ALL": "C"}
        run = plain_user.python(
            "-m", "unittest", "test_everything", cwd=self.folder, environment=environment, umask=0o077
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("Ran 4 tests", run.stderr)
        left = [str(each) for each in odd.rglob("*") if each.is_file() and not each.name.endswith(".lock")]
        self.assertEqual(left, [])

    def test_who_may_not_open_the_socket_gets_a_clear_error(self) -> None:
        for value, code in (("1", 0), ("require", 1)):
            environment = {**self.environment, "RTM_INTEGRATION": value}
            run = plain_user.python(
                "-m", "unittest", "test_writes", cwd=self.folder, environment=environment, in_group=False
            )
            self.assertEqual(run.returncode, code, run.stderr)
            self.assertIn("this user may not open it: run as root or join the group docker", run.stderr)
