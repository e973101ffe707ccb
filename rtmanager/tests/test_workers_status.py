"""A worker that fails by a defect, hangs or has ended is reported by name; a single failure is not."""

from __future__ import annotations

import threading
import unittest
from collections import Counter

from rtmanager.domain.errors import ErrorCode, FinalAnswer, TemporaryAnswer, Unavailable
from rtmanager.tests.making import LogCapture
from rtmanager.workers.status import LONGEST_SILENCE_S, MOST_DEFECTS, Workers, WorkerStatus, worker_of


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def raised(error: BaseException) -> BaseException:
    """The error with a traceback, which is always the same."""
    try:
        raise error
    except BaseException as found:  # noqa: BLE001 - whatever it is
        return found


class StatusTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.captured = LogCapture()
        self.counts: Counter[str] = Counter()
        self.status = WorkerStatus("probe", self.captured.logger, counted=self.count, stuck_s=60, clock=self.clock)

    def count(self, name: str) -> None:
        self.counts[name] += 1

    def defect(self, error: BaseException | None = None) -> bool:
        return self.status.failed(raised(error or TypeError("why")))


class FailingTest(StatusTestCase):
    def test_one_failure_is_counted_and_logged_and_no_reason_to_be_not_ready(self) -> None:
        self.assertTrue(self.defect())
        self.assertEqual((self.status.problem(), self.counts["probe"]), ("", 1))
        (record,) = self.captured.records
        self.assertEqual((vars(record)["worker"], vars(record)["failures"]), ("probe", 1))
        self.assertTrue(record.exc_info)

    def test_several_in_a_row_are_and_a_success_ends_it(self) -> None:
        for _ in range(3):
            self.defect()
        self.assertIn("3 times in a row: TypeError: why", self.status.problem())
        self.status.succeeded()
        self.assertEqual(self.status.problem(), "")
        self.defect()
        self.defect()
        self.assertEqual(self.status.problem(), "")

    def test_final_answers_are_failures_and_silence_is_none(self) -> None:
        busy = TemporaryAnswer("docker", "try again", answer="busy", code=ErrorCode.CONTAINER_START_FAILED)
        for error in (Unavailable("redis", "away"), busy) * 3:
            self.status.noted(error)
        self.clock.now += 31
        self.assertEqual((self.status.problem(), self.counts["probe"]), ("", 0))
        for _ in range(3):
            self.status.noted(FinalAnswer("redis", "NOPERM"))
        self.assertIn("is refused by redis since", self.status.problem())
        self.assertIn("3 times in a row: FinalAnswer: NOPERM", self.status.problem())
        self.assertEqual(self.counts["probe"], 3)

    def test_one_is_when_nothing_follows_it_for_long(self) -> None:
        self.defect()
        self.clock.now += 31
        self.assertIn("1 times in a row", self.status.problem())

    def test_one_item_that_fails_again_and_again_is_none_and_several_are(self) -> None:
        for _ in range(10):
            self.status.noted(TypeError("why"), item="g1")
            self.clock.now += 60
        self.assertEqual((self.status.problem(), self.counts["probe"]), ("", 10))
        self.status.noted(TypeError("why"), item="g2")
        self.status.noted(TypeError("why"), item="g3")
        self.assertIn("times in a row", self.status.problem())

    def test_items_that_are_gone_are_forgotten_without_a_success(self) -> None:
        for number in range(3):
            self.status.noted(TypeError("why"), item=f"g{number}")
        self.clock.now += 180
        self.assertIn("3 times in a row", self.status.problem())
        self.clock.now += 1
        self.assertEqual(self.status.problem(), "")
        self.clock.now += 3600
        self.status.noted(TypeError("why"), item="g1")
        self.clock.now += 3 * 3600
        self.assertIn("4 times in a row", self.status.problem())
        self.clock.now += 5 * 3600
        self.status.noted(TypeError("why"), item="g4")
        self.assertEqual(self.status.problem(), "")

    def test_the_text_of_the_error_is_bounded_and_on_one_line(self) -> None:
        for _ in range(3):
            self.defect(ValueError("a\n\x1b" + "x" * 300_000))
        problem = self.status.problem()
        self.assertLess(len(problem), 600)
        self.assertTrue(problem.isprintable())

    def test_an_error_without_a_text_or_whose_text_raises_is_reported_by_its_type(self) -> None:
        class Odd(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        for error in (Odd(), AssertionError()):
            self.status.succeeded()
            for _ in range(3):
                self.defect(error)
            self.assertIn(type(error).__name__, self.status.problem())

    def test_a_step_that_does_not_end_is_reported(self) -> None:
        self.status.began()
        self.clock.now += 59
        self.assertEqual(self.status.problem(), "")
        self.clock.now += 2
        self.assertIn("has not ended for 61 s", self.status.problem())
        self.status.paused()
        self.assertEqual(self.status.problem(), "")

    def test_of_several_threads_the_one_that_has_been_longest_in_its_step_counts(self) -> None:
        self.status.began()
        self.clock.now += 61
        other = threading.Thread(target=self.status.began)
        other.start()
        other.join()
        self.assertIn("has not ended for 61 s", self.status.problem())
        self.status.paused()
        self.assertEqual(self.status.problem(), "")


class SparseTest(StatusTestCase):
    def test_a_defect_that_repeats_is_logged_less_and_less_often_with_its_number(self) -> None:
        logged = []
        for second in range(0, 4 * 3600, 2):
            self.clock.now = 1000.0 + second
            if self.defect():
                logged.append(second)
        self.assertEqual(logged, [0, 60, 180, 420, 900, 1860, 3780, 7380, 10980])
        self.assertEqual([vars(each)["unlogged_before"] for each in self.captured.records][:3], [0, 29, 59])
        self.assertEqual(self.counts["probe"], 7200)

    def test_a_success_in_between_is_no_reason_to_log_it_again(self) -> None:
        for _ in range(100):
            self.defect()
            self.status.succeeded()
        self.assertEqual(len(self.captured.records), 1)

    def test_texts_that_differ_each_time_are_the_same_defect(self) -> None:
        for number in range(100):
            self.defect(TypeError(f"at {number:#x}"))
        self.assertEqual(len(self.captured.records), 1)

    def test_another_kind_or_another_place_is_another_defect(self) -> None:
        self.defect(TypeError())
        self.defect(ValueError())
        try:
            raise TypeError
        except TypeError as error:
            self.status.failed(error)
        self.assertEqual(len(self.captured.records), 3)

    def test_one_that_was_not_seen_for_long_is_logged_as_new(self) -> None:
        self.defect()
        self.defect()
        self.clock.now += LONGEST_SILENCE_S + 61
        self.assertTrue(self.defect())
        self.assertEqual(vars(self.captured.records[1])["unlogged_before"], 0)

    def test_the_defects_that_are_remembered_are_bounded(self) -> None:
        for number in range(10 * MOST_DEFECTS):
            self.defect(type(f"Error{number}", (Exception,), {})())
        self.assertEqual(len(self.status._tracebacks._seen), MOST_DEFECTS)


class WorkersTest(unittest.TestCase):
    def setUp(self) -> None:
        self.counts: Counter[str] = Counter()
        self.workers = Workers(LogCapture().logger, self.count)

    def count(self, name: str, by: float) -> None:
        self.counts[name] += int(by)

    def test_each_is_counted_from_the_beginning_with_0(self) -> None:
        self.workers.status("lease")
        self.assertEqual(dict(self.counts), {"lease": 0})

    def test_problems_are_reported_by_worker(self) -> None:
        self.workers.status("lease")
        for _ in range(3):
            self.workers.status("outbox").failed(ValueError())
        self.workers.watch("http", lambda: True)
        self.assertEqual(list(self.workers.problems()), ["worker outbox", "worker http"])
        self.assertEqual(self.counts["outbox"], 3)

    def test_threads_of_one_kind_are_one_worker(self) -> None:
        names = (
            "rtm-attention-7",
            "rtm-http-client",
            "rtm-operation-4711",
            "pull galaxy/game:1",
            "rtm-log",
            "Thread-1",
        )
        self.assertEqual(
            [worker_of(name) for name in names], ["attention", "http-client", "operation", "pull", "log", "other"]
        )
        self.workers.thread_failed("rtm-operation-12")
        self.assertEqual(self.counts["operation"], 1)
