"""The command line: one line for a failure, and the exit code."""

import io
import signal
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from harness import cli
from harness.errors import MachineNotReady
from harness.fixtures import stateroot
from harness.machine.doctor import Check
from harness.runs.sweep import Swept


class CommandLineTest(unittest.TestCase):
    def setUp(self) -> None:
        # The command line enables progress for the whole process, including later tests.
        self.enterContext(mock.patch("harness.progress.enable"))

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
            code = cli.main(list(arguments))
        return code, out.getvalue(), errors.getvalue()

    def test_doctor_fails_when_something_is_missing_and_names_the_remedy(self) -> None:
        checks = [Check("Linux", True, "Linux 6"), Check("free disk", False, "1 GB", "free 2 GB there")]
        with mock.patch("harness.machine.doctor.examine", return_value=iter(checks)):
            code, out, _ = self.run_command("doctor")
        self.assertEqual(code, 1)
        self.assertRegex(out, r"ok +Linux +Linux 6\nmissing +free disk +1 GB\n +-> free 2 GB there\n")

    def test_doctor_succeeds_when_all_is_there(self) -> None:
        with mock.patch("harness.machine.doctor.examine", return_value=iter([Check("Linux", True, "")])):
            self.assertEqual(self.run_command("doctor")[0], 0)

    def test_a_failure_is_a_message_and_not_a_traceback(self) -> None:
        with mock.patch("harness.machine.up.up", side_effect=MachineNotReady("no daemon: do this")):
            code, _, errors = self.run_command("up")
        self.assertEqual((code, errors), (1, "harness: no daemon: do this\n"))

    def test_an_interrupt_is_an_exit_code_and_not_a_traceback(self) -> None:
        for interrupt, expected in ((KeyboardInterrupt(), 130), (KeyboardInterrupt(signal.SIGTERM), 143)):
            with mock.patch("harness.machine.up.up", side_effect=interrupt):
                self.assertEqual(self.run_command("up"), (expected, "", ""))

    def test_what_was_kept_is_listed_and_removed(self) -> None:
        states = self.enterContext(tempfile.TemporaryDirectory())
        self.enterContext(mock.patch.dict("os.environ", {"RTM_IT_STATE_DIR": states}))
        self.enterContext(mock.patch("harness.daemon.why_unavailable", return_value="none"))
        one, other = stateroot.create("one"), stateroot.create("other")
        one.keep("shop.Shop.test_one")
        other.keep("shop.Shop.test_other")
        code, out, _ = self.run_command("kept")
        self.assertEqual(code, 0)
        self.assertRegex(out, f"{one.directory}  shop.Shop.test_one\n.*{other.directory}  shop.Shop.test_other\n")
        self.assertEqual(self.run_command("kept", "--remove", "/elsewhere")[0], 1)
        self.assertEqual(self.run_command("kept", str(one.directory))[0], 2)
        self.assertEqual(
            self.run_command("kept", "--remove", str(one.directory))[:2], (0, f"removed {one.directory}\n")
        )
        self.assertTrue(other.directory.exists())
        code, _, errors = self.run_command("kept", "--remove")
        self.assertEqual((code, other.directory.exists()), (0, False))
        self.assertIn("containers and networks are not looked for: none", errors)

    def test_what_runs_kept_is_swept_of_those_that_are_named(self) -> None:
        for arguments, runs in ((("--kept", "a1", "b2"), ["a1", "b2"]), (("--kept",), [])):
            with mock.patch("harness.runs.sweep.sweep", return_value=Swept()) as sweep:
                self.assertEqual(self.run_command("sweep", *arguments)[0], 0)
            sweep.assert_called_once_with(kept=True, runs=runs)

    def test_every_command_says_what_it_does(self) -> None:
        for name, command in cli.COMMANDS.items():
            self.assertTrue(command.__doc__, name)
