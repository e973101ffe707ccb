"""With any runner, each failure anywhere writes artefacts and prints their path; the output is the runner's.

Each run is a separate process, on a project in its own folder, as a user's is.
"""

import glob
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from harness.runs import flag, identity

ROOT = Path(__file__).parents[2]

PROJECT = """
import os, unittest
from harness import DockerTestCase, ServicesTestCase, start_services

ASKED = os.environ.get("FAILS", "")
#: Where this module fails, once, when all do.
ASKED = globals().get("PLACE", ASKED)
done = []

def fails(where):
    if where == ASKED and not done:
        done.append(where)
        raise ValueError("as asked in " + where)

def setUpModule():
    start_services()
    fails("setUpModule")

def tearDownModule():
    fails("tearDownModule")

class Shop(ServicesTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.addClassCleanup(fails, "classCleanup")
        fails("setUpClass")

    @classmethod
    def tearDownClass(cls):
        fails("tearDownClass")
        super().tearDownClass()

    def setUp(self):
        self.addCleanup(fails, "firstCleanup")
        super().setUp()
        self.addCleanup(fails, "cleanup")
        self.redis.set("greeting", "hello")
        fails("setUp")

    def tearDown(self):
        fails("tearDown")

    def test_one(self):
        self.redis.rpush("list", "a", "b")
        fails("test")
        for number in range(3):
            with self.subTest(number=number):
                if number == 1:
                    fails("subTest")

    @unittest.expectedFailure
    def test_that_fails(self):
        if ASKED != "unexpected success":
            self.fail("as expected")

    @unittest.skip("as told")
    def test_that_is_skipped(self):
        fails("never")
"""

#: Where a failure may be, and the part of its artefacts' folder name after the module's name.
PLACES = {
    "setUpModule": "setUpModule",
    "tearDownModule": "tearDownModule",
    "setUpClass": "Shop.setUpClass",
    "tearDownClass": "Shop.tearDownClass",
    "classCleanup": "Shop.tearDownClass",
    "setUp": "Shop.test_one",
    "test": "Shop.test_one",
    "subTest": "Shop.test_one",
    "tearDown": "Shop.test_one",
    "cleanup": "Shop.test_one",
    "firstCleanup": "Shop.test_one",
    "unexpected success": "Shop.test_that_fails",
}


