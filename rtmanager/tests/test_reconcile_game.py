"""Reconciling one game: findings that are written, delayed, or left to an operation."""

from __future__ import annotations

import unittest
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

from rtmanager.adapters.docker import decode
from rtmanager.domain.container import (
    KIND,
    LABEL_GAME_ID,
    LABEL_KIND,
    LABEL_OWNER,
    OWNER,
    ContainerState,
    ContainerView,
)
from rtmanager.domain.crash import RestartPolicy
from rtmanager.domain.errors import TemporaryAnswer, Unavailable
from rtmanager.domain.findings import Finding, Stray
from rtmanager.domain.health import HealthSource
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import OpKind, OpSource
from rtmanager.domain.outage import RequestedBy, RuntimeRun, Sender
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.domain.restarts import OUTAGE_TRIES
from rtmanager.fakes import Meant
from rtmanager.fakes.store import CALL_POSITION
from rtmanager.ports.store import StoreRejected
from rtmanager.ports.watching import WriteResult
from rtmanager.tests.making import request, view
from rtmanager.tests.watching import WatchedWorld
from rtmanager.workers.crash_restarts import JUST_ENDED_S, CrashRestarts
from rtmanager.workers.reconcile import strays as strays_module
from rtmanager.workers.reconcile.game import EVENT_GRACE_S, OOM_GRACE_S
from rtmanager.workers.reconcile.queue import ReconcileHint

EVENT = ReconcileHint(HealthSource.DOCKER_EVENT)


class ReconcilerTestCase(unittest.TestCase):
    restarts: RestartPolicy | None = None

    def setUp(self) -> None:
        self.world = WatchedWorld(self.restarts)
        self.world.bring(Status.RUNNING)
        self.container_id = self.world.container()

    def settle(self, hint: ReconcileHint = EVENT) -> bool:
        return self.world.game_reconciler.settle("g1", hint)


class OneAttempt(ReconcilerTestCase):
    def test_a_game_that_runs_is_settled_and_nothing_is_published(self) -> None:
        self.assertTrue(self.settle())
        self.assertEqual(self.world.events(), [])

    def test_a_crash_stops_the_record_and_keeps_the_reason_with_the_log(self) -> None:
        self.world.docker.logs[self.container_id] = "panic: no more races"
        self.world.docker.exit(self.container_id, 139)
        self.assertTrue(self.settle())
        self.assertEqual(self.world.known().status, Status.STOPPED)
        self.assertEqual(self.world.events(), ["container_exited"])
        last_exit = self.world.store.last_exits["g1"]
        self.assertEqual((last_exit.exit_code, last_exit.oom, last_exit.log), (139, False, "panic: no more races"))

    def test_a_crash_is_published_once_however_often_it_is_reconciled(self) -> None:
        self.world.docker.exit(self.container_id, 139)
        for _ in range(3):
            self.assertTrue(self.settle())
        self.assertEqual(self.world.events(), ["container_exited"])

    def test_a_crash_is_published_without_its_log_when_that_cannot_be_read(self) -> None:
        self.world.docker.exit(self.container_id, 1)
        self.world.docker.lose_answer("log_tail")
        self.assertTrue(self.settle())
        self.assertEqual(self.world.events(), ["container_exited"])
        self.assertIn("could not be read", self.world.store.last_exits["g1"].log)

    def test_a_container_that_is_gone_removes_the_record(self) -> None:
        self.world.docker.vanish(self.container_id)
        self.assertTrue(self.settle())
        self.assertEqual(self.world.known().status, Status.REMOVED)
        self.assertEqual(self.world.rows(), [("reconcile_dispose", "success", None)])

    def test_one_that_is_being_removed_is_reconciled_again_and_published_as_gone(self) -> None:
        self.world.docker.change(self.container_id, ContainerState.REMOVING)
        self.assertFalse(self.settle())
        self.assertEqual(self.world.events(), [])
        self.world.docker.vanish(self.container_id)
        self.assertTrue(self.settle())
        self.assertEqual(self.world.events(), ["container_disappeared"])

    def test_one_that_was_replaced_by_hand_is_disposed_and_the_new_one_adopted_in_one_attempt(self) -> None:
        self.world.docker.vanish(self.container_id)
        self.world.docker.add_foreign(view(container_id="by-hand"))
        self.assertTrue(self.settle(ReconcileHint(listed=True)))
        self.assertEqual(self.world.container(), "by-hand")
        self.assertEqual([row[0] for row in self.world.rows()], ["reconcile_dispose", "reconcile_adopt"])

    def test_docker_that_does_not_answer_changes_nothing(self) -> None:
        self.world.docker.vanish(self.container_id)
        self.world.docker.available = False
        with self.assertRaises(Unavailable):
            self.settle()
        self.assertEqual(self.world.known().status, Status.RUNNING)

    def test_a_stray_is_reported_once_and_not_while_an_operation_works_on_its_game(self) -> None:
        self.world.docker.add_foreign(view(container_id="copy", name="copy"))
        hint = ReconcileHint(containers=frozenset({"copy"}), listed=True)
        self.world.store.add_row(request(kind=OpKind.RESTART), CALL_POSITION)
        self.assertTrue(self.settle(hint))
        self.assertEqual(dict(self.world.strays.known), {})
        self.world.store.live.clear()
        self.assertTrue(self.settle(hint))
        self.assertTrue(self.settle(hint))
        self.assertEqual(set(self.world.strays.known), {"copy"})
        self.assertEqual(sum("disagrees" in message for message in self.world.captured.messages), 1)


