"""A wait ends as soon as possible, and its error names what was seen."""

import time
import unittest
from collections.abc import Callable
from typing import Any

from harness.errors import WaitFailed
from harness.waiting import depends_on, wait_until


class WaitTest(unittest.TestCase):
    def test_it_returns_what_the_probe_at_last_returns(self) -> None:
        answers = iter(["", "", "ready"])
        self.assertEqual(wait_until("an answer", lambda: next(answers), interval_s=0.001), "ready")

    def test_an_expected_error_means_not_yet(self) -> None:
        answers = iter([ConnectionRefusedError(), None])

        def probe() -> bool:
            if error := next(answers):
                raise error
            return True

        self.assertTrue(wait_until("a port", probe, interval_s=0.001))

    def test_another_error_ends_the_wait(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            wait_until("sense", lambda: 1 // 0)

    def test_the_failure_reports_what_for_how_long_and_what_was_last_seen(self) -> None:
        with self.assertRaisesRegex(WaitFailed, r"waited 0\.05 s for the moon; last seen: 'new'$"):
            wait_until("the moon", lambda: "", timeout_s=0.05, describe=lambda seen: repr(seen or "new"))

    def test_a_hopeless_wait_ends_at_once(self) -> None:
        began = time.monotonic()
        with self.assertRaisesRegex(WaitFailed, "waited for the moon: it is cloudy"):
            wait_until("the moon", lambda: False, hopeless=lambda: "it is cloudy")
        self.assertLess(time.monotonic() - began, 1)


class Box:
    """Something that may end, as a container does."""

    def __init__(self) -> None:
        self.ended = ""

    def log(self) -> str:
        depends_on(self)
        return "its log"

    def why_ended(self) -> str | None:
        return self.ended or None

    def last_log_lines(self) -> str:
        return "  its last words"


class WatchTest(unittest.TestCase):
    def fails(self, probe: Callable[[], object], **how: Any) -> str:
        with self.assertRaises(WaitFailed) as failed:
            wait_until("the moon", probe, **how)
        return str(failed.exception)

    def test_it_ends_when_what_the_probe_uses_ends_and_shows_its_last_log_lines(self) -> None:
        box = Box()
        box.ended = "the box ended"
        self.assertRegex(self.fails(lambda: "moon" in box.log()), "(?s)for the moon: the box ended.*its last words")

    def test_a_wait_in_vain_shows_the_last_log_lines_of_what_runs_on(self) -> None:
        box = Box()
        self.assertRegex(self.fails(lambda: "moon" in box.log(), timeout_s=0.05), "(?s)waited 0.05 s.*its last words")

    def test_what_is_to_be_watched_may_be_named(self) -> None:
        box = Box()
        box.ended = "the box ended"
        self.assertIn("the box ended", self.fails(lambda: False, watch=[box]))

    def test_what_comes_with_the_end_is_not_missed(self) -> None:
        box = Box()
        answers = iter([False, True])

        def probe() -> bool:
            box.ended = "the box ended"
            box.log()
            return next(answers)

        self.assertTrue(wait_until("the moon", probe))

    def test_what_no_probe_looks_at_is_not_watched(self) -> None:
        Box().log()
        self.assertNotIn("last words", self.fails(lambda: False, timeout_s=0.01))
