"""The mutants can still be applied to this source, and their command reports what failed; see reliability/mutants."""

import ast
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from threading import Event
from unittest import mock

from reliability.mutants import trial
from reliability.mutants.catalogue import GROUPS
from reliability.mutants.check import ROOT, Check, cells, distinct, module, suite, test, whole
from reliability.mutants.cli import main
from reliability.mutants.failure import failed_test, marked_line
from reliability.mutants.mutant import Edit, Mutant, MutantError
from reliability.mutants.trial import attempt
from rtmanager.failpoints import POINTS

MUTANTS = [mutant for group in GROUPS.values() for mutant in group]

MUTANT = Mutant(
    "deaf",
    "it does not listen",
    Edit("cli.py", "import argparse\n", "print('deaf')\n"),
    check=module("test_rest"),
)
STALE = Mutant("stale", "nothing", Edit("cli.py", "no such text", ""), check=module("test_rest"))

#: An edit, and a test without services that detects it.
BROKEN = Edit("domain/record.py", "removed_at=now, last_op_at=now)", "removed_at=None, last_op_at=now)")
UNIT = test("rtmanager.tests.test_domain_record")


def exists(name: str) -> bool:
    """Whether there is a module, or a class of a module, with this name; reads the source, as an import may skip."""
    package, _, last = name.rpartition(".")
    if ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file():
        return True
    module = ROOT.joinpath(*package.split(".")).with_suffix(".py")
    return module.is_file() and f"\nclass {last}(" in module.read_text()


class CatalogueTest(unittest.TestCase):
    def test_the_old_text_of_each_edit_stands_once_in_the_source(self) -> None:
        self.assertEqual([problem for mutant in MUTANTS for problem in mutant.problems(ROOT)], [])

    def test_each_is_a_program_still_and_another_one(self) -> None:
        for mutant in MUTANTS:
            for edit in mutant.edits:
                if edit.file.endswith(".sql"):
                    continue  # only PostgreSQL could check it
                with self.subTest(mutant.name):
                    source = (ROOT / "rtmanager" / edit.file).read_text()
                    changed = ast.parse(edit.changed(ROOT))
                    self.assertNotEqual(ast.dump(changed), ast.dump(ast.parse(source)), "the edit changes nothing")

    def test_each_has_an_edit_and_a_name_of_its_own(self) -> None:
        self.assertEqual(len({mutant.name for mutant in MUTANTS}), len(MUTANTS))
        self.assertEqual([mutant.name for mutant in MUTANTS if not mutant.edits], [])

    def test_the_tests_that_detect_them_exist(self) -> None:
        names = {name for mutant in MUTANTS for name in mutant.check.tests}
        self.assertEqual({name for name in names if not exists(name)}, set())

    def test_the_points_that_detect_them_exist(self) -> None:
        arguments = [mutant.check.arguments for mutant in MUTANTS]
        points = {each[each.index("--point") + 1] for each in arguments if "--point" in each}
        self.assertTrue(points)
        self.assertEqual(points - POINTS, set())

    def test_what_is_not_there_once_is_no_mutant(self) -> None:
        edit = Edit("file.py", "a = 1\n", "a = 2\n")
        with tempfile.TemporaryDirectory() as folder:
            root, path = Path(folder), Path(folder, "rtmanager", "file.py")
            path.parent.mkdir()
            with self.assertRaisesRegex(MutantError, "there is no rtmanager/file.py"):
                edit.apply(root)
            for text in ("", "a = 1\na = 1\n"):
                path.write_text(text)
                with self.assertRaises(MutantError):
                    edit.apply(root)
            path.write_text("a = 1\nb = 1\n")
            edit.apply(root)
            self.assertEqual(path.read_text(), "a = 2\nb = 1\n")


class CheckTest(unittest.TestCase):
    def test_the_whole_suite_is_run_with_the_likely_module_first(self) -> None:
        tests = whole(module("test_rest")).tests
        self.assertEqual((tests[0], sorted(tests)), ("integration.test_rest", suite()))

    def test_other_checks_stay_as_they_are(self) -> None:
        for check in (cells("stop job", "docker.stop.after"), UNIT):
            self.assertEqual(whole(check), check)

    def test_all_tests_are_one_run_and_each_check_is_there_once(self) -> None:
        cell = cells("stop job", "docker.stop.after")
        checks = distinct([module("test_rest"), cell, UNIT, cell, module("test_rest")])
        self.assertEqual(checks, [test("integration.test_rest", *UNIT.tests), cell])


