"""One look at one game: what is written, what is held back, what an operation is left to settle."""

from __future__ import annotations

import unittest
from dataclasses import replace
from datetime import timedelta

from rtmanager.domain.container import ContainerState
from rtmanager.domain.crash import RestartPolicy
from rtmanager.domain.errors import Unavailable
from rtmanager.domain.health import HealthSource
from rtmanager.domain.operation import OpKind
from rtmanager.domain.record import Status
from rtmanager.testing.store import CALL_POSITION
from rtmanager.tests.making import request, view
from rtmanager.tests.watching import WatchedWorld
from rtmanager.workers.attention import Hint
from rtmanager.workers.crash_restarts import CrashRestarts

EVENT = Hint(HealthSource.DOCKER_EVENT)


class SettlerTestCase(unittest.TestCase):
    restarts: RestartPolicy | None = None

    def setUp(self) -> None:
        self.world = WatchedWorld(self.restarts)
        self.world.bring(Status.RUNNING)
        self.container_id = self.world.container()

    def settle(self, hint: Hint = EVENT) -> bool:
        return self.world.settler.settle("g1", hint)


class OneLook(SettlerTestCase):
    def test_a_game_that_runs_is_settled_and_nothing_is_told(self) -> None:
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

    def test_a_crash_is_told_once_however_often_it_is_looked_at(self) -> None:
        self.world.docker.exit(self.container_id, 139)
        for _ in range(3):
            self.assertTrue(self.settle())
        self.assertEqual(self.world.events(), ["container_exited"])

    def test_a_crash_is_told_without_its_log_when_that_cannot_be_read(self) -> None:
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

    def test_one_that_is_being_removed_is_looked_at_again_and_told_as_gone(self) -> None:
        self.world.docker.change(self.container_id, ContainerState.REMOVING)
        self.assertFalse(self.settle())
        self.assertEqual(self.world.events(), [])
        self.world.docker.vanish(self.container_id)
        self.assertTrue(self.settle())
        self.assertEqual(self.world.events(), ["container_disappeared"])

    def test_one_that_was_replaced_by_hand_is_disposed_and_the_new_one_adopted_in_one_look(self) -> None:
        self.world.docker.vanish(self.container_id)
        self.world.docker.add_foreign(view(container_id="by-hand"))
        self.assertTrue(self.settle(Hint(listed=True)))
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
        hint = Hint(containers=frozenset({"copy"}), listed=True)
        self.world.store.add_row(request(kind=OpKind.RESTART), CALL_POSITION)
        self.assertTrue(self.settle(hint))
        self.assertEqual(dict(self.world.strays.known), {})
        self.world.store.live.clear()
        self.assertTrue(self.settle(hint))
        self.assertTrue(self.settle(hint))
        self.assertEqual(set(self.world.strays.known), {"copy"})
        self.assertEqual(sum("disagrees" in message for message in self.world.heard.messages), 1)


class BesideOperations(SettlerTestCase):
    def test_an_intended_stop_is_never_told_as_a_crash(self) -> None:
        operation = self.world.claim(request(kind=OpKind.STOP))
        ending = self.world.operator.run(operation)
        self.assertFalse(self.settle(), "looked at while the stop is under way: its container has ended")
        self.world.queue.finish(operation, ending)
        self.assertTrue(self.settle(), "and once more behind it")
        self.assertEqual(self.world.events(), [])
        self.assertEqual(self.world.known().status, Status.STOPPED)

    def test_a_game_that_this_instance_works_on_is_looked_at_when_that_is_over(self) -> None:
        worked_on = {"g1"}
        settler = replace(self.world.settler, works_on=worked_on.__contains__)
        self.world.docker.vanish(self.container_id)
        self.world.docker.calls.clear()

        self.assertFalse(settler.settle("g1", Hint()))
        self.assertEqual(self.world.docker.calls, [])

        worked_on.clear()
        self.assertTrue(settler.settle("g1", Hint()))
        self.assertEqual(self.world.known().status, Status.REMOVED)

    def test_a_start_under_way_is_not_adopted(self) -> None:
        self.world.bring(Status.STOPPED)
        operation = self.world.claim(request(kind=OpKind.START))
        ending = self.world.operator.run(operation)
        self.assertFalse(self.settle(Hint(listed=True)))
        self.world.queue.finish(operation, ending)
        self.assertTrue(self.settle(Hint(listed=True)))
        self.assertEqual([row[0] for row in self.world.rows()], ["start"])

    def test_nor_when_the_instance_that_stops_dies_in_the_middle_and_another_looks(self) -> None:
        operation = self.world.claim(request(kind=OpKind.STOP))
        self.world.operator.run(operation)
        other = WatchedWorld(owner=2)
        other.settler = self.world.settler
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

    def test_a_crash_right_after_the_start_is_told_when_the_start_has_been_written(self) -> None:
        world = WatchedWorld()
        operation = world.claim(request())
        ending = world.operator.run(operation)
        world.docker.exit(ending.launched or "", 3)
        self.assertFalse(world.settler.settle("g1", EVENT))
        world.queue.finish(operation, ending)
        self.assertTrue(world.settler.settle("g1", EVENT))
        self.assertEqual(world.events(), ["container_started", "container_exited"])

    def test_an_event_of_an_earlier_container_says_nothing_about_the_present_one(self) -> None:
        self.world.do(request(kind=OpKind.RESTART))
        self.world.forget()
        hint = Hint(HealthSource.DOCKER_EVENT, frozenset({self.container_id}), {self.container_id: 5})
        self.assertTrue(self.settle(hint))
        self.assertEqual(self.world.events(), [])