class Unstarted(ReconcilerTestCase):
    """A container that a restart or a patch created to replace the game's, and left behind."""

    def setUp(self) -> None:
        super().setUp()
        self.world.docker.add_foreign(self.next())
        self.hint = ReconcileHint(unstarted=frozenset({"next"}), listed=True)

    def next(self, **changes: Any) -> ContainerView:
        values = {"container_id": "next", "name": "galaxy-game-g1.next", "state": ContainerState.CREATED}
        return view(**{**values, **changes})

    def left(self) -> set[str]:
        return {each.container_id for each in self.world.docker.containers}

    def test_it_is_removed_and_the_game_runs_on(self) -> None:
        self.assertTrue(self.settle(self.hint))
        self.assertEqual(self.left(), {self.container_id})
        self.assertEqual((self.world.events(), self.world.rows()), ([], []))

    def test_a_pass_finds_it_and_nothing_else_to_reconcile(self) -> None:
        self.world.reconcile()
        self.assertEqual(self.left(), {self.container_id})
        self.world.drift_scan.step()
        self.assertEqual(self.world.reconcile_queue.named, {})

    def test_so_is_that_of_a_game_that_does_not_run(self) -> None:
        self.world.bring(Status.STOPPED)
        self.assertTrue(self.settle(self.hint))
        self.assertNotIn("next", self.left())
        self.assertEqual(self.world.known().status, Status.STOPPED)

    def test_an_operation_under_way_may_need_it(self) -> None:
        self.world.store.add_row(request(kind=OpKind.RESTART), CALL_POSITION)
        self.settle(self.hint)
        self.assertIn("next", self.left())

    def test_one_that_cannot_be_removed_hides_nothing_of_its_game(self) -> None:
        self.world.docker.exit(self.container_id, 139)
        self.world.docker.refuse("remove", Meant.TEMPORARY)
        with self.assertRaises(TemporaryAnswer):
            self.settle(self.hint)
        self.assertEqual((self.world.known().status, self.world.events()), (Status.STOPPED, ["container_exited"]))

    def test_that_of_a_game_without_a_record_is_not_ours(self) -> None:
        self.world.docker.add_foreign(self.next(container_id="foreign", game_id="g9", name="galaxy-game-g9.next"))
        self.world.game_reconciler.settle("g9", ReconcileHint(unstarted=frozenset({"foreign"}), listed=True))
        self.assertIn("foreign", self.left())

    def test_one_on_a_network_of_another_deployment_is_left_alone(self) -> None:
        self.world.docker.vanish("next")
        self.world.docker.add_foreign(self.next(networks=frozenset({"other"}), made_for="other"))
        self.settle(self.hint)
        self.assertIn("next", self.left())

    def test_one_that_somebody_started_or_that_took_its_place_is_left_alone(self) -> None:
        for changes in ({"state": ContainerState.RUNNING}, {"name": "galaxy-game-g1"}, {"game_id": "g2"}):
            with self.subTest(**changes):
                self.world.docker.vanish("next")
                self.world.docker.add_foreign(self.next(**changes))
                self.settle(self.hint)
                self.assertIn("next", self.left())

    def test_it_is_never_adopted_and_its_end_publishes_nothing(self) -> None:
        self.world.bring(Status.STOPPED)
        self.settle(ReconcileHint(containers=frozenset({"next"}), listed=True))
        self.world.docker.vanish("next")
        self.settle(ReconcileHint(HealthSource.DOCKER_EVENT, containers=frozenset({"next"})))
        self.assertEqual((self.world.events(), self.world.known().status), ([], Status.STOPPED))
        self.assertEqual(dict(self.world.strays.known), {})


