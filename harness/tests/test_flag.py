"""RTM_INTEGRATION decides between running, skipping and failing."""

import io
import os
import unittest
from unittest import mock

from harness.errors import DaemonUnavailable, HarnessError
from harness.runs import flag

NO_DAEMON = mock.patch("harness.daemon.why_unavailable", return_value="no daemon here")
A_DAEMON = mock.patch("harness.daemon.why_unavailable", return_value=None)


def _set(value: str) -> "mock._patch_dict":
    return mock.patch.dict(os.environ, {flag.VARIABLE: value})


class FlagTest(unittest.TestCase):
    def test_without_the_flag_tests_are_skipped_and_docker_is_not_called(self) -> None:
        with NO_DAEMON as connect, _set(""), self.assertRaisesRegex(unittest.SkipTest, "RTM_INTEGRATION=1"):
            flag.check()
        connect.assert_not_called()

    def test_with_the_flag_and_no_daemon_tests_are_skipped_with_the_cause(self) -> None:
        with NO_DAEMON, _set("1"), self.assertRaisesRegex(unittest.SkipTest, "no daemon here"):
            flag.check()

    def test_require_fails_without_a_daemon(self) -> None:
        with NO_DAEMON, _set("require"), self.assertRaisesRegex(DaemonUnavailable, "no daemon here"):
            flag.check()

    def test_with_a_daemon_tests_run(self) -> None:
        for value in ("1", "require"):
            with self.subTest(value), A_DAEMON, _set(value):
                flag.check()

    def test_a_command_removes_what_killed_runs_left_where_it_may_run(self) -> None:
        with mock.patch.object(flag, "sweep") as swept:
            with NO_DAEMON, _set("1"), self.assertRaises(unittest.SkipTest):
                flag.begin()
            swept.assert_not_called()
            with A_DAEMON, _set("1"):
                flag.begin()
            swept.assert_called_once_with()

    def test_the_cause_of_skips_is_shown_once_and_not_for_each_module(self) -> None:
        flag._print_once.cache_clear()
        with _set(""), mock.patch("sys.stderr", io.StringIO()) as shown:
            for _ in range(3):
                self.assertRaises(unittest.SkipTest, flag.check)
        self.assertEqual(shown.getvalue().count("set RTM_INTEGRATION=1"), 1)

    def test_another_value_is_named(self) -> None:
        with _set("maybe"), self.assertRaisesRegex(HarnessError, "'maybe'"):
            flag.check()
