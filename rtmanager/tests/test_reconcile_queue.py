"""Games are reconciled concurrently, each by one thread at a time, and retried until they are settled."""

from __future__ import annotations

import threading
import unittest
from unittest import mock

from rtmanager.domain.errors import ErrorCode, FinalAnswer, TemporaryAnswer, Unavailable
from rtmanager.domain.health import HealthSource
from rtmanager.operations import troubles
from rtmanager.tests.making import LogCapture
from rtmanager.tests.operating import PATIENCE_S, wait_until
from rtmanager.workers.failures import GameFailures
from rtmanager.workers.reconcile import queue as queue_module
from rtmanager.workers.reconcile.queue import ReconcileHint, ReconcileQueue
from rtmanager.workers.status import WorkerStatus


class FakeReconciler:
    """Records the calls of `settle`, with results that a test sets."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ReconcileHint]] = []
        self.answers: dict[str, list[bool | BaseException]] = {}
        self.gates: dict[str, threading.Event] = {}

    def settle(self, game_id: str, hint: ReconcileHint) -> bool:
        self.seen.append((game_id, hint))
        if game_id in self.gates and not self.gates[game_id].wait(PATIENCE_S):
            raise TimeoutError(game_id)
        answers = self.answers.get(game_id)
        answer = answers.pop(0) if answers else True
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def games(self) -> list[str]:
        return [game_id for game_id, _ in list(self.seen)]


class AttentionTest(unittest.TestCase):
    def setUp(self) -> None:
        pause = mock.patch.object(queue_module, "FIRST_PAUSE_S", 0.001)
        pause.start()
        self.addCleanup(pause.stop)
        self.reconciler = FakeReconciler()
        self.rooms: list[int] = []
        self.captured = LogCapture()
        self.status = WorkerStatus("attention", self.captured.logger)
        self.failures = GameFailures(self.captured.logger, status=lambda _: self.status)
        self.reconcile_queue = ReconcileQueue(
            self.reconciler.settle,
            logger=self.captured.logger,
            failures=self.failures,
            threads=4,
            status=self.status,
            room=lambda: self.rooms.append(1),
        )
        self.reconcile_queue.start()
        self.addCleanup(self.reconcile_queue.close)

    def hold(self, game_id: str) -> threading.Event:
        """Block the reconciling of this game until the event is set."""
        gate = self.reconciler.gates[game_id] = threading.Event()
        self.addCleanup(gate.set)
        return gate

    def test_a_game_that_is_named_is_reconciled_once(self) -> None:
        self.reconcile_queue.add("g1")
        self.assertTrue(self.reconcile_queue.wait_until_attempted(PATIENCE_S))
        self.assertEqual(self.reconciler.games, ["g1"])

    def test_one_that_is_not_settled_is_reconciled_again(self) -> None:
        self.reconciler.answers["g1"] = [False, False, Unavailable("docker", "away"), True]
        self.reconcile_queue.add("g1")
        wait_until(lambda: len(self.reconciler.seen) == 4)

    def test_games_that_wait_for_postgres_are_a_problem_while_that_lasts(self) -> None:
        with mock.patch.object(troubles, "WAITS_REPORTED_AFTER_S", 0.0):
            self.reconciler.answers["g1"] = [Unavailable("postgres", "statement timeout") for _ in range(1000)]
            self.reconcile_queue.add("g1")
            wait_until(lambda: "games to reconcile wait for postgres" in self.captured.messages)
            self.assertIn("game g1 has waited for ", self.reconcile_queue.store_waits.problem())
            self.reconcile_queue.add("g2")
            wait_until(lambda: "g2" in self.reconciler.games)
            self.assertNotEqual(self.reconcile_queue.store_waits.problem(), "")
            self.reconciler.answers.clear()
            wait_until(lambda: self.reconcile_queue.store_waits.problem() == "")
        logged = [message for message in self.captured.messages if "postgres" in message]
        self.assertEqual(
            logged, ["games to reconcile wait for postgres", "games to reconcile wait for postgres no more"]
        )

    def test_a_defect_is_logged_and_ends_the_attempt(self) -> None:
        self.reconciler.answers["g1"] = [ValueError("a defect")]
        self.reconcile_queue.add("g1")
        wait_until(lambda: "work on a game failed, the others go on" in self.captured.messages)
        self.reconcile_queue.add("g1")
        wait_until(lambda: len(self.reconciler.seen) == 2)

    def test_a_defect_in_one_game_after_the_other_is_reported_until_one_is_settled(self) -> None:
        for number in range(3):
            self.reconciler.answers[f"g{number}"] = [ValueError("a defect"), SystemExit()]
            self.reconcile_queue.add(f"g{number}")
        wait_until(lambda: "3 times in a row" in self.status.problem())
        self.reconcile_queue.add("g0")
        wait_until(lambda: "4 times in a row" in self.status.problem())
        self.reconcile_queue.add("well")
        wait_until(lambda: not self.status.problem())

    def test_a_game_that_is_refused_in_each_pass_is_listed_as_failing_and_no_reason_to_be_not_ready(self) -> None:
        self.reconciler.answers["g1"] = [FinalAnswer("postgres", "a rule")] * 100
        for number in range(1, 4):
            self.reconcile_queue.add("g1")
            wait_until(lambda: len(self.reconciler.seen) == 4 * number)  # noqa: B023 - used at once
            self.assertTrue(self.reconcile_queue.wait_until_attempted(PATIENCE_S))
        self.assertEqual(self.failures.failing(), {("attention", "g1"): 3})
        self.assertEqual(self.status.problem(), "")
        self.reconciler.answers.clear()
        self.reconcile_queue.add("g1")
        wait_until(lambda: not self.failures.failing())

    def test_a_game_with_a_temporary_answer_for_ever_is_listed_as_failing(self) -> None:
        busy = TemporaryAnswer("docker", "try again", answer="busy", code=ErrorCode.CONTAINER_START_FAILED)
        self.reconciler.answers["g1"] = [busy] * 500
        self.enterContext(mock.patch.object(queue_module, "LONGEST_PAUSE_S", 0.001))
        self.reconcile_queue.add("g1")
        wait_until(lambda: ("attention", "g1") in self.failures.failing())
        self.assertGreater(len(self.reconciler.seen), 3 * queue_module.TRIES_UNTIL_WARNING)

    def test_a_game_that_takes_long_delays_no_other(self) -> None:
        self.hold("stuck")
        self.reconcile_queue.add("stuck")
        for number in range(20):
            self.reconcile_queue.add(f"g{number}")
        wait_until(lambda: len(self.reconciler.seen) == 21)

    def test_any_number_of_games_that_take_long_delays_no_other(self) -> None:
        self.enterContext(mock.patch.object(queue_module, "LONG_S", 0.05))
        for number in range(20):
            self.hold(f"stuck{number}")
            self.reconcile_queue.add(f"stuck{number}")
        self.reconcile_queue.add("g1")
        wait_until(lambda: "g1" in self.reconciler.games)
        self.assertEqual(self.reconcile_queue.problem(), "")

    def test_when_no_thread_is_left_the_game_that_holds_up_the_others_is_named(self) -> None:
        self.enterContext(mock.patch.object(queue_module, "LONG_S", 0.0))
        self.enterContext(mock.patch.object(queue_module, "WAITS_REPORTED_AFTER_S", 0.1))
        gates = [self.hold(f"stuck{number}") for number in range(queue_module.MOST_THREADS)]
        for number in range(len(gates)):
            self.reconcile_queue.add(f"stuck{number}")
        wait_until(lambda: len(self.reconciler.seen) == len(gates))
        self.reconcile_queue.add("stuck0")
        self.assertEqual(self.reconcile_queue.problem(), "")
        self.reconcile_queue.add("g1")
        wait_until(lambda: "the one at game stuck0 " in self.reconcile_queue.problem())
        gates[-1].set()
        wait_until(lambda: "g1" in self.reconciler.games and not self.reconcile_queue.problem())

    def silent(self, *games: str) -> None:
        """Docker has timed out once for these games; their next attempts are far off."""
        for name, value in {"LONG_S": 0.0, "FIRST_SILENT_PAUSE_S": 60.0, "LONGEST_SILENT_PAUSE_S": 60.0}.items():
            self.enterContext(mock.patch.object(queue_module, name, value))
        for game in games:
            self.reconciler.answers[game] = [Unavailable("docker", "no answer")]
            self.reconcile_queue.add(game, ReconcileHint(listed=True))
        self.assertTrue(self.reconcile_queue.wait_until_attempted(PATIENCE_S))

    def test_a_silent_game_is_reconciled_again_for_an_event_and_not_for_a_pass(self) -> None:
        self.silent("g1")
        self.reconcile_queue.add("g1", ReconcileHint(listed=True))
        self.reconcile_queue.add("g2")
        wait_until(lambda: "g2" in self.reconciler.games)
        self.assertEqual(self.reconciler.games.count("g1"), 1)
        self.reconcile_queue.add("g1", ReconcileHint(HealthSource.DOCKER_EVENT))
        wait_until(lambda: self.reconciler.games.count("g1") == 2)
        self.assertTrue(self.reconciler.seen[-1][1].listed)

    def test_half_of_the_threads_reconcile_silent_games_and_one_that_answers_hastens_the_others(self) -> None:
        games = [f"g{number}" for number in range(5)]
        self.silent(*games)
        gates = [self.hold(game) for game in games[:4]]
        for game in games[:4]:
            self.reconcile_queue.add(game, ReconcileHint(HealthSource.DOCKER_EVENT))
        wait_until(lambda: len(self.reconciler.seen) == 7)
        self.reconcile_queue.add("well")
        wait_until(lambda: "well" in self.reconciler.games)
        self.assertEqual(len(self.reconciler.seen), 8)
        for gate in gates:
            gate.set()
        wait_until(lambda: self.reconciler.games.count("g4") == 2)

    def test_of_too_many_games_no_more_hints_of_events_are_kept_until_a_pass(self) -> None:
        self.enterContext(mock.patch.object(queue_module, "MOST_CASES", 4))
        for number in range(100):
            self.reconcile_queue.add(f"g{number}", ReconcileHint(HealthSource.DOCKER_EVENT), delay_s=0.2)
        self.reconcile_queue.add("listed", ReconcileHint(listed=True))
        wait_until(lambda: len(self.reconciler.seen) == 5 and bool(self.rooms))
        self.reconcile_queue.add("g99", ReconcileHint(HealthSource.DOCKER_EVENT))
        wait_until(lambda: "g99" in self.reconciler.games)
        self.assertEqual(self.rooms, [1])

    def test_any_number_of_events_of_one_game_is_a_bounded_hint_and_one_entry(self) -> None:
        gate = self.hold("g1")
        self.reconcile_queue.add("g1")
        wait_until(lambda: self.reconciler.games == ["g1"])
        for number in range(1000):
            one = frozenset({f"c{number}"})
            self.reconcile_queue.add(
                "g1", ReconcileHint(HealthSource.DOCKER_EVENT, one, {f"c{number}": 1}, one, one, one)
            )
        self.assertEqual(len(self.reconcile_queue._queue), 1)
        gate.set()
        wait_until(lambda: len(self.reconciler.seen) == 2)
        hint = self.reconciler.seen[1][1]
        for kept in (hint.containers, hint.oom, hint.signalled, hint.died, hint.unexplained):
            self.assertLessEqual(len(kept), queue_module.MOST_CONTAINERS)
            self.assertIn("c999", kept)

    def test_an_attempt_now_does_not_wait_for_the_time_at_which_the_game_is_due(self) -> None:
        for game_id in ("stopped", "other"):
            self.reconcile_queue.add(game_id, ReconcileHint(HealthSource.DOCKER_EVENT), delay_s=600)
        self.reconcile_queue.attempt_now({"stopped": ReconcileHint(listed=True)}, 20)
        self.assertEqual(self.reconciler.seen, [("stopped", ReconcileHint(HealthSource.DOCKER_EVENT, listed=True))])

    def test_an_attempt_now_that_hangs_is_not_waited_for_longer_than_it_may_take(self) -> None:
        gate = self.hold("stopped")
        self.reconcile_queue.attempt_now({"stopped": ReconcileHint(listed=True)}, 0.05)
        gate.set()
        wait_until(lambda: self.reconciler.games == ["stopped"])

    def test_no_game_is_reconciled_by_two_at_once(self) -> None:
        gate = self.hold("g1")
        self.reconcile_queue.add("g1")
        wait_until(lambda: self.reconciler.games == ["g1"])
        self.reconcile_queue.add("g1")
        self.reconcile_queue.add("g2")
        wait_until(lambda: "g2" in self.reconciler.games)
        self.assertEqual(self.reconciler.games.count("g1"), 1)
        gate.set()
        wait_until(lambda: self.reconciler.games.count("g1") == 2)

    def test_what_is_named_several_times_before_its_attempt_is_merged(self) -> None:
        self.reconcile_queue.add("g1", ReconcileHint(containers=frozenset({"a"})), delay_s=60)
        self.reconcile_queue.add("g1", ReconcileHint(HealthSource.DOCKER_EVENT, oom={"b": 7}), delay_s=60)
        self.reconcile_queue.add("g1", ReconcileHint(signalled=frozenset({"c"})))
        wait_until(lambda: bool(self.reconciler.seen))
        expected = ReconcileHint(HealthSource.DOCKER_EVENT, frozenset({"a"}), {"b": 7}, frozenset({"c"}))
        self.assertEqual(self.reconciler.seen, [("g1", expected)])

    def test_a_delayed_attempt_waits_for_its_time(self) -> None:
        self.reconcile_queue.add("later", delay_s=60)
        self.reconcile_queue.add("now")
        wait_until(lambda: self.reconciler.games == ["now"])

    def test_the_wait_for_all_attempts_ends_when_one_is_stuck(self) -> None:
        self.hold("stuck")
        self.reconcile_queue.add("stuck")
        self.assertFalse(self.reconcile_queue.wait_until_attempted(0.01))

    def test_a_close_forgets_what_waits_and_leaves_no_thread(self) -> None:
        self.reconcile_queue.add("later", delay_s=60)
        self.reconcile_queue.close()
        self.assertEqual([thread.name for thread in threading.enumerate() if "rtm-attention" in thread.name], [])