class BesideOperations(ReconcilerTestCase):
    def test_an_intended_stop_is_never_published_as_a_crash(self) -> None:
        operation = self.world.claim(request(kind=OpKind.STOP))
        completion = self.world.operator.run(operation)
        self.assertFalse(self.settle(), "looked at while the stop is under way: its container has ended")
        self.world.queue.finish(operation, completion)
        self.assertTrue(self.settle(), "and once more behind it")
        self.assertEqual(self.world.events(), [])
        self.assertEqual(self.world.known().status, Status.STOPPED)

    def test_a_game_that_this_instance_works_on_is_reconciled_when_that_is_over(self) -> None:
        worked_on = {"g1"}
        game_reconciler = replace(self.world.game_reconciler, works_on=worked_on.__contains__)
        self.world.docker.vanish(self.container_id)
        self.world.docker.calls.clear()

        self.assertFalse(game_reconciler.settle("g1", ReconcileHint()))
        self.assertEqual(self.world.docker.calls, [])

        worked_on.clear()
        self.assertTrue(game_reconciler.settle("g1", ReconcileHint()))
        self.assertEqual(self.world.known().status, Status.REMOVED)

    def test_a_start_under_way_is_not_adopted(self) -> None:
        self.world.bring(Status.STOPPED)
        operation = self.world.claim(request(kind=OpKind.START))
        completion = self.world.operator.run(operation)
        self.assertFalse(self.settle(ReconcileHint(listed=True)))
        self.world.queue.finish(operation, completion)
        self.assertTrue(self.settle(ReconcileHint(listed=True)))
        self.assertEqual([row[0] for row in self.world.rows()], ["start"])

    def test_nor_when_the_instance_that_stops_dies_in_the_middle_and_another_reconciles(self) -> None:
        operation = self.world.claim(request(kind=OpKind.STOP))
        self.world.operator.run(operation)
        other = WatchedWorld(owner=2)
        other.game_reconciler = self.world.game_reconciler
        self.world.store.present.discard(1)
        self.world.clock.advance(100)
        self.world.store.queue(2).reclaim_orphans()
        self.assertFalse(self.settle(), "it is due again and not done")
        self.assertEqual(self.world.events(), [])

    def test_a_crash_during_a_restart_is_settled_by_the_restart(self) -> None:
        self.world.docker.exit(self.container_id, 139)
        self.world.do(request(kind=OpKind.RESTART))
        self.assertTrue(self.settle())
        self.assertEqual(self.world.events(), ["container_started"])

    def test_a_crash_right_after_the_start_is_published_when_the_start_has_been_written(self) -> None:
        world = WatchedWorld()
        operation = world.claim(request())
        completion = world.operator.run(operation)
        world.docker.exit(completion.launched or "", 3)
        self.assertFalse(world.game_reconciler.settle("g1", EVENT))
        world.queue.finish(operation, completion)
        self.assertTrue(world.game_reconciler.settle("g1", EVENT))
        self.assertEqual(world.events(), ["container_started", "container_exited"])

    def test_an_event_of_an_earlier_container_does_not_count_for_the_present_one(self) -> None:
        self.world.do(request(kind=OpKind.RESTART))
        self.world.forget()
        hint = ReconcileHint(HealthSource.DOCKER_EVENT, frozenset({self.container_id}), {self.container_id: 5})
        self.assertTrue(self.settle(hint))
        self.assertEqual(self.world.events(), [])


class Ends(ReconcilerTestCase):
    """An inspect determines the kind of exit: an event only names the container."""

    def test_one_with_code_0_is_left_to_a_pass(self) -> None:
        self.world.docker.exit(self.container_id, 0)
        self.assertTrue(self.settle(EVENT))
        self.assertEqual((self.world.known().status, self.world.events()), (Status.RUNNING, []))
        self.assertTrue(self.settle(ReconcileHint(listed=True)))
        self.assertEqual((self.world.known().status, self.world.events()), (Status.STOPPED, ["container_exited"]))

    def test_a_kill_that_nobody_explains_is_reconciled_again_and_memory_may_be_published_meanwhile(self) -> None:
        hint = ReconcileHint(HealthSource.DOCKER_EVENT, unexplained=frozenset({self.container_id}))
        self.world.docker.exit(self.container_id, 137)
        self.assertTrue(self.settle(hint))
        self.assertEqual(self.world.events(), [])
        ((later, delay_s),) = self.world.reconcile_queue.named.values()
        self.assertEqual((later.unexplained, delay_s), (frozenset(), OOM_GRACE_S))
        self.world.reconcile_queue.add("g1", ReconcileHint(HealthSource.DOCKER_EVENT, oom={self.container_id: 7}))
        self.world.reconcile_queue.run()
        self.assertEqual(self.world.events(), ["container_oom", "container_exited"])

    def test_any_other_code_is_published_at_once(self) -> None:
        self.world.docker.exit(self.container_id, 3)
        self.assertTrue(
            self.settle(ReconcileHint(HealthSource.DOCKER_EVENT, unexplained=frozenset({self.container_id})))
        )
        self.assertEqual(self.world.events(), ["container_exited"])

    def test_a_log_that_cannot_be_read_keeps_no_end_from_being_published(self) -> None:
        def broken(container_id: str) -> str:
            raise TypeError("a frame\0 of a log that is none " + "x" * 9999)

        self.world.docker.log_tail = broken  # type: ignore[method-assign]
        self.world.docker.exit(self.container_id, 3)
        game_reconciler = replace(self.world.game_reconciler, runtime=self.world.docker)
        self.assertTrue(game_reconciler.settle("g1", EVENT))
        log = self.world.store.last_exits["g1"].log
        self.assertIn("could not be read: a frame of a log", log)
        self.assertLess(len(log), 700)


