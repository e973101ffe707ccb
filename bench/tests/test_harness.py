"""The time of a reset has its own limit, besides the comparison."""

import time
import unittest
from unittest import mock

from bench.comparison import hold
from bench.harness.services import RESET_MS, Emptying


class EmptyingTest(unittest.TestCase):
    def measured(self, took_s: float) -> tuple[float, bool | None]:
        """The measured p95 of resets of that length, and whether it reaches its goal."""
        filled = mock.Mock(**{"services.empty.side_effect": lambda _keep: time.sleep(took_s)})
        emptying = Emptying()

        hold(emptying.contest(filled), 3)

        self.assertEqual(filled.fill.call_count, 8, "each side finds something to empty, in each round")
        (measure,) = emptying.measures()
        return measure.value, measure.reached

    def test_a_reset_that_is_soon_over_is_within_its_limit(self) -> None:
        value, reached = self.measured(0.001)

        self.assertGreaterEqual(value, 1.0)
        self.assertEqual(reached, value <= RESET_MS)

    def test_one_that_takes_longer_is_not(self) -> None:
        value, reached = self.measured(2 * RESET_MS / 1000)

        self.assertGreaterEqual(value, 2 * RESET_MS)
        self.assertFalse(reached)
