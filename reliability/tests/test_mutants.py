"""The mutants can still be applied to this source; see reliability/mutants."""

import ast
import io
import signal
import subprocess
import sys
import tempfile
import traceback
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from reliability.mutants import trial
from reliability.mutants.catalogue import MUTANTS
from reliability.mutants.cli import main, modules_for
from reliability.mutants.mutant import Mutant, MutantError
from reliability.mutants.report import short
from reliability.mutants.trial import ROOT, copied, environment, suite
from reliability.mutants.under_test import Outcome, last_word

MUTANT = Mutant("deaf", "it does not listen", "rtmanager/cli.py", "import argparse\n", "print('deaf')\n", "test_rest")


class CatalogueTest(unittest.TestCase):
    def test_the_old_text_of_each_stands_once_in_the_source(self) -> None:
        self.assertEqual([problem for mutant in MUTANTS if (problem := mutant.problem(ROOT))], [])

    def test_each_is_a_program_still_and_another_one(self) -> None:
        for mutant in MUTANTS:
            if mutant.file.endswith(".sql"):
                continue  # only PostgreSQL could check it
            with self.subTest(mutant.name):
                source = (ROOT / mutant.file).read_text()
                changed = source.replace(mutant.old, mutant.new)
                self.assertTrue(ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)), "the edit changes nothing")

    def test_each_has_a_name_of_its_own_and_a_module_of_the_suite(self) -> None:
        self.assertEqual(len({mutant.name for mutant in MUTANTS}), len(MUTANTS))
        self.assertEqual({f"integration.{mutant.module}" for mutant in MUTANTS} - set(suite()), set())

    def test_what_is_not_there_once_is_no_mutant(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file.py")
            mutant = Mutant("one", "it is broken", "file.py", "a = 1\n", "a = 2\n", "test_rest")
            self.assertIn("there is no file.py", mutant.problem(Path(folder)) or "")
            for text in ("", "a = 1\na = 1\n"):
                path.write_text(text)
                with self.assertRaises(MutantError):
                    mutant.apply(Path(folder))
            path.write_text("a = 1\nb = 1\n")
            mutant.apply(Path(folder))
            self.assertEqual(path.read_text(), "a = 2\nb = 1\n")


class CopyTest(unittest.TestCase):
    def test_a_process_in_the_copy_runs_the_copy_and_the_tree_is_as_it_was(self) -> None:
        before = (ROOT / MUTANT.file).read_text()
        with copied() as folder:
            MUTANT.apply(folder / "tree")
            command = [sys.executable, "-m", "rtmanager", "--help"]
            run = subprocess.run(
                command, cwd=folder / "tree", env=environment(folder), capture_output=True, text=True, check=False
            )
        self.assertTrue(run.stdout.startswith("deaf\n"), run)
        self.assertEqual((ROOT / MUTANT.file).read_text(), before)
        self.assertFalse(folder.exists())

    def test_a_suite_that_is_not_of_the_copy_is_an_error(self) -> None:
        with tempfile.TemporaryDirectory() as elsewhere:
            command = [sys.executable, "-m", "reliability.mutants.under_test", "outcome", "integration.test_rest"]
            env = {**environment(Path(elsewhere)), "PYTHONPATH": str(ROOT)}
            run = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("not from the copy", run.stderr)


class CommandLineTest(unittest.TestCase):
    """With invented outcomes of the suite; the command itself runs trials on real services."""

    def run_with(self, *outcomes: str, quick: bool = True) -> tuple[int, str, str]:
        """Run `main` on one mutant; `outcomes` are the failed test of each run, or empty, the unchanged tree first."""
        made = [Outcome(tests=9, failed=failed, why="because", skipped=0, run="1") for failed in outcomes]
        with (
            mock.patch("reliability.mutants.cli.MUTANTS", [MUTANT]),
            mock.patch("reliability.mutants.cli.attempt", side_effect=made),
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
        ):
            code = main(["--quick"] if quick else [])
        return code, out.getvalue(), err.getvalue()

    def test_a_mutant_that_is_caught_is_shown_with_the_test_that_did(self) -> None:
        code, out, _ = self.run_with("", "integration.test_rest.Answers.test_it_listens")

        self.assertEqual(code, 0)
        self.assertIn("| it does not listen | `cli.py` | `test_rest: test_it_listens` |", out)

    def test_a_mutant_that_survives_is_an_error(self) -> None:
        code, out, err = self.run_with("", "")

        self.assertEqual(code, 1)
        self.assertIn("**nothing**", out)
        self.assertIn("1 of 1 survived: deaf", err)

    def test_a_suite_that_fails_on_the_unchanged_tree_is_an_error(self) -> None:
        code, out, err = self.run_with("integration.test_rest.Answers.test_it_listens")

        self.assertEqual((code, out), (1, ""))
        self.assertIn("unchanged tree: integration.test_rest.Answers.test_it_listens: because", err)

    def test_an_edit_that_cannot_be_made_is_an_error_before_anything_is_run(self) -> None:
        stale = Mutant("stale", "nothing", "rtmanager/cli.py", "no such text", "", "test_rest")
        with (
            mock.patch("reliability.mutants.cli.MUTANTS", [MUTANT, stale]),
            mock.patch("reliability.mutants.cli.attempt") as attempt,
            redirect_stderr(io.StringIO()) as err,
        ):
            self.assertEqual(main([]), 1)
        self.assertIn("stale: its old text stands 0 times", err.getvalue())
        attempt.assert_not_called()

    def test_a_name_that_is_none_is_told_with_those_there_are(self) -> None:
        with redirect_stderr(io.StringIO()) as err:
            self.assertEqual(main(["wrong-cod"]), 1)
        self.assertIn("there is no mutant wrong-cod; there are", err.getvalue())

    def test_the_whole_suite_is_run_with_the_likely_module_first(self) -> None:
        self.assertEqual(modules_for(MUTANT, quick=True), ["integration.test_rest"])
        whole = modules_for(MUTANT, quick=False)
        self.assertEqual((whole[0], sorted(whole)), ("integration.test_rest", suite()))

    def test_a_test_is_shown_by_module_and_name(self) -> None:
        self.assertEqual(short("integration.test_rest_bodies.Bodies.test_x (body=1.5)"), "test_rest_bodies: test_x")
        self.assertEqual(short("setUpModule (integration.test_rest)"), "setUpModule (integration.test_rest)")

    def test_of_a_failure_the_line_that_names_the_error_is_shown(self) -> None:
        try:
            self.assertEqual(["a"], ["b"], "see\n  the log:\nPath: /nowhere")
        except AssertionError:
            trace = traceback.format_exc()
        self.assertEqual(last_word(trace), "AssertionError: Lists differ: ['a'] != ['b']")
        self.assertEqual(
            last_word('  File "x"\n    f()\nsubprocess.TimeoutExpired: late'), "subprocess.TimeoutExpired: late"
        )

    def test_sigterm_ends_the_command_in_order(self) -> None:
        with (
            mock.patch("reliability.mutants.cli.MUTANTS", [MUTANT]),
            mock.patch("reliability.mutants.cli.attempt", side_effect=lambda *_: signal.raise_signal(signal.SIGTERM)),
            redirect_stderr(io.StringIO()),
        ):
            self.assertEqual(main([]), 130)

    def test_a_run_that_leaves_something_on_the_daemon_is_an_error(self) -> None:
        outcome = Outcome(tests=1, failed="", why="", skipped=0, run="1")
        with (
            mock.patch.object(trial, "_run", return_value=outcome),
            mock.patch.object(trial, "left_by", return_value=["container 12ab"]),
            self.assertRaisesRegex(MutantError, "container 12ab"),
        ):
            trial.attempt(None, ["integration.test_rest"])