class OutOfMemory(SettlerTestCase):
    def hint(self, time_ns: int = 7_000_000_000) -> Hint:
        return Hint(HealthSource.DOCKER_EVENT, oom={self.container_id: time_ns})

    def test_it_is_told_while_the_engine_lives_on_and_once_for_each_occasion(self) -> None:
        for time_ns in (7_000_000, 7_000_000, 8_000_000):
            self.assertTrue(self.settle(self.hint(time_ns)))
        self.assertEqual(self.world.events(), ["container_oom", "container_oom"])
        self.assertEqual(self.world.known().status, Status.RUNNING)

    def test_with_the_death_that_follows_both_are_told_in_their_order(self) -> None:
        self.world.docker.exit(self.container_id, 137)
        self.assertTrue(self.settle(self.hint()))
        self.assertEqual(self.world.events(), ["container_oom", "container_exited"])
        last_exit = self.world.store.last_exits["g1"]
        self.assertTrue(last_exit.oom, "the event says so where the container does not")


class StartedAgain(SettlerTestCase):
    restarts = RestartPolicy(budget=2, first_pause_s=5)

    def setUp(self) -> None:
        super().setUp()
        self.due: list[str] = []
        self.worker = CrashRestarts(
            self.world.findings,
            queued=lambda: self.due.append("due"),
            logger=self.world.heard.logger,
        )

    def crash(self, code: int = 139, hint: Hint = EVENT) -> None:
        self.world.docker.exit(self.world.container(), code)
        self.settle(hint)

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
        self.assertTrue(any("budget" in message for message in self.world.heard.messages))
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

    def test_not_when_it_ended_by_its_own_will_or_was_asked_to(self) -> None:
        self.crash(code=0)
        self.assertEqual(self.queued(60), [])
        self.world.do(request())
        self.crash(code=137, hint=Hint(HealthSource.DOCKER_EVENT, asked=frozenset({self.world.container()})))
        self.assertEqual(self.queued(60), [])

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


class Passes(SettlerTestCase):
    def test_a_pass_with_nothing_to_do_lists_once_and_inspects_nothing(self) -> None:
        self.world.docker.calls.clear()
        self.world.reconcile()
        self.assertEqual([call.method for call in self.world.docker.calls], ["list_games"])

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

    def test_the_first_pass_that_finds_docker_away_is_made_up_for(self) -> None:
        self.world.docker.available = False
        self.assertFalse(self.world.reconciler.first_pass())
        with self.assertRaisesRegex(Exception, "first reconcile"):
            self.world.reconciler.check_finished()
        self.world.docker.available = True
        self.world.reconcile()
        self.world.reconciler.check_finished()

    def test_a_stray_that_agrees_again_is_forgotten(self) -> None:
        self.world.docker.add_foreign(view("g9", container_id="odd", name="odd"))
        self.world.reconcile()
        self.assertEqual(set(self.world.strays.known), {"odd"})
        self.world.docker.vanish("odd")
        self.world.clock.advance(timedelta(minutes=5).total_seconds())
        self.world.reconcile()
        self.assertEqual(dict(self.world.strays.known), {})