class Unreadable(ReconcilerTestCase):
    def test_a_state_that_is_not_known_changes_no_record_and_is_reported(self) -> None:
        self.world.docker.alter(self.container_id, state=ContainerState.UNKNOWN, state_word="hibernating")
        for hint in (EVENT, ReconcileHint(listed=True), ReconcileHint()):
            self.assertTrue(self.settle(hint))
        self.assertEqual((self.world.known().status, self.world.events()), (Status.RUNNING, []))
        self.assertIn("hibernating", self.world.strays.known[self.container_id].reason)

    def test_a_recorded_container_of_which_nothing_can_be_read_is_not_gone(self) -> None:
        unreadable = decode.inspected({"Id": None, "State": [], "Config": 5}, "0" * 64)
        self.world.docker.alter(
            self.container_id, **{name: getattr(unreadable, name) for name in ("name", "labels", "state", "networks")}
        )
        self.assertTrue(self.settle(EVENT))
        self.world.reconcile()
        self.assertEqual((self.world.known().status, self.world.events()), (Status.RUNNING, []))

    def test_what_the_store_refuses_is_raised_and_what_else_was_found_is_written(self) -> None:
        refuse = self.world.findings.write

        def write(finding: Finding) -> WriteResult:
            if finding.raises is not None:
                raise StoreRejected("invalid input syntax")
            return refuse(finding)

        self.world.findings.write = write  # type: ignore[method-assign]
        self.world.docker.exit(self.container_id, 137)
        with self.assertRaisesRegex(StoreRejected, "invalid input syntax"):
            self.settle(ReconcileHint(HealthSource.DOCKER_EVENT, oom={self.container_id: 7}))
        self.assertEqual(self.world.events(), ["container_exited"])


class FoundByAPass(ReconcilerTestCase):
    def test_only_an_exit_without_an_event_is_noted_as_found_by_a_pass(self) -> None:
        for hint, noted in (
            (EVENT, False),
            (ReconcileHint(listed=True), True),
            (ReconcileHint(listed=True).merged(EVENT), False),
        ):
            self.setUp()
            found = mock.Mock()
            self.world.docker.exit(self.container_id, 137)
            replace(self.world.game_reconciler, exit_found=found).settle("g1", hint)
            self.assertEqual([call.args[0] for call in found.call_args_list], [self.container_id] * noted)


class OutOfMemory(ReconcilerTestCase):
    def hint(self, time_ns: int = 7_000_000_000) -> ReconcileHint:
        return ReconcileHint(HealthSource.DOCKER_EVENT, oom={self.container_id: time_ns})

    def test_it_is_published_while_the_engine_lives_on_and_once_a_minute(self) -> None:
        for time_s in (7, 7, 66, 67):
            self.assertTrue(self.settle(self.hint(time_s * 10**9)))
        self.assertEqual(self.world.events(), ["container_oom", "container_oom"])
        self.assertEqual(self.world.known().status, Status.RUNNING)

    def test_of_a_clock_that_was_ahead_each_occasion_is_published_and_none_in_the_future(self) -> None:
        for ahead_s in (3600, 0):
            self.world.clock.advance(120)
            now = self.world.clock()
            self.settle(self.hint(round(now.timestamp() + ahead_s) * 10**9))
            self.assertEqual(self.world.written[-1].health[0].occurred_at, now)
        self.assertEqual(self.world.events(), ["container_oom", "container_oom"])

    def test_with_the_death_that_follows_both_are_published_in_their_order(self) -> None:
        self.world.docker.exit(self.container_id, 137)
        self.assertTrue(self.settle(self.hint()))
        self.assertEqual(self.world.events(), ["container_oom", "container_exited"])
        last_exit = self.world.store.last_exits["g1"]
        self.assertTrue(last_exit.oom, "the event says so where the container does not")