class RunnersTest(unittest.TestCase):
    def setUp(self) -> None:
        flag.check()
        self.project = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.states = self.project / "states"
        (self.project / "test_shop.py").write_text(PROJECT)

    def run_tests(self, *command: str, fails: str = "") -> subprocess.CompletedProcess[str]:
        shutil.rmtree(self.states, ignore_errors=True)
        environment = {
            **os.environ,
            **identity.python_path(ROOT),
            "RTM_INTEGRATION": "require",
            "RTM_IT_STATE_DIR": str(self.states),
            "FAILS": fails,
        }
        return subprocess.run(
            [sys.executable, "-m", *command],
            env=environment,
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
        )

    def kept(self) -> list[Path]:
        return [each for each in self.states.iterdir() if not each.name.startswith(".")]

    def assert_artefacts(self, run: subprocess.CompletedProcess[str], folder: str) -> Path:
        """Exactly one folder of that name is kept, with the servers' logs and a printed path; returns it."""
        output = run.stdout + run.stderr
        kept = [each for each in self.kept() if each.name.startswith(folder)]
        self.assertEqual(len(kept), 1, f"{folder}: {self.kept()}\n{output}")
        self.assertIn(f"see {kept[0]}\n", output)
        self.assertEqual(len(list((kept[0] / "containers").glob("rtm-it-*.log"))), 2, output)
        return kept[0]

    def one_module_for_each_place(self) -> None:
        (self.project / "test_shop.py").unlink()
        for number, place in enumerate(PLACES):
            (self.project / f"test_{number}.py").write_text(f"PLACE = {place!r}\n{PROJECT}")

    def test_wherever_a_failure_is_it_has_artefacts(self) -> None:
        self.one_module_for_each_place()
        run = self.run_tests("unittest")
        self.assertEqual((run.returncode, run.stdout), (1, ""), run.stderr)
        for number, (place, folder) in enumerate(PLACES.items()):
            with self.subTest(place):
                found = self.assert_artefacts(run, f"test_{number}.{folder}-")
                if "." in folder and place not in ("setUpClass", "unexpected success"):
                    self.assertIn('"hello"', (found / "keys" / "greeting.jsonl").read_text())
                if place in ("test", "cleanup"):
                    self.assertEqual((found / "keys" / "list.jsonl").read_text().splitlines()[1:], ['"a"', '"b"'])
        self.assertEqual(len(self.kept()), len(PLACES), run.stderr)

    def test_a_run_without_a_failure_reports_nothing_and_leaves_nothing(self) -> None:
        for how in ((), ("-b", "-f", "-c", "-k", "one")):
            with self.subTest(how):
                run = self.run_tests("unittest", *how)
                self.assertEqual((run.returncode, run.stdout, self.kept()), (0, "", []), run.stderr)
                self.assertRegex(run.stderr, r"\A[.sx]+\n-+\nRan \d tests? in [\d.]+s\n\nOK( \(.*\))?\n\Z")

    def test_with_a_buffer_or_the_first_failure_only_a_failure_has_artefacts_too(self) -> None:
        run = self.run_tests("unittest", "-b", "-f", fails="test")
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assert_artefacts(run, "test_shop.Shop.test_one-")

    @unittest.skipUnless(importlib.util.find_spec("pytest"), "pytest is not installed")
    def test_under_pytest_too(self) -> None:
        passes = self.run_tests("pytest", "-q", "-p", "no:cacheprovider")
        self.assertEqual((passes.returncode, self.kept()), (0, []), passes.stdout)
        self.one_module_for_each_place()
        run = self.run_tests("pytest", "-q", "-p", "no:cacheprovider")
        self.assertEqual(run.returncode, 1, run.stdout + run.stderr)
        for number, (place, folder) in enumerate(PLACES.items()):
            with self.subTest(place):
                self.assert_artefacts(run, f"test_{number}.{folder}-")
        self.assertEqual(len(self.kept()), len(PLACES), run.stdout)

    @unittest.skipUnless(importlib.util.find_spec("pytest"), "pytest is not installed")
    def test_under_pytest_no_option_hides_the_place_of_artefacts(self) -> None:
        for options in (["--tb=no"], ["--show-capture=no"], ["--show-capture=log"], ["--capture=no", "--tb=no"], []):
            for place in ("test", "setUpClass") if "--tb=no" in options else ("test",):
                with self.subTest(options=options, place=place):
                    run = self.run_tests("pytest", "-q", "-p", "no:cacheprovider", *options, fails=place)
                    self.assert_artefacts(run, f"test_shop.{PLACES[place]}-")
                    self.assertEqual((run.stdout + run.stderr).count(": see /"), 1, run.stdout)

    @unittest.skipUnless(importlib.util.find_spec("pytest"), "pytest is not installed")
    def test_under_pytest_the_cleanups_of_a_module_run_at_its_end(self) -> None:
        for name, of_module in (("a", "tearDownModule"), ("b", "moduleCleanup"), ("c", "both")):
            (self.project / f"test_{name}.py").write_text(MODULE_CLEANUPS.format(name=name, fails=of_module))
        (self.project / "test_shop.py").unlink()
        run = self.run_tests("pytest", "-q", "-s", "-p", "no:cacheprovider")
        done = [line.lstrip(".EF") for line in run.stdout.splitlines() if line.lstrip(".EF").startswith("did ")]
        steps = ("test_1", "test_2", "tearDownModule", "moduleCleanup", "firstCleanup")
        self.assertEqual(done, [f"did {name} {step}" for name in "abc" for step in steps], run.stdout)
        self.assertRegex(run.stdout, r"6 passed, 3 errors")
        self.assertEqual(
            sorted(each.name.rpartition("-")[0] for each in self.kept()),
            [f"test_{name}.tearDownModule" for name in "abc"],
            run.stdout,
        )

    def test_a_forked_child_ends_where_it_leaves_the_test_and_takes_nothing_of_its_parent(self) -> None:
        (self.project / "test_shop.py").write_text(FORKS)
        runners = [["unittest"]]
        if importlib.util.find_spec("pytest"):
            runners.append(["pytest", "-q", "-s", "-p", "no:cacheprovider"])
        for command in runners:
            with self.subTest(command):
                run = self.run_tests(*command)
                self.assertEqual((run.returncode, self.kept()), (0, []), run.stdout + run.stderr)
                self.assertEqual(run.stdout.count("torn down"), 6, run.stdout)
        plain = self.run_tests("unittest")
        self.assertRegex(plain.stderr, r"(?s)Ran 6 tests in [\d.]+s\n\nOK\n\Z")
        self.assertIn("ValueError: invalid literal", plain.stderr)

    def test_a_result_of_any_class_will_do(self) -> None:
        (self.project / "odd.py").write_text(ODD_RUNNER)
        run = self.run_tests("odd", fails="cleanup")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertRegex(
            run.stdout, r"calls: start, addError, stop, start, addExpectedFailure, stop, (start, )?addSkip, stop\n"
        )
        self.assert_artefacts(run, "test_shop.Shop.test_one-")

    def test_a_test_that_is_debugged_cleans_up_too(self) -> None:
        code = "import unittest; unittest.defaultTestLoader.loadTestsFromName('test_shop.Shop.test_one').debug()"
        (self.project / "debug.py").write_text(code)
        run = self.run_tests("debug", fails="test")
        self.assertIn("ValueError: as asked in test", run.stderr)
        self.assert_artefacts(run, "test_shop.Shop.test_one-")


