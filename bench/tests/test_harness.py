"""What a reset takes is held against its limit, whatever it is compared with."""

import time
import unittest
from unittest import mock

from bench.comparison import hold
from bench.harness.services import RESET_MS, Emptying


class EmptyingTest(unittest.TestCase):
    def measured(self, took_s: float) -> tuple[float, bool | None]:
        """What is said of resets that take so long, and whether that is the goal."""
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
