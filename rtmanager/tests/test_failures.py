"""What fails for one game: reported once, counted each time, and nothing else ends."""

from __future__ import annotations

import unittest

from rtmanager.domain.errors import Unavailable
from rtmanager.operations.store import StoreRefused
from rtmanager.tests.making import Heard
from rtmanager.workers import failures as failures_module
from rtmanager.workers.failures import GameFailures
from rtmanager.workers.status import Workers


class GameFailuresTest(unittest.TestCase):
    def setUp(self) -> None:
        self.heard = Heard()
        self.counted: list[str] = []
        self.failures = GameFailures(self.heard.logger, self.counted.append)

    def failing(self, error: Exception, game_id: str = "g1") -> None:
        def work() -> None:
            raise error

        self.assertIsNone(self.failures.guarded("probe", game_id, work))

    def test_each_cause_is_logged_once_and_each_failure_counted(self) -> None:
        for error in (ValueError("a"), ValueError("a"), ValueError("b"), ValueError("b")):
            self.failing(error)
        self.failing(ValueError("b"), "g2")
        self.assertEqual((len(self.heard.messages), len(self.counted)), (3, 5))
        self.assertEqual(self.failures.failing(), 2)
        self.assertEqual({record.levelname for record in self.heard.records}, {"ERROR"})

    def test_what_worked_and_fails_again_is_logged_again(self) -> None:
        self.failing(ValueError("a"))
        self.assertEqual(self.failures.guarded("probe", "g1", lambda: 5), 5)
        self.assertEqual(self.failures.failing(), 0)
        self.failing(ValueError("a"))
        self.assertEqual(len(self.heard.messages), 2)

    def test_silence_is_the_callers(self) -> None:
        with self.assertRaises(Unavailable):
            self.failing(Unavailable("postgres", "away"))
        self.assertEqual(self.counted, [])

    def test_a_defect_has_a_traceback_and_a_refusal_has_none(self) -> None:
        self.failing(KeyError("State"))
        self.failing(StoreRefused("a NUL"))
        self.assertEqual([record.exc_info is not None for record in self.heard.records], [True, False])

    def test_what_is_logged_and_remembered_is_bounded(self) -> None:
        self.failing(ValueError("x\0" * 1_000_000), "g\n" * 1_000_000)
        (record,) = self.heard.records
        self.assertLess(len(vars(record)["error"]) + len(vars(record)["game_id"]), 2000)
        self.assertNotIn("\0", vars(record)["error"])
        for number in range(failures_module.MOST + 5):
            self.failures.report("probe", f"g{number}", StoreRefused("x"))
        self.assertEqual(self.failures.failing(), failures_module.MOST)


class PassesTest(unittest.TestCase):
    def test_a_pass_that_ends_well_hides_no_defect_in_game_after_game(self) -> None:
        heard = Heard()
        workers = Workers(heard.logger)
        failures = GameFailures(heard.logger, status=workers.of_games)
        for number in range(3):
            failures.report("inspect", f"g{number}", ValueError("a defect"))
        workers.status("inspect").succeeded()
        self.assertEqual(list(workers.problems()), ["worker inspect-games"])
        failures.succeeded("inspect", "g0")
        self.assertEqual(workers.problems(), {})