MODULE_CLEANUPS = """
import unittest
from harness import DockerTestCase, check_flag

def did(step):
    print("\\ndid {name} " + step, flush=True)
    if "{fails}" == step or "{fails}" == "both" and step in ("tearDownModule", "moduleCleanup"):
        raise ValueError("as asked in " + step)

def setUpModule():
    check_flag()
    unittest.addModuleCleanup(did, "firstCleanup")
    unittest.addModuleCleanup(did, "moduleCleanup")

def tearDownModule():
    did("tearDownModule")

class One(DockerTestCase):
    def test_1(self):
        did("test_1")

class Two(DockerTestCase):
    def test_2(self):
        did("test_2")
"""

#: One test for each way in which a forked child leaves a test; the parent checks its exit code and keeps its resources.
FORKS = """
import os, sys
from harness import DockerTestCase, base_image, check_flag, start_container
from harness.runs import identity

def setUpModule():
    check_flag()

class Forks(DockerTestCase):
    def tearDown(self):
        print("torn down", flush=True)

    def fork(self, leave, code):
        mine = self.start_container(base_image(), entrypoint=["sleep", "600"])
        with start_container(base_image(), entrypoint=["sleep", "600"]) as other, self.create_volume() as volume:
            pid = os.fork()
            if pid == 0:
                leave()
                return
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), code)
            self.assertEqual([mine.exec(["true"])[0], other.exec(["true"])[0]], [0, 0])
            self.docker.inspect_volume(volume.name)
        self.assertTrue(self.state_root.directory.is_dir())
        by = {"label": [f"{identity.PREFIX}pid={pid}"]}
        self.assertEqual(self.docker.containers(all=True, filters=by), [])

    def test_return(self): self.fork(lambda: None, 0)
    def test_exit(self): self.fork(lambda: sys.exit(7), 7)
    def test_text(self): self.fork(lambda: sys.exit("a text"), 1)
    def test_error(self): self.fork(lambda: int("as asked"), 1)
    def test_own_container(self):
        self.fork(lambda: self.start_container(base_image(), entrypoint=["sleep", "600"]), 0)
    def test_subtest(self):
        with self.subTest("one"):
            self.fork(lambda: sys.exit(3), 3)
"""

