"""A failure of one game is logged once, counted each time, and does not end the work on others."""

from __future__ import annotations

import unittest

from rtmanager.domain.errors import ErrorCode, TemporaryAnswer, Unavailable
from rtmanager.ports.store import StoreRejected
from rtmanager.tests.making import LogCapture
from rtmanager.workers import failures as failures_module
from rtmanager.workers.failures import ALL_GAMES, GameFailures
from rtmanager.workers.status import Workers


class GameFailuresTest(unittest.TestCase):
    def setUp(self) -> None:
        self.captured = LogCapture()
        self.counted: list[str] = []
        self.failures = GameFailures(self.captured.logger, self.counted.append)

    def failing(self, error: Exception, game_id: str = "g1") -> None:
        def work() -> None:
            raise error

        self.assertIsNone(self.failures.guarded("probe", game_id, work))

    def test_each_cause_is_logged_once_and_each_failure_counted(self) -> None:
        for error in (ValueError("a"), ValueError("a"), ValueError("b"), ValueError("b")):
            self.failing(error)
        self.failing(ValueError("b"), "g2")
        self.assertEqual((len(self.captured.messages), len(self.counted)), (3, 5))
        self.assertEqual({record.levelname for record in self.captured.records}, {"ERROR"})

    def test_what_worked_and_fails_again_is_logged_again(self) -> None:
        self.failing(ValueError("a"))
        self.assertEqual(self.failures.guarded("probe", "g1", lambda: 5), 5)
        self.failing(ValueError("a"))
        self.assertEqual(len(self.captured.messages), 2)

    def test_silence_is_the_callers(self) -> None:
        with self.assertRaises(Unavailable):
            self.failing(Unavailable("postgres", "away"))
        self.assertEqual(self.counted, [])

    def test_a_defect_has_a_traceback_and_a_refusal_has_none(self) -> None:
        self.failing(KeyError("State"))
        self.failing(StoreRejected("a NUL"))
        self.assertEqual([record.exc_info is not None for record in self.captured.records], [True, False])

    def test_what_is_logged_and_remembered_is_bounded(self) -> None:
        self.failing(ValueError("x\0" * 1_000_000), "g\n" * 1_000_000)
        (record,) = self.captured.records
        self.assertLess(len(vars(record)["error"]) + len(vars(record)["game_id"]), 2000)
        self.assertNotIn("\0", vars(record)["error"])
        for number in range(failures_module.MOST + 5):
            for _ in range(3):
                self.failures.report("probe", f"g{number}", StoreRejected("x"))
        self.assertEqual(len(self.failures.failing()), failures_module.MOST_LISTED)
        self.assertEqual(len(self.failures._known), failures_module.MOST)
        for number in range(100):
            self.failing(StoreRejected(f"at {number:#x}"), "odd")
        self.assertEqual(len([each for each in self.captured.records if vars(each)["game_id"] == "odd"]), 5)


class RepeatedTest(unittest.TestCase):
    """A single game that fails again and again."""

    def setUp(self) -> None:
        self.captured = LogCapture()
        self.now = 1000.0
        self.failures = GameFailures(self.captured.logger, clock=lambda: self.now)

    def fail_again(self, times: int, every_s: float = 15.0, game_id: str = "g1") -> None:
        for _ in range(times):
            self.now += every_s
            self.failures.report("probe", game_id, StoreRejected("a rule"))

    def test_it_is_listed_from_the_third_time_on_until_it_works(self) -> None:
        self.fail_again(2)
        self.assertEqual(self.failures.failing(), {})
        self.fail_again(1)
        self.assertEqual(self.failures.failing(), {("probe", "g1"): 3})
        self.failures.succeeded("probe", "g2")
        self.failures.succeeded("reconcile", "g1")
        self.assertEqual(self.failures.failing(), {("probe", "g1"): 3})
        self.failures.succeeded("probe", "g1")
        self.assertEqual(self.failures.failing(), {})

    def test_one_that_is_gone_is_listed_for_three_of_its_pauses_and_three_minutes_at_least(self) -> None:
        for every_s, for_s in ((15.0, 180.0), (300.0, 900.0), (3600.0, 10_800.0)):
            self.failures.succeeded("probe", "g1")
            self.now += 100_000
            self.fail_again(4, every_s)
            self.now += for_s
            self.assertEqual(self.failures.failing(), {("probe", "g1"): 4}, every_s)
            self.now += 1
            self.assertEqual(self.failures.failing(), {}, every_s)

    def test_failures_that_are_hours_apart_are_no_row(self) -> None:
        self.fail_again(5, 5 * 3600)
        self.assertEqual(self.failures.failing(), {})

    def test_it_is_logged_once_an_hour_with_the_number_of_failures(self) -> None:
        self.fail_again(4 * 60 * 3)
        logged = [vars(record)["failures"] for record in self.captured.records]
        self.assertEqual(logged, [1, 241, 481])


class PassesTest(unittest.TestCase):
    def test_a_pass_that_ends_well_hides_no_defect_in_game_after_game(self) -> None:
        captured = LogCapture()
        workers = Workers(captured.logger)
        failures = GameFailures(captured.logger, status=workers.of_games)
        for number in range(3):
            failures.report("inspect", f"g{number}", ValueError("a defect"))
        workers.status("inspect").succeeded()
        self.assertEqual(list(workers.problems()), ["worker inspect-games"])
        failures.succeeded("inspect", "g0")
        self.assertEqual(workers.problems(), {})

    def test_final_answers_in_game_after_game_fail_the_worker_and_temporary_ones_do_not(self) -> None:
        counts: list[str] = []
        workers = Workers(LogCapture().logger, lambda name, by: counts.extend([name] * int(by)))
        failures = GameFailures(LogCapture().logger, status=workers.of_games)
        busy = TemporaryAnswer("docker", "try again", answer="busy", code=ErrorCode.CONTAINER_START_FAILED)
        for number in range(3):
            failures.report("probe", f"g{number}", busy)
        self.assertEqual((workers.problems(), counts), ({}, []))
        for number in range(3):
            failures.report("probe", f"g{number}", StoreRejected("a rule"))
        self.assertIn("is refused by postgres since", workers.problems()["worker probe-games"])
        self.assertEqual(counts, ["probe-games"] * 3)

    def test_a_try_for_all_that_fails_is_no_game_more(self) -> None:
        workers = Workers(LogCapture().logger)
        failures = GameFailures(LogCapture().logger, status=workers.of_games)
        for game_id in (ALL_GAMES, "g1", "g2"):
            failures.report("read_record", game_id, StoreRejected("a date"))
        self.assertEqual(workers.problems(), {})
        failures.report("read_record", "g3", StoreRejected("a date"))
        self.assertEqual(len(workers.problems()), 1)