class FailureTest(unittest.TestCase):
    def failed(self, case: str) -> str | None:
        """What is read from unittest's own output on a module with this case."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "test_made.py").write_text(f"import unittest\nclass Made(unittest.TestCase):\n{case}")
            command = [sys.executable, "-m", "unittest", "-f", "-v", "test_made"]
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        return failed_test(run.stderr)

    def test_of_a_failed_test_module_name_and_error_are_read(self) -> None:
        check = "with self.subTest(body=1.5): self.assertEqual(['a'], ['b'], 'see\\nPath:')"
        case = f" def test_x(self):\n  'Words.'\n  {check}"
        self.assertEqual(self.failed(case), "test_made: test_x: AssertionError: Lists differ: ['a'] != ['b']")

    def test_an_error_outside_of_a_test_is_read(self) -> None:
        case = " @classmethod\n def setUpClass(cls): raise OSError('no')\n def test_x(self): pass"
        self.assertEqual(self.failed(case), "test_made: setUpClass: OSError: no")
        self.assertEqual(self.failed(" import no"), "test_made: test_made: ModuleNotFoundError: No module named 'no'")

    def test_an_unexpected_success_is_read(self) -> None:
        case = " @unittest.expectedFailure\n def test_x(self): pass"
        self.assertEqual(self.failed(case), "test_made: test_x: UNEXPECTED SUCCESS")

    def test_a_pass_is_no_failure(self) -> None:
        self.assertIsNone(self.failed(" def test_x(self): pass"))

    def test_the_marked_line_of_another_log_is_read(self) -> None:
        log = "begin\nwaited 25 s for rest; last seen: I1: job 5 has no result\nend\n"
        self.assertEqual(marked_line(log), "I1: job 5 has no result")
        self.assertEqual(marked_line("begin\nend\n"), "end")


class TrialTest(unittest.TestCase):
    """Trials of checks that need no services."""

    def setUp(self) -> None:
        self.temporary = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(mock.patch.object(tempfile, "tempdir", str(self.temporary)))
        self.left_by = self.enterContext(mock.patch.object(trial, "left_by", return_value=[]))

    def tearDown(self) -> None:
        self.assertEqual(list(self.temporary.iterdir()), [], "a trial leaves its copy")

    def test_an_edit_is_made_in_the_copy_alone(self) -> None:
        before = (ROOT / "rtmanager" / BROKEN.file).read_text()
        failure = attempt([BROKEN], UNIT, Event()) or ""
        self.assertIn("test_domain_record: test_a_removed_game_keeps_its_image_and_its_place: AssertionError", failure)
        self.assertEqual((ROOT / "rtmanager" / BROKEN.file).read_text(), before)
        self.assertIsNone(attempt([], UNIT, Event()))

    def test_a_run_that_leaves_something_on_the_daemon_is_an_error(self) -> None:
        self.left_by.return_value = ["container 12ab"]
        with self.assertRaisesRegex(MutantError, "container 12ab"):
            attempt([], UNIT, Event())

    def test_the_objects_of_a_run_are_found_by_the_id_that_it_has(self) -> None:
        def left_by(run: str) -> list[str]:
            (log,) = self.temporary.glob("*/log")
            self.assertEqual(log.read_text().splitlines()[0], run)
            return []

        self.left_by.side_effect = left_by
        shown = "from harness.runs import identity; print(identity.current().run)"
        attempt([], Check("its id", ("timeit", "-n1", "-s", shown)), Event())
        self.left_by.assert_called_once()

    def test_a_check_that_runs_nothing_is_an_error(self) -> None:
        with self.assertRaisesRegex(MutantError, "runs nothing|could not be run"):  # from Python 3.12 on an exit code
            attempt([], test("rtmanager.tests.making"), Event())

    def test_a_check_that_ends_in_another_way_is_an_error(self) -> None:
        for arguments in (("reliability.crashes", "--no-such-option"), ("timeit", "import os; os._exit(86)")):
            with self.subTest(arguments), self.assertRaisesRegex(MutantError, "odd could not be run"):
                attempt([], Check("odd", arguments), Event())

    def test_a_stopped_check_ends_at_once(self) -> None:
        stop = Event()
        stop.set()
        with self.assertRaisesRegex(MutantError, "endless was stopped"):
            attempt([], Check("endless", ("timeit", "import time; time.sleep(600)")), stop)

    def test_a_check_without_end_is_an_error(self) -> None:
        with mock.patch.object(trial, "TIMEOUT_S", 0), self.assertRaisesRegex(MutantError, "endless has not ended"):
            attempt([], Check("endless", ("timeit", "import time; time.sleep(600)")), Event())

    def test_a_check_of_packages_that_are_not_the_copys_is_an_error(self) -> None:
        with (
            mock.patch.object(trial, "environment", side_effect=lambda _: {**os.environ, "PYTHONPATH": str(ROOT)}),
            mock.patch.object(trial, "COPIED", ("docs",)),
            self.assertRaisesRegex(MutantError, "not from the copy"),
        ):
            attempt([], UNIT, Event())


class CommandLineTest(unittest.TestCase):
    """With invented results of the checks; the command itself runs trials on real services."""

    def run_with(self, *failures: str | None, arguments: Sequence[str] = ("--quick",)) -> tuple[int, str, str]:
        """Run `main` on MUTANT; `failures` are the results of the checks, the unchanged tree's first."""
        with (
            mock.patch("reliability.mutants.cli.GROUPS", {"mutants": [MUTANT], "protections": [STALE]}),
            mock.patch("reliability.mutants.cli.attempt", side_effect=failures) as self.attempt,
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
        ):
            code = main(arguments)
        return code, out.getvalue(), err.getvalue()

    def test_a_mutant_that_is_caught_is_shown_with_what_failed(self) -> None:
        code, out, _ = self.run_with(None, "test_rest: test_it_listens: Error: a | b")

        self.assertEqual(code, 0)
        row = "| deaf | it does not listen | integration.test_rest | test_rest: test_it_listens: Error: a \\| b |"
        self.assertIn(row, out)

    def test_a_mutant_that_survives_is_an_error(self) -> None:
        code, out, err = self.run_with(None, None)

        self.assertEqual(code, 1)
        self.assertIn("**nothing**", out)
        self.assertIn("1 of 1 survived: deaf", err)

    def test_a_check_that_fails_on_the_unchanged_tree_is_an_error(self) -> None:
        code, out, err = self.run_with("test_rest: test_it_listens: Error: no")

        self.assertEqual((code, out), (1, ""))
        self.assertIn("unchanged tree: test_rest: test_it_listens: Error: no", err)

    def test_an_edit_that_cannot_be_made_is_an_error_before_anything_is_run(self) -> None:
        code, _, err = self.run_with(arguments=["--group", "protections"])

        self.assertEqual(code, 1)
        self.assertIn("stale: its old text stands 0 times", err)
        self.attempt.assert_not_called()

    def test_a_mutant_of_any_group_is_chosen_by_its_name(self) -> None:
        self.assertIn("stale: its old text", self.run_with(arguments=["stale"])[2])

    def test_a_name_that_is_none_is_an_error_with_those_there_are(self) -> None:
        code, _, err = self.run_with(arguments=["def"])

        self.assertEqual(code, 1)
        self.assertIn("there is no mutant def; there are deaf, stale", err)

    def test_the_whole_suite_is_the_check_unless_quick(self) -> None:
        for arguments, check in (((), whole(MUTANT.check)), (("--quick",), MUTANT.check)):
            self.run_with(None, "it fails", arguments=arguments)
            self.assertEqual([call.args[1].tests for call in self.attempt.call_args_list], [check.tests] * 2)

    def test_sigterm_ends_the_command_in_order(self) -> None:
        stopped = []

        def interrupted(_edits: Sequence[Edit], _check: Check, stop: Event) -> None:
            time.sleep(0.2)  # until the main thread waits for this one
            os.kill(os.getpid(), signal.SIGTERM)
            stopped.append(stop.wait(30))

        with mock.patch("reliability.mutants.cli.attempt", interrupted), redirect_stderr(io.StringIO()):
            self.assertEqual(main(["wrong-mount"]), 130)
        self.assertEqual(stopped, [True])