class StartedAgain(ReconcilerTestCase):
    restarts = RestartPolicy(budget=2, first_pause_s=5)

    def setUp(self) -> None:
        super().setUp()
        self.due: list[str] = []
        self.worker = CrashRestarts(
            self.world.findings,
            queued=lambda: self.due.append("due"),
            longest_pause_s=300,
            logger=self.world.captured.logger,
        )

    def crash(self, code: int = 139, hint: ReconcileHint | None = None) -> None:
        container = self.world.container()
        self.world.docker.exit(container, code)
        self.settle(hint or ReconcileHint(HealthSource.DOCKER_EVENT, died=frozenset({container})))

    def queued(self, after_s: float) -> list[OpKind]:
        self.world.clock.advance(after_s)
        self.worker.step()
        return [row.request.kind for rows in self.world.store.live.values() for row in rows]

    def restart(self, after_s: float) -> None:
        self.assertEqual(self.queued(after_s), [OpKind.RESTART])
        (operation,) = self.world.queue.claim(1)
        self.world.queue.finish(operation, self.world.operator.run(operation))

    def test_a_crashed_game_is_restarted_after_a_pause_by_an_ordinary_operation(self) -> None:
        self.crash()
        self.assertEqual(self.queued(4), [])
        self.restart(1.5)
        self.assertEqual(self.world.known().status, Status.RUNNING)
        self.assertEqual([row[0] for row in self.world.rows()], ["stop", "start", "restart"])
        self.assertEqual(self.due, ["due"])

    def test_pauses_grow_and_the_budget_ends_until_the_window_has_passed(self) -> None:
        for pause in (5, 10):
            self.crash()
            self.assertEqual(self.queued(pause - 1), [])
            self.restart(2)
        self.crash()
        self.assertEqual(self.queued(500), [])
        self.assertTrue(any("budget" in message for message in self.world.captured.messages))
        self.world.do(request())
        self.world.clock.advance(601)
        self.crash()
        self.restart(6)

    def test_not_after_an_intended_stop_though_it_found_nothing_to_do(self) -> None:
        self.crash()
        self.world.do(request(kind=OpKind.STOP))
        self.assertEqual(self.queued(60), [])

    def test_not_when_the_game_was_started_cleaned_up_or_adopted_meanwhile(self) -> None:
        self.crash()
        self.world.do(request())
        self.assertEqual(self.queued(60), [])

    def test_not_when_it_ended_voluntarily_or_was_stopped(self) -> None:
        self.crash(code=0, hint=ReconcileHint(listed=True))
        self.world.reconcile_queue.run()
        self.assertEqual(self.world.known().status, Status.STOPPED)
        self.assertEqual(self.queued(60), [])
        self.world.do(request())
        self.crash(
            code=137, hint=ReconcileHint(HealthSource.DOCKER_EVENT, signalled=frozenset({self.world.container()}))
        )
        self.assertEqual(self.queued(60), [])
        self.assertEqual(self.world.store.last_exits["g1"].requested_by, RequestedBy.SIGNAL)

    def test_a_kill_that_a_list_shows_before_its_event_is_a_crash_when_the_event_shows_one(self) -> None:
        container = self.world.container()
        self.crash(code=137, hint=ReconcileHint(listed=True))
        self.assertEqual(self.world.known().status, Status.RUNNING, "the event is waited for")
        self.world.reconcile_queue.add("g1", ReconcileHint(HealthSource.DOCKER_EVENT, died=frozenset({container})))
        self.world.reconcile_queue.run()
        self.restart(6)

    def test_the_event_of_an_earlier_container_is_not_the_one_that_is_waited_for(self) -> None:
        self.crash(
            code=137, hint=ReconcileHint(HealthSource.DOCKER_EVENT, frozenset({"earlier"}), died=frozenset({"earlier"}))
        )
        self.assertEqual(self.world.known().status, Status.RUNNING)

    def test_a_kill_without_an_event_is_none(self) -> None:
        self.crash(code=137, hint=ReconcileHint(listed=True))
        ((later, delay_s),) = self.world.reconcile_queue.named.values()
        self.assertEqual((later.waited_for, delay_s), ({self.world.container()}, EVENT_GRACE_S))
        self.world.reconcile_queue.run()
        self.assertEqual(self.world.known().status, Status.STOPPED)
        self.assertEqual(self.queued(60), [])

    def test_a_used_up_budget_is_published_once_and_stays_in_the_games_health(self) -> None:
        for _ in range(2):
            self.crash()
            self.restart(11)
        self.crash()
        for _ in range(3):
            self.settle(ReconcileHint(listed=True))
        intents = [
            message.fields
            for message in self.world.store.messages.values()
            if message.stream is Stream.NOTIFICATION_INTENTS
        ]
        self.assertEqual([each["notification_type"] for each in intents], ["runtime.container_start_failed"])
        self.assertTrue(intents[0]["idempotency_key"].endswith(f"g1:crash:{self.world.container()[:12]}"))
        self.assertTrue(self.world.store.last_exits["g1"].budget_used_up)

    def test_one_that_meets_an_absent_docker_is_done_when_docker_is_back(self) -> None:
        self.crash()
        self.world.docker.available = False
        self.assertEqual(self.queued(6), [OpKind.RESTART])
        (operation,) = self.world.queue.claim(1)
        self.assertFalse(operation.awaited, "so it waits for Docker as a job does")

    def test_two_instances_queue_it_once(self) -> None:
        self.crash()
        self.world.clock.advance(6)
        self.worker.step()
        self.worker.step()
        self.assertEqual(self.queued(0), [OpKind.RESTART])


