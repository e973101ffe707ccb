"""A wait ends as soon as it can, and its failure tells what was seen."""

import time
import unittest

from harness.errors import WaitFailed
from harness.waiting import wait_until


class WaitTest(unittest.TestCase):
    def test_it_returns_what_the_probe_at_last_returns(self) -> None:
        answers = iter(["", "", "ready"])
        self.assertEqual(wait_until("an answer", lambda: next(answers), interval_s=0.001), "ready")

    def test_an_expected_error_means_not_yet(self) -> None:
        looks = iter([ConnectionRefusedError(), None])

        def probe() -> bool:
            if error := next(looks):
                raise error
            return True

        self.assertTrue(wait_until("a port", probe, interval_s=0.001))

    def test_another_error_ends_the_wait(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            wait_until("sense", lambda: 1 // 0)

    def test_the_failure_tells_what_for_how_long_and_what_was_last_seen(self) -> None:
        with self.assertRaisesRegex(WaitFailed, r"waited 0\.05 s for the moon; last seen: 'new'$"):
            wait_until("the moon", lambda: "", timeout_s=0.05, describe=lambda seen: repr(seen or "new"))

    def test_a_hopeless_wait_ends_at_once(self) -> None:
        began = time.monotonic()
        with self.assertRaisesRegex(WaitFailed, "waited for the moon: it is cloudy"):
            wait_until("the moon", lambda: False, hopeless=lambda: "it is cloudy")
        self.assertLess(time.monotonic() - began, 1)
