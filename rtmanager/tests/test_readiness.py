"""Readiness says what does not answer now, by name, and never hangs with it."""

from __future__ import annotations

import threading
import unittest
from unittest import mock

from rtmanager import readiness as readiness_module
from rtmanager.domain.errors import Unavailable
from rtmanager.readiness import Readiness
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

    def test_it_is_asked_anew_each_time(self) -> None:
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

    def test_a_dependency_that_does_not_answer_speaks_for_itself(self) -> None:
        ready = Readiness({"redis": away}, lambda: {"redis": "is full"})
        self.addCleanup(ready.close)
        self.assertEqual(ready(), {"redis": "connection refused"})

    def test_all_are_asked_at_once(self) -> None:
        together = threading.Barrier(3)
        ready = self.make(**{name: lambda: together.wait(PATIENCE_S) for name in "abc"})
        self.assertEqual(ready(), {})

    def test_one_that_hangs_is_named_and_is_not_asked_a_second_time_while_it_does(self) -> None:
        answer = threading.Event()
        check = mock.Mock(side_effect=lambda: answer.wait(PATIENCE_S))
        ready = self.make(docker=check, redis=lambda: "7")
        with mock.patch.object(readiness_module, "LIMIT_S", 0.01):
            for _ in range(3):
                self.assertIn("no answer within", ready()["docker"])
        self.assertEqual(check.call_count, 1)
        answer.set()
        self.assertEqual(ready(), {})

    def test_an_error_that_nobody_foresaw_is_not_hidden(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            self.make(redis=lambda: 1 // 0)()