class Outages(ReconcilerTestCase):
    """A game that ended with the runtime is started again; one that a user stopped is not."""

    def setUp(self) -> None:
        super().setUp()
        self.game_reconciler = replace(self.world.game_reconciler, after_outages=True)
        self.worker = CrashRestarts(
            self.world.findings,
            queued=lambda: None,
            longest_pause_s=300,
            logger=self.world.captured.logger,
            outages_at_once=2,
            causes=(),
            runtime_away=lambda: self.away,
        )
        self.away: Unavailable | None = None
        self.before = self.world.clock() - timedelta(hours=1)

    def outage(self, game_id: str = "g1", code: int = 143, hint: ReconcileHint = ReconcileHint(listed=True)) -> None:  # noqa: B008
        """End the runtime and start it again, then reconcile the game."""
        self.world.docker.alter(self.world.container(game_id), started_at=self.before)
        self.world.docker.exit(self.world.container(game_id), code)
        self.world.clock.advance(1)
        self.world.docker.run = RuntimeRun(self.world.clock())
        self.game_reconciler.settle(game_id, hint)

    def signalled(self, sender: Sender) -> None:
        self.game_reconciler = replace(self.game_reconciler, sender=lambda _: sender)

    def queued(self) -> list[str]:
        self.worker.step()
        return [row.request.game_id for rows in self.world.store.live.values() for row in rows]

    def run_all(self) -> None:
        for operation in self.world.queue.claim(10):
            self.world.queue.finish(operation, self.world.operator.run(operation))

    def test_it_is_started_again_whatever_its_exit_code_by_an_ordinary_start(self) -> None:
        for code, by in ((0, RequestedBy.DOCKER), (143, RequestedBy.DOCKER), (3, RequestedBy.DOCKER), (255, "host")):
            self.outage(code=code)
            self.assertEqual(self.world.known().status, Status.STOPPED)
            self.assertEqual(self.world.store.last_exits["g1"].requested_by, by)
            self.assertEqual(self.queued(), ["g1"])
            self.run_all()
            self.assertEqual(self.world.known().status, Status.RUNNING)
            entry = self.world.store.log[-1]
            self.assertEqual((entry.kind, entry.source), (OpKind.START, OpSource.AUTO_RECONCILE))
            self.assertTrue(entry.source_ref.startswith("outage:"))

    def test_while_the_runtime_shuts_down_nothing_is_concluded(self) -> None:
        self.world.docker.exit(self.container_id, 143)
        self.world.docker.refuse("present_run", Meant.TEMPORARY, 1)
        with self.assertRaises(TemporaryAnswer):
            self.settle(ReconcileHint(HealthSource.DOCKER_EVENT, signalled=frozenset({self.container_id})))
        self.assertEqual(self.world.known().status, Status.RUNNING)

    def test_not_what_a_person_stopped_just_before(self) -> None:
        signalled = ReconcileHint(HealthSource.DOCKER_EVENT, signalled=frozenset({self.container_id}))
        for hint in (signalled, ReconcileHint(listed=True)):  # a runtime that was killed reports no death
            with self.subTest(hint=hint):
                self.setUp()
                self.signalled(Sender.PERSON)
                self.outage(hint=hint)
                self.assertEqual((self.world.known().status, self.queued()), (Status.STOPPED, []))
                self.assertEqual(self.world.store.last_exits["g1"].requested_by, RequestedBy.SIGNAL)

    def test_not_what_ended_within_the_present_run(self) -> None:
        self.world.docker.run = RuntimeRun(self.before)
        self.world.docker.alter(self.container_id, started_at=self.world.clock())
        self.world.docker.exit(self.container_id, 255)
        self.game_reconciler.settle("g1", ReconcileHint(listed=True))
        self.assertEqual(self.queued(), [])

    def test_not_what_ran_in_the_present_run_although_a_clock_that_was_ahead_began_it_later(self) -> None:
        self.world.docker.run = RuntimeRun(self.world.clock() + timedelta(hours=2))
        self.world.reconcile()
        self.world.docker.exit(self.container_id, 143)
        self.game_reconciler.settle("g1", ReconcileHint(listed=True))
        self.assertEqual(self.queued(), [])
        self.assertEqual(self.world.store.last_exits["g1"].requested_by, RequestedBy.UNKNOWN)

    def test_what_ran_in_the_run_before_although_a_pass_saw_it(self) -> None:
        self.world.docker.run = RuntimeRun(self.before)
        self.world.reconcile()
        self.outage()
        self.assertEqual(self.queued(), ["g1"])

    def test_only_once_within_one_run_whatever_the_clock_is(self) -> None:
        self.outage()
        self.assertEqual(self.queued(), ["g1"])
        self.run_all()
        container_id = self.world.container()
        self.world.docker.alter(container_id, started_at=self.before)
        self.world.docker.exit(container_id, 1)
        self.game_reconciler.settle("g1", ReconcileHint(listed=True))
        self.assertEqual((self.world.known().status, self.queued()), (Status.STOPPED, []))

    def test_what_a_runtime_ended_as_it_went_down_although_a_container_that_outlived_it_hides_that(self) -> None:
        self.signalled(Sender.ENDED_RUNTIME)
        self.world.docker.run = RuntimeRun(self.before, keeps_containers=True)
        self.world.reconcile()
        self.world.docker.alter(self.container_id, started_at=self.world.clock())
        self.world.docker.exit(self.container_id, 137)
        self.game_reconciler.settle("g1", ReconcileHint(listed=True))
        self.assertEqual(self.queued(), ["g1"])
        self.assertEqual(self.world.store.last_exits["g1"].requested_by, RequestedBy.DOCKER)

    def test_with_live_restore_only_what_vanished_with_the_host(self) -> None:
        for code, expected in ((0, []), (137, []), (255, ["g1"])):
            self.setUp()
            self.world.docker.alter(self.container_id, started_at=self.before)
            self.world.docker.exit(self.container_id, code)
            self.world.docker.run = RuntimeRun(self.world.clock(), keeps_containers=True)
            self.game_reconciler.settle("g1", ReconcileHint(listed=True))
            self.assertEqual(self.queued(), expected, code)

    def test_with_live_restore_what_the_runtime_ended_as_it_went_down_before_it_was_switched_on(self) -> None:
        self.signalled(Sender.RUNTIME)
        self.world.docker.alter(self.container_id, started_at=self.before)
        self.world.docker.exit(self.container_id, 143)
        self.world.docker.run = RuntimeRun(self.world.clock(), keeps_containers=True)
        self.game_reconciler.settle("g1", ReconcileHint(listed=True))
        self.assertEqual(self.queued(), ["g1"])
        self.assertEqual(self.world.store.last_exits["g1"].requested_by, RequestedBy.DOCKER)

    def test_not_when_it_is_switched_off(self) -> None:
        self.game_reconciler = self.world.game_reconciler
        self.outage()
        self.assertEqual((self.world.known().status, self.queued()), (Status.STOPPED, []))

    def test_not_when_it_was_switched_off_meanwhile(self) -> None:
        self.outage()
        off = CrashRestarts(
            self.world.findings, queued=lambda: None, longest_pause_s=300, logger=self.world.captured.logger, causes=()
        )
        self.world.store.trouble.before = self.fail_once
        with self.assertRaises(Unavailable):
            off.step()
        off.step()
        self.assertEqual(self.queued(), [])
        self.outage_of_a_running_game()
        off.step()
        self.assertEqual(self.queued(), ["g1"], "of another instance, where it is on")

    def fail_once(self, _: str) -> None:
        """PostgreSQL does not answer one call."""
        self.world.store.trouble.before = None
        raise Unavailable("postgres", "it does not answer")

    def outage_of_a_running_game(self) -> None:
        self.world.do(request())
        self.outage()

    def test_a_stop_that_finds_nothing_to_do_calls_it_off(self) -> None:
        self.outage()
        self.world.do(request(kind=OpKind.STOP))
        self.assertEqual(self.queued(), [])

    def test_a_start_that_fails_is_tried_again_until_what_it_needs_is_there(self) -> None:
        self.outage()
        self.world.docker.refuse("launch", Meant.FINAL, 2)
        for pause_s in (5, 10):
            self.assertEqual(self.queued(), ["g1"])
            self.run_all()
            self.assertEqual((self.world.known().status, self.queued()), (Status.STOPPED, []))
            self.world.clock.advance(pause_s)
        self.assertEqual(self.queued(), ["g1"])
        self.run_all()
        self.assertEqual((self.world.known().status, self.queued()), (Status.RUNNING, []))

    def test_of_the_failures_of_one_game_only_the_first_and_the_last_are_notified(self) -> None:
        self.outage()
        self.world.docker.refuse("launch", Meant.FINAL, OUTAGE_TRIES)
        for _ in range(OUTAGE_TRIES):
            self.assertEqual(self.queued(), ["g1"])
            self.run_all()
            self.world.clock.advance(300)
        self.assertEqual(self.queued(), [], "it is given up")
        sent = self.world.store.messages.values()
        keys = [each.fields["idempotency_key"] for each in sent if each.stream is Stream.NOTIFICATION_INTENTS]
        ref = f"g1:outage:{self.container_id[:12]}"
        self.assertEqual([key[key.index("g1") :] for key in keys], [ref, f"{ref}:{OUTAGE_TRIES}"])

    def test_a_patch_that_is_refused_leaves_it_and_one_that_is_done_does_not(self) -> None:
        self.outage()
        self.world.do(request(kind=OpKind.PATCH, image_ref="registry/engine:9.9.9"))
        self.assertEqual(self.world.store.log[-1].error_code, "semver_patch_only")
        self.assertEqual(self.queued(), ["g1"])
        self.run_all()
        self.outage()
        self.world.do(request(kind=OpKind.RESTART))
        self.assertEqual(self.queued(), [])

    def test_a_clock_that_is_set_back_delays_neither_the_first_start_nor_a_later_one(self) -> None:
        for back_s in (1, 60, 3600):
            self.setUp()
            self.outage()
            self.world.clock.jump(-back_s)
            self.assertEqual(self.queued(), ["g1"])
            self.world.docker.refuse("launch", Meant.FINAL, 1)
            self.run_all()
            self.assertEqual(self.queued(), [])
            self.world.clock.jump(-back_s)
            self.world.clock.advance(5 + min(back_s, JUST_ENDED_S))
            self.assertEqual(self.queued(), ["g1"], back_s)

    def test_none_is_queued_while_the_runtime_is_away(self) -> None:
        self.outage()
        self.away = Unavailable("docker", "it does not answer")
        self.assertEqual(self.queued(), [])
        self.away = None
        self.assertEqual(self.queued(), ["g1"])

    def test_so_many_at_a_time(self) -> None:
        for game_id in ("g2", "g3"):
            self.world.bring(Status.RUNNING, game_id)
        for game_id in ("g1", "g2", "g3"):
            self.outage(game_id)
        self.assertEqual(len(self.queued()), 2)
        self.assertEqual(len(self.queued()), 2)
        self.run_all()
        self.assertEqual(len(self.queued()), 1)


