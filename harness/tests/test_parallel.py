"""Modules run side by side: each result is counted, and a process that a test ends is replaced."""

import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

PASSES = """
import os, unittest
class Passes(unittest.TestCase):
    def test_it(self):
        print("written by", os.getpid(), flush=True)
    @unittest.skip("not here")
    def test_other(self): ...
"""
FAILS = "import unittest\nclass Fails(unittest.TestCase):\n    def test_it(self): self.fail('on purpose')\n"
ENDS = "import os, unittest\nclass Ends(unittest.TestCase):\n    def test_it(self): os._exit(7)\n"
BROKEN = "import no_such_module\n"
WAITS = """
import time, unittest
from pathlib import Path
class Waits(unittest.TestCase):
    def test_it(self):
        try:
            Path("begun").touch()
            time.sleep(60)
        finally:
            Path("cleaned").touch()
"""


class ParallelTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def command(self, jobs: int, modules: dict[str, str]) -> subprocess.Popen[str]:
        for name, text in modules.items():
            (self.folder / f"{name}.py").write_text(text)
        path = os.pathsep.join([str(Path(__file__).parents[2]), str(self.folder)])
        command = [sys.executable, "-m", "harness.runs.parallel", "--jobs", str(jobs), *modules]
        environment = os.environ | {"PYTHONPATH": path}
        return subprocess.Popen(command, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True)

    def run_all(self, jobs: int, **modules: str) -> tuple[int, str]:
        with self.command(jobs, modules) as process:
            _, text = process.communicate(timeout=60)
            return process.returncode, text

    def test_all_that_pass_are_counted_with_what_was_skipped(self) -> None:
        code, text = self.run_all(2, first=PASSES, second=PASSES, third=PASSES)
        self.assertEqual(code, 0, text)
        self.assertTrue(text.endswith("== 6 tests in 3 modules, 3 skipped; failed: none\n"), text)
        self.assertRegex(text, r"== second, \d+\.\d s of CPU time\n")

    def test_one_process_runs_all_its_modules(self) -> None:
        _, text = self.run_all(1, first=PASSES, second=PASSES)
        processes = {line for line in text.splitlines() if line.startswith("written by")}
        self.assertEqual(len(processes), 1, text)

    def test_what_fails_what_cannot_be_imported_and_what_ends_its_process_are_failures(self) -> None:
        code, text = self.run_all(1, first=FAILS, second=BROKEN, third=ENDS, fourth=PASSES)
        self.assertEqual(code, 1)
        self.assertIn("failed: first, second, third\n", text)
        for part in ("on purpose", "no_such_module", "exit code 7", "written by"):
            self.assertIn(part, text)
        self.assertGreater(text.index("== failed: first\n"), text.index("== fourth, "), "where a reader finds it")

    def test_on_sigterm_the_test_under_way_unwinds_and_nothing_more_begins(self) -> None:
        with self.command(1, {"first": WAITS, "second": PASSES}) as process:
            while not (self.folder / "begun").exists():
                self.assertIsNone(process.poll())
            process.send_signal(signal.SIGTERM)
            _, text = process.communicate(timeout=60)
        self.assertNotEqual(process.returncode, 0)
        self.assertTrue((self.folder / "cleaned").exists(), text)
        self.assertNotIn("written by", text)
