"""A start waits for dependencies that do not answer, and fails on a refusal."""

from __future__ import annotations

import unittest
from collections.abc import Sequence
from unittest import mock

from rtmanager.adapters.postgres.refusals import IS_IT_RUNNING, REMEDIES, Refusal
from rtmanager.adapters.redis_access import WritesRefused
from rtmanager.bootstrap import startup
from rtmanager.bootstrap.dependencies import Check
from rtmanager.bootstrap.startup import Startup, StartupFailed
from rtmanager.domain.errors import RuntimeManagerError, TemporaryAnswer, Unavailable
from rtmanager.tests.making import LogCapture

SYSTEMS = {"postgres": "PostgreSQL", "redis": "Redis", "docker": "Docker", "state root": "file system"}
WAITS, ANSWERS = "dependency does not answer, the start waits for it", "dependency answers, the start goes on"


def silence(name: str = "redis") -> Unavailable:
    return Unavailable(name, f"{name} does not answer")


class StartupTest(unittest.TestCase):
    def setUp(self) -> None:
        self.captured = LogCapture()
        self.checked: list[str] = []
        patched = mock.patch.object(startup, "PAUSE_S", 0.01)
        patched.start()
        self.addCleanup(patched.stop)

    def check(self, name: str, *answers: Exception, forever: Exception | None = None) -> Check:
        """A check that raises these errors one after the other, then succeeds, or raises `forever` each time."""
        rest = list(answers)

        def run() -> str:
            self.checked.append(name)
            if rest:
                raise rest.pop(0)
            if forever is not None:
                raise forever
            return "is there"

        return Check(name, SYSTEMS[name], run, f"start {name}")

    def start(self, checks: Sequence[Check], wait_s: float = 60.0) -> None:
        Startup(wait_s, self.captured.logger).run(checks)

    def logged(self) -> list[tuple[str, str]]:
        return [(record.getMessage(), record.__dict__["dependency"]) for record in self.captured.records]

    def test_when_all_answer_nothing_is_logged(self) -> None:
        self.start([self.check(name) for name in SYSTEMS])
        self.assertEqual((sorted(self.checked), self.logged()), (sorted(SYSTEMS), []))

    def test_each_that_is_silent_is_checked_again_and_logged_once_when_it_begins_and_when_it_answers(self) -> None:
        self.start([self.check(name, *(silence(name) for _ in range(3))) for name in ("postgres", "redis", "docker")])
        for name in ("postgres", "redis", "docker"):
            self.assertEqual([what for what, of in self.logged() if of == name], [WAITS, ANSWERS])
            self.assertEqual(self.checked.count(name), 4)

    def test_one_that_stays_silent_ends_the_start_with_its_name_and_the_remedy(self) -> None:
        with self.assertRaisesRegex(StartupFailed, "^redis: redis does not answer; remedy: start redis$"):
            self.start([self.check("redis", forever=silence())], wait_s=0.05)
        self.assertEqual(self.logged(), [(WAITS, "redis")])
        self.assertGreater(len(self.checked), 1)

    def test_what_no_waiting_mends_ends_the_start_at_once_and_is_what_is_named(self) -> None:
        wrong = RuntimeManagerError("the password is wrong")
        with self.assertRaisesRegex(StartupFailed, "^redis: the password is wrong"):
            self.start([self.check("postgres", forever=silence("postgres")), self.check("redis", wrong)])

    def test_a_root_of_the_games_that_is_gone_is_not_waited_for(self) -> None:
        gone = TemporaryAnswer("state root", "it is gone", answer="gone", code=mock.Mock())
        with self.assertRaisesRegex(StartupFailed, "^state root: it is gone"):
            self.start([self.check("state root", gone)])
        self.assertEqual(self.checked, ["state root"])

    def test_a_wait_too_short_for_a_second_question_is_none(self) -> None:
        with self.assertRaises(StartupFailed):
            self.start([self.check("redis", silence())], wait_s=0.001)
        self.assertEqual((self.checked, self.logged()), (["redis"], []))

    def test_a_redis_that_takes_no_writes_is_no_reason_to_wait(self) -> None:
        self.start([self.check("redis", WritesRefused("it is full", "make room"))])
        self.assertEqual(self.captured.messages, ["redis takes no writes, waiting for it"])


class RefusalsTest(unittest.TestCase):
    def test_waiting_mends_silence_and_a_server_that_starts_or_is_full_and_nothing_else(self) -> None:
        mended = {state for state in REMEDIES if Refusal(state, REMEDIES[state]).may_pass}
        self.assertEqual(mended, {"53300", "53200", "53100", "57P01", "57P02", "57P03", "58P01"})
        self.assertTrue(Refusal("", IS_IT_RUNNING).may_pass)
        self.assertFalse(Refusal("", "set another sslmode").may_pass)


if __name__ == "__main__":
    unittest.main()