class Passes(ReconcilerTestCase):
    def test_a_pass_with_nothing_to_do_lists_once_and_inspects_nothing(self) -> None:
        self.world.docker.calls.clear()
        self.world.reconcile()
        self.assertEqual([call.method for call in self.world.docker.calls], ["present_run", "list_games"])

    def test_a_pass_settles_all_that_differs(self) -> None:
        for game_id in ("g2", "g3"):
            self.world.bring(Status.RUNNING, game_id)
        self.world.docker.exit(self.world.container("g2"), 1)
        self.world.docker.vanish(self.world.container("g3"))
        self.world.docker.add_foreign(view("g4", container_id="by-hand"))
        self.world.reconcile()
        statuses = {game_id: self.world.known(game_id).status for game_id in ("g1", "g2", "g3", "g4")}
        expected = {"g1": Status.RUNNING, "g2": Status.STOPPED, "g3": Status.REMOVED, "g4": Status.RUNNING}
        self.assertEqual(statuses, expected)

    def test_games_that_cannot_be_read_together_are_read_one_by_one_and_a_bad_one_hides_no_other(self) -> None:
        for game_id in ("g2", "g3"):
            self.world.bring(Status.RUNNING, game_id)
        for game_id in ("g1", "g2", "g3"):
            self.world.docker.exit(self.world.container(game_id), 1)
        read = self.world.findings.records_of

        def records_of(game_ids: Collection[str]) -> Sequence[RuntimeRecord]:
            if "g2" in game_ids:
                raise ValueError("timestamp too large (after year 10K)")
            return read(game_ids)

        self.world.findings.records_of = records_of  # type: ignore[method-assign]
        for _ in range(3):
            self.world.reconcile()
        self.assertEqual([self.world.known(each).status for each in ("g1", "g3")], [Status.STOPPED] * 2)
        self.assertEqual(self.world.captured.messages.count("work on a game failed, the others go on"), 2)
        self.world.drift_scan.check_finished()

    def test_containers_with_odd_labels_are_strays_of_bounded_length_and_the_pass_goes_on(self) -> None:
        odd = ("a\0b", "x" * 1_000_000, "\ud800", "\U0001f3ae", "'; DROP TABLE runtime_records; --", "../../etc", "")
        for number, game_id in enumerate(odd):
            labels = {LABEL_OWNER: OWNER, LABEL_KIND: KIND, LABEL_GAME_ID: game_id}
            entry = {"Id": f"odd{number}", "Names": ["/odd"], "Image": "i", "State": "running", "Labels": labels}
            seen = decode.listed(entry)
            assert seen is not None
            self.world.docker.add_foreign(seen)
        self.world.docker.exit(self.container_id, 1)
        self.world.reconcile()
        self.assertEqual(self.world.known().status, Status.STOPPED)
        self.assertEqual(len(self.world.strays.known), len(odd))
        for record in self.world.captured.records:
            self.assertLess(len(str(vars(record))), 4000)

    def test_of_too_many_strays_the_number_is_reported(self) -> None:
        with mock.patch.object(strays_module, "MOST", 2):
            for number in range(5):
                self.world.strays.report(Stray("g9", f"odd{number}", "odd", "is odd"))
        self.assertEqual(len(self.world.strays.known), 2)
        self.assertEqual(sum("more containers disagree" in message for message in self.world.captured.messages), 1)

    def test_the_first_pass_that_finds_docker_away_is_made_up_for(self) -> None:
        self.world.docker.available = False
        self.assertFalse(self.world.drift_scan.first_pass())
        with self.assertRaisesRegex(Exception, "first reconcile"):
            self.world.drift_scan.check_finished()
        self.world.docker.available = True
        self.world.reconcile()
        self.world.drift_scan.check_finished()

    def test_a_stray_that_agrees_again_is_forgotten(self) -> None:
        self.world.docker.add_foreign(view("g9", container_id="odd", name="odd"))
        self.world.reconcile()
        self.assertEqual(set(self.world.strays.known), {"odd"})
        self.world.docker.vanish("odd")
        self.world.clock.advance(timedelta(minutes=5).total_seconds())
        self.world.reconcile()
        self.assertEqual(dict(self.world.strays.known), {})