#: A runner whose result has no class of unittest, as some have.
ODD_RUNNER = """
import unittest

class Result:
    shouldStop = failfast = False
    def __init__(self): self.calls = []
    def startTest(self, test): self.calls.append("start")
    def stopTest(self, test): self.calls.append("stop")
    def addSuccess(self, test): self.calls.append("addSuccess")
    def addError(self, test, error): self.calls.append("addError")
    def addFailure(self, test, error): self.calls.append("addFailure")
    def addSkip(self, test, reason): self.calls.append("addSkip")
    def addExpectedFailure(self, test, error): self.calls.append("addExpectedFailure")

def each(suite):
    for one in suite:
        if isinstance(one, unittest.TestCase): yield one
        else: yield from each(one)

import test_shop
test_shop.setUpModule()
test_shop.Shop.setUpClass()
result = Result()
for test in each(unittest.defaultTestLoader.loadTestsFromModule(test_shop)):
    test(result)
print("calls: " + ", ".join(result.calls))
"""


def pythons() -> list[str]:
    """Every Python from 3.11 on that this machine has, one of each version."""
    found: dict[str, str] = {}
    names = [f"python3.{minor}" for minor in range(11, 20)]
    candidates = [path for name in names if (path := shutil.which(name))]
    candidates += glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3"))
    for each in [sys.executable, *candidates]:
        script = "import sys; print(*sys.version_info[:3], sep='.')"
        run = subprocess.run([each, "-c", script], capture_output=True, text=True, check=False)
        version = run.stdout.strip()
        if run.returncode == 0 and tuple(map(int, version.split("."))) >= (3, 11):
            found.setdefault(version, each)
    return [found[version] for version in sorted(found)]


class ByNameTest(unittest.TestCase):
    def test_a_module_that_is_skipped_at_its_top_may_be_named(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != flag.VARIABLE}
        for how in (("integration.test_store",), ("discover", "-t", ".", "-s", "integration", "-p", "test_store.py")):
            with self.subTest(how):
                run = subprocess.run(
                    [sys.executable, "-m", "unittest", *how],
                    env=environment,
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertIn("skipped=", run.stderr)


class UnsetFlagTest(unittest.TestCase):
    """Without RTM_INTEGRATION everything is skipped, which is no failure, on each installed Python."""

    def test_a_run_in_which_all_is_skipped_ends_with_0(self) -> None:
        project = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (project / "test_shop.py").write_text(PROJECT)
        (project / "test_plain.py").write_text(
            "import unittest\nfrom harness import check_flag, DockerTestCase\n"
            "class Plain(DockerTestCase):\n    def test_it(self): pass\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop(flag.VARIABLE, None)
        for python in pythons():
            for how in ((), ("test_shop.Shop.test_one",)):
                with self.subTest(python=python, how=how):
                    run = subprocess.run(
                        [python, "-m", "unittest", *how],
                        env=environment,
                        cwd=project,
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)
                    self.assertIn("RTM_INTEGRATION=1", run.stderr)
                    self.assertIn("skipped=", run.stderr)

    def test_a_module_that_cannot_be_set_up_fails_the_run_though_others_are_skipped(self) -> None:
        project = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (project / "test_a.py").write_text(PROJECT)
        (project / "test_b.py").write_text(
            "import unittest\ndef setUpModule(): 1 / 0\nclass B(unittest.TestCase):\n    def test_b(self): pass\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop(flag.VARIABLE, None)
        for python in pythons():
            run = subprocess.run(
                [python, "-m", "unittest"], env=environment, cwd=project, capture_output=True, text=True, check=False
            )
            self.assertEqual(run.returncode, 1, run.stderr)
            self.assertTrue(re.search("ZeroDivisionError", run.stderr))
