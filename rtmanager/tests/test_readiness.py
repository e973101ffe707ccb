"""Readiness names the dependencies that do not answer, and waits for them for a bounded time."""

from __future__ import annotations

import errno
import threading
import unittest
from unittest import mock

from rtmanager.bootstrap import readiness as readiness_module
from rtmanager.bootstrap.readiness import Readiness
from rtmanager.domain.errors import RuntimeManagerError, Unavailable
from rtmanager.tests.operating import PATIENCE_S


def away() -> object:
    raise Unavailable("redis", "connection refused")


class ReadinessTest(unittest.TestCase):
    def make(self, **checks: object) -> Readiness:
        made = Readiness(checks)  # type: ignore[arg-type]
        self.addCleanup(made.close)
        return made

    def test_when_all_answer_nothing_is_wrong(self) -> None:
        self.assertEqual(self.make(postgres=lambda: "16", redis=lambda: None)(), {})

    def test_each_dependency_that_does_not_answer_is_named(self) -> None:
        wrong = self.make(postgres=lambda: "16", redis=away, docker=away)()
        self.assertEqual(wrong, {"redis": "connection refused", "docker": "connection refused"})

    def test_it_is_checked_anew_each_time(self) -> None:
        check = mock.Mock(side_effect=[Unavailable("redis", "away"), "7"])
        ready = self.make(redis=check)
        self.assertEqual((ready(), ready()), ({"redis": "away"}, {}))

    def test_what_workers_met_counts_though_the_dependency_answers(self) -> None:
        met = {"redis": "is full"}
        ready = Readiness({"redis": lambda: "7", "postgres": lambda: "16"}, lambda: met)
        self.addCleanup(ready.close)
        self.assertEqual(ready(), {"redis": "is full"})
        met.clear()
        self.assertEqual(ready(), {})

    def test_a_dependency_that_does_not_answer_is_its_own_reason(self) -> None:
        ready = Readiness({"redis": away}, lambda: {"redis": "is full"})
        self.addCleanup(ready.close)
        self.assertEqual(ready(), {"redis": "connection refused"})

    def test_one_that_answers_and_is_unfit_hides_nothing_that_workers_met(self) -> None:
        def unfit() -> None:
            raise RuntimeManagerError("a trigger drops rows")

        ready = Readiness({"postgres": unfit}, lambda: {"postgres": "operation 7 cannot be ended"})
        self.addCleanup(ready.close)
        self.assertEqual(ready(), {"postgres": "a trigger drops rows; operation 7 cannot be ended"})

    def test_for_one_that_hangs_the_workers_have_the_reason(self) -> None:
        answer = threading.Event()
        ready = Readiness({"redis": lambda: answer.wait(PATIENCE_S)}, lambda: {"redis": "is full"})
        with mock.patch.object(readiness_module, "LIMIT_S", 0.01):
            self.assertEqual(ready(), {"redis": "no answer within 0.01 s; is full"})
        answer.set()
        ready.close()

    def test_all_are_checked_at_once(self) -> None:
        together = threading.Barrier(3)
        ready = self.make(**{name: lambda: together.wait(PATIENCE_S) for name in "abc"})
        self.assertEqual(ready(), {})

    def test_one_that_hangs_is_named_and_is_not_checked_a_second_time_while_it_does(self) -> None:
        answer = threading.Event()
        check = mock.Mock(side_effect=lambda: answer.wait(PATIENCE_S))
        ready = self.make(docker=check, redis=lambda: "7")
        with mock.patch.object(readiness_module, "LIMIT_S", 0.01):
            for _ in range(3):
                self.assertIn("no answer within", ready()["docker"])
        self.assertEqual(check.call_count, 1)
        answer.set()
        self.assertEqual(ready(), {})

    def test_a_check_that_fails_by_a_defect_is_a_reason_like_any_other(self) -> None:
        defects: list[BaseException] = []
        for error in (TypeError("a\n" + "x" * 300_000), SystemExit(1), KeyboardInterrupt()):
            check = mock.Mock(side_effect=[error, "7"])
            ready = Readiness({"redis": check, "postgres": lambda: "16"}, defect=defects.append)
            self.addCleanup(ready.close)
            (problem,) = ready().values()
            self.assertIn(f"by a defect, {type(error).__name__}", problem)
            self.assertTrue(problem.isprintable())
            self.assertLess(len(problem), 600)
            self.assertEqual((defects.pop(), ready()), (error, {}))

    def test_the_text_of_a_server_is_bounded_and_on_one_line(self) -> None:
        (problem,) = self.make(redis=mock.Mock(side_effect=Unavailable("redis", "a\nb" * 100_000)))().values()
        self.assertTrue(problem.isprintable())
        self.assertLess(len(problem), 1_100)

    def test_what_workers_met_is_no_reason_to_raise_either(self) -> None:
        defects: list[BaseException] = []
        ready = Readiness({"redis": away}, mock.Mock(side_effect=TypeError("no")), defects.append)
        self.addCleanup(ready.close)
        self.assertEqual(set(ready()), {"workers", "redis"})
        self.assertEqual(len(defects), 1)

    def test_without_a_thread_to_be_had_it_answers_all_the_same(self) -> None:
        ready = self.make(redis=lambda: "7")
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.assertRegex(ready()["redis"], "can start no more threads; remedy: .*ulimit -u")
        self.assertEqual(ready(), {})

    def test_what_the_process_lacks_is_named_with_the_remedy_and_is_no_defect(self) -> None:
        defects: list[BaseException] = []
        check = mock.Mock(side_effect=OSError(errno.EMFILE, "Too many open files"))
        ready = Readiness({"postgres": check}, defect=defects.append)
        self.addCleanup(ready.close)
        self.assertRegex(ready()["postgres"], "can open no more files; remedy: .*ulimit -n")
        self.assertEqual(defects, [])

    def test_a_check_that_hangs_for_ever_holds_up_neither_the_end_nor_the_process(self) -> None:
        answer = threading.Event()
        self.addCleanup(answer.set)
        ready = Readiness({"state root": answer.wait})
        with mock.patch.multiple(readiness_module, LIMIT_S=0.01, CLOSE_S=0.01):
            ready()
            ready.close()
        (left,) = (each for each in threading.enumerate() if each.name == "rtm-readiness-state root")
        self.assertTrue(left.daemon)
