"""The executor: several games at once, the operations of a game in order, none lost between claim and completion."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.findings import RestartCause
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import Completion, OpKind, Outcome
from rtmanager.domain.record import Status
from rtmanager.domain.restarts import restart_request
from rtmanager.fakes import FakeImage
from rtmanager.operations import executor as executor_module
from rtmanager.operations import troubles as troubles_module
from rtmanager.operations.completions import CompletionNotifier
from rtmanager.operations.executor import MAX_RETRY_DELAYS, PULL_AWAITED, RETRY_DELAY_S, Executor
from rtmanager.operations.runner import DEFECT_TRIES, OperationRunner
from rtmanager.operations.wake import Wake
from rtmanager.ports.store import ClaimLost, OperationQueue, OperationResult
from rtmanager.tests.making import IMAGE, IMAGE_2, job, record, request, start_fields, stop_fields
from rtmanager.tests.operating import PATIENCE_S, World, WorldTestCase, wait_until

START, STOP = Stream.START_JOBS, Stream.STOP_JOBS


class Instance:
    """One instance's executor, stepped by the test."""

    def __init__(self, world: World, owner: int = 1, slots: int = 8, operator: OperationRunner | None = None) -> None:
        self._world = world
        self.completions = CompletionNotifier()
        self.messages_due = Wake()
        self.queue: OperationQueue = world.store.queue(owner)
        self.executor = Executor(
            self.queue,
            operator or world.operator,
            self.completions,
            slots=slots,
            wake=Wake(),
            messages_due=self.messages_due,
            logger=world.captured.logger,
        )

    def work(self) -> None:
        """Claim and complete until nothing is due."""
        claims = -1
        wait_until(self._rests, "the end of what runs")
        while claims != (claims := self._claims()):
            self.executor.step()
            wait_until(self._rests, "the end of what runs")

    def once(self) -> None:
        """Claim once, and wait for the completions."""
        self.executor.step()
        wait_until(self._rests, "the end of what runs")

    def _rests(self) -> bool:
        self.executor.resume()
        return not self.executor.live()

    def _claims(self) -> int:
        return sum(row.generation for row in self._world.store.operations.values())

    def close(self) -> None:
        for gate in self._world.runtime.gates.values():
            gate.set()
        self.executor.stop(PATIENCE_S)
        self.executor.join()


class ExecutorTestCase(WorldTestCase):
    def setUp(self) -> None:
        super().setUp()
        pause = mock.patch.object(executor_module, "STORE_PAUSE_S", 0.001)
        pause.start()
        self.addCleanup(pause.stop)
        self.one = self.instance()

    def instance(self, owner: int = 1, slots: int = 8, operator: OperationRunner | None = None) -> Instance:
        made = Instance(self.world, owner, slots, operator)
        self.addCleanup(made.close)
        return made

    def accept(self, *jobs: object) -> None:
        with self.world.store.inbox.lock() as lock:
            assert lock is not None
            lock.accept(jobs)  # type: ignore[arg-type]

    def states(self) -> list[str]:
        return [row.state for row in self.world.store.operations.values()]

    @contextmanager
    def at_finish(self, act: object, times: int = 1) -> Iterator[None]:
        """Call `act` in the store just before a completion is written."""
        left = [times]

        def hook(name: str) -> None:
            if name == "finish" and left[0]:
                left[0] -= 1
                act()  # type: ignore[operator]

        self.world.store.trouble.before = hook
        try:
            yield
        finally:
            self.world.store.trouble.before = None
        self.assertEqual(left, [0])


class AtSightTest(ExecutorTestCase):
    """Operations that the record alone decides."""

    def setUp(self) -> None:
        super().setUp()
        self.world.bring(Status.RUNNING, "g1")
        self.world.bring(Status.STOPPED, "g2")
        for wanted in (request("g1"), request("g2", OpKind.STOP), request("g3", OpKind.STOP), request("g4")):
            self.one.queue.submit(wanted)

    def finishes(self) -> list[str]:
        names: list[str] = []
        self.world.store.trouble.before = names.append
        self.one.work()
        return [name for name in names if name.startswith("finish")]

    def test_they_end_together_and_what_needs_a_container_on_its_own(self) -> None:
        self.assertEqual(self.finishes(), ["finish_together", "finish"])
        ends = [(row.game_id, row.error_code) for row in self.world.store.log]
        together = [("g1", ErrorCode.REPLAY_NO_OP), ("g2", ErrorCode.REPLAY_NO_OP), ("g3", ErrorCode.NOT_FOUND)]
        self.assertEqual(ends, [*together, ("g4", None)])

    def test_the_next_one_of_a_game_is_claimed_without_a_pause(self) -> None:
        self.assertTrue(self.one.executor.step(), "a game's next job may be due now")
        self.assertFalse(self.one.executor.step())

    def test_they_are_live_while_their_end_is_written(self) -> None:
        live: list[tuple[str, int]] = []
        self.world.store.trouble.before = lambda name: live.append((name, len(self.one.executor.live())))
        self.one.executor.step()
        self.assertIn(("finish_together", 4), live)
        wait_until(lambda: not self.one.executor.live(), "the end of what runs")

    def test_their_callers_are_notified(self) -> None:
        self.one.work()
        verdicts = [self.one.completions.wait(row, 0) for row in list(self.world.store.operations)[-4:]]
        outcomes = [verdict and verdict.outcome for verdict in verdicts]
        self.assertEqual(outcomes, [Outcome.SUCCESS, Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS])

    def test_each_ends_alone_when_the_store_will_not_have_them_together(self) -> None:
        self.world.store.refuse_endings(1)
        self.assertEqual(self.finishes().count("finish"), 4)
        self.assertEqual(set(self.states()), {"done"})


class ParallelTest(ExecutorTestCase):
    def test_several_games_are_worked_on_at_once(self) -> None:
        for game_id in ("g1", "g2", "g3"):
            self.one.queue.submit(request(game_id))
        with self.world.docker.holding("launch") as held:
            self.one.executor.step()
            held.wait_for(3)
            self.assertEqual({o.game_id for o in self.one.executor.live()}, {"g1", "g2", "g3"})
        self.one.work()
        self.assertEqual(self.states(), ["done"] * 3)

    def test_no_more_is_claimed_than_there_are_slots(self) -> None:
        two = self.instance(2, slots=4)
        for n in range(5):
            self.one.queue.submit(request(f"g{n}"))
        with self.world.docker.holding("launch") as held:
            two.executor.step()
            held.wait_for(3)
            two.executor.step()
            self.assertEqual(self.states(), ["running"] * 3 + ["due"] * 2)
        two.work()
        self.assertEqual(self.states(), ["done"] * 5)

    def test_starts_that_wait_for_an_image_leave_room_for_a_stop(self) -> None:
        self.world.bring(Status.RUNNING, "z")
        two = self.instance(2, slots=4)
        for n in range(5):
            self.one.queue.submit(request(f"g{n}"))
        with self.world.docker.holding("launch") as held:
            two.executor.step()
            held.wait_for(3)
            self.accept(job(STOP, 9, stop_fields("z")))
            two.executor.step()
            wait_until(lambda: len(two.executor.live()) == 3, "the end of the stop")
            self.assertEqual(self.states()[-1], "done")
        two.work()

    def test_a_stuck_game_delays_no_other(self) -> None:
        self.one.queue.submit(request("g1"))
        with self.world.docker.holding("launch", "g1") as held:
            self.one.executor.step()
            held.wait_for(1)
            self.accept(job(START, 1, start_fields("g2")), job(STOP, 2, stop_fields("g2")))
            for _ in range(2):
                self.one.executor.step()
                wait_until(lambda: len(self.one.executor.live()) == 1)
            self.assertEqual(self.states(), ["running", "done", "done"])

    def test_one_game_is_worked_on_in_order(self) -> None:
        self.accept(job(STOP, 2), job(START, 1), job(START, 3), job(STOP, 4), job(STOP, 5))
        self.one.work()
        self.assertEqual(
            self.world.results(),
            [("success", ""), ("success", ""), ("success", ""), ("success", ""), ("success", "replay_no_op")],
        )
        self.assertEqual([row.kind for row in self.world.store.log], [OpKind.START, OpKind.STOP] * 2 + [OpKind.STOP])

    def test_an_end_is_announced_and_notifies_the_relay(self) -> None:
        operation_id = self.one.queue.submit(request("g1"))
        self.one.work()
        self.assertEqual(
            self.one.completions.wait(operation_id, PATIENCE_S), OperationResult(Outcome.SUCCESS, None, "")
        )
        self.assertTrue(self.one.messages_due._event.is_set())


class DependencyTest(ExecutorTestCase):
    """Docker or PostgreSQL does not answer."""

    def test_a_job_that_found_docker_away_is_due_again_a_little_later_and_then_done(self) -> None:
        self.accept(job(START, 1), job(STOP, 2))
        self.world.docker.available = False
        self.one.work()
        self.assertEqual((self.states(), self.world.results()), (["due", "due"], []))
        self.assertIsNone(self.world.record())
        self.world.docker.available = True
        self.one.work()
        self.assertEqual(self.states(), ["due", "due"])
        self.world.clock.advance(RETRY_DELAY_S)
        self.one.work()
        self.assertEqual(self.world.results(), [("success", ""), ("success", "")])

    def test_a_call_that_found_docker_away_is_answered_and_over(self) -> None:
        operation_id = self.one.queue.submit(request("g1"))
        self.world.docker.available = False
        self.one.work()
        verdict = self.one.completions.wait(operation_id, PATIENCE_S)
        assert verdict is not None
        self.assertIs(verdict.error_code, ErrorCode.SERVICE_UNAVAILABLE)
        self.assertEqual(self.world.rows(), [("start", "failure", "service_unavailable")])

    def test_a_call_that_is_half_done_is_put_off_and_finished(self) -> None:
        self.world.bring(Status.RUNNING)
        operation_id = self.one.queue.submit(request("g1", OpKind.RESTART))
        self.world.runtime.raises["promote"] = Unavailable("docker", "away")
        self.one.work()
        with self.assertRaises(Unavailable) as caught:
            self.one.completions.wait(operation_id, PATIENCE_S)
        self.assertIn(f"operation {operation_id}", str(caught.exception))
        self.assertEqual(self.states()[-1], "due")
        self.world.runtime.raises.clear()
        self.world.clock.advance(RETRY_DELAY_S)
        self.one.work()
        self.assertEqual([row[0] for row in self.world.rows()], ["stop", "start", "restart"])
        self.assert_consistent()

    def test_a_call_that_is_half_done_is_not_given_up_when_the_next_try_cannot_even_begin(self) -> None:
        self.world.bring(Status.RUNNING)
        self.one.queue.submit(request("g1", OpKind.RESTART))
        self.world.runtime.raises["promote"] = Unavailable("docker", "away")
        self.one.work()
        self.world.docker.available = False
        for tries in range(2, 4):
            self.world.clock.advance(RETRY_DELAY_S * MAX_RETRY_DELAYS)
            self.one.work()
            self.assertEqual((self.states()[-1], len(self.world.rows())), ("due", 0), tries)
        self.world.docker.available = True
        self.world.runtime.raises.clear()
        self.world.clock.advance(RETRY_DELAY_S * MAX_RETRY_DELAYS)
        self.one.work()
        self.assertEqual([row[:2] for row in self.world.rows()][-1], ("restart", "success"))
        self.assert_consistent()

    def test_a_call_of_an_instance_that_died_is_not_given_up_since_half_of_it_may_be_done(self) -> None:
        self.world.bring(Status.RUNNING)
        self.one.queue.submit(request("g1", OpKind.RESTART))
        [claimed] = self.one.queue.claim(1)
        self.one.queue.hand_back()
        self.world.docker.available = False
        self.one.work()
        self.assertEqual((self.states()[-1], self.world.rows()), ("due", []))
        self.assertEqual(claimed.generation, 1)

    def test_a_call_whose_launch_lost_its_answer_leaves_no_container_without_a_record(self) -> None:
        for before in (None, Status.STOPPED, Status.REMOVED):
            with self.subTest(before=before):
                self.world = World()
                one = self.instance()
                self.world.bring(before)
                one.queue.submit(request("g1"))
                self.world.docker.lose_answer("launch")
                one.work()
                self.world.clock.advance(RETRY_DELAY_S)
                one.work()
                self.assertEqual(self.states()[-1], "done")
                self.assert_consistent()

    def test_an_end_that_postgres_cannot_take_now_is_offered_until_it_does(self) -> None:
        self.accept(job(START, 1))
        with self.at_finish(mock.Mock(side_effect=Unavailable("postgres", "away")), times=3):
            self.one.work()
        self.assertEqual(self.world.results(), [("success", "")])
        self.assertEqual(len(self.world.docker.called("launch")), 1)
        self.assert_consistent()

    def test_a_wait_for_postgres_that_lasts_is_logged_once_and_is_a_problem_until_it_is_over(self) -> None:
        self.accept(job(START, 1))
        problems: list[str] = []

        def refuse() -> None:
            problems.append(self.one.executor.store_waits.problem())
            error = Unavailable("postgres", "statement timeout")
            error.remedy = "find the lock"
            raise error

        with mock.patch.object(troubles_module, "WAITS_REPORTED_AFTER_S", 0.0), self.at_finish(refuse, times=5):
            self.one.work()
            self.assertEqual(self.one.executor.store_waits.problem(), "")
        self.assertEqual(problems[0], "")
        self.assertRegex(problems[-1], "^operation 1 has waited for 0 s: statement timeout; remedy: find the lock$")
        logged = [each.getMessage() for each in self.world.captured.records if "wait" in each.getMessage()]
        self.assertEqual(logged, ["operations wait for postgres", "operations wait for postgres no more"])

    def test_a_record_that_cannot_be_read_for_long_is_a_problem(self) -> None:
        self.accept(job(START, 1))
        problems: list[str] = []
        self.world.store.trouble.before = lambda _: problems.append(self.one.executor.store_waits.problem())
        run, away = self.world.operator.run, [Unavailable("postgres", "away") for _ in range(4)]

        def fail_first(*given: Any, **named: Any) -> Completion:
            if away:
                raise away.pop()
            return run(*given, **named)

        with (
            mock.patch.object(troubles_module, "WAITS_REPORTED_AFTER_S", 0.0),
            mock.patch.object(self.world.operator, "run", fail_first),
        ):
            self.one.work()
        self.assertIn("operation 1 has waited for 0 s: away", problems)
        self.assertEqual(self.one.executor.store_waits.problem(), "")

    def test_an_end_whose_answer_is_lost_is_written_once(self) -> None:
        self.accept(job(START, 1))
        with self.at_finish(lambda: self.world.store.trouble._faults.update({self.world.store.trouble.calls: True})):
            self.one.work()
        self.assertEqual((self.states(), self.world.results()), (["done"], [("success", "")]))
        self.assertEqual(len(self.world.store.log), 1)
        self.assert_consistent()

    def test_a_record_that_cannot_be_read_now_is_read_again(self) -> None:
        self.accept(job(START, 1))
        self.world.store.trouble.fail_call(2)  # claim, then get
        self.one.work()
        self.assertEqual(self.world.results(), [("success", "")])

    def test_a_job_that_finds_both_docker_and_postgres_away_is_not_lost(self) -> None:
        self.accept(job(START, 1))
        self.world.docker.available = False
        self.world.store.trouble.fail_call(3)  # claim, get, then defer
        self.one.work()
        self.assertEqual(self.states(), ["due"])
        self.world.docker.available = True
        self.world.clock.advance(RETRY_DELAY_S)
        self.one.work()
        self.assertEqual(self.world.results(), [("success", "")])


class OwnershipTest(ExecutorTestCase):
    """Changes by another claim or another writer."""

    def test_an_end_that_another_claim_owns_by_now_is_dropped(self) -> None:
        self.accept(job(START, 1))
        with self.at_finish(self.steal):
            self.one.once()
        self.assertEqual(self.world.results(), [])
        self.instance(2).work()
        self.assertEqual(self.world.results(), [("success", "")])
        self.assertEqual(len(self.world.docker.containers), 1)
        self.assert_consistent()

    def steal(self) -> None:
        self.world.clock.advance(self.world.store.lease_s + 1)
        self.world.store.trouble.before = None
        self.world.store.queue(2).reclaim_orphans()

    def test_a_container_launched_after_another_instance_took_over_and_stopped_the_game_does_not_stay(self) -> None:
        """An instance is frozen during a start that others have long completed (I3, I4)."""
        arrived, opens = self.world.runtime.gate("launch")
        two = self.instance(2, operator=self.world.make_operator(self.world.docker))
        self.accept(job(START, 1))
        self.one.executor.step()
        self.assertTrue(arrived.wait(PATIENCE_S))
        self.world.clock.advance(self.world.store.lease_s + 1)
        two.queue.reclaim_orphans()
        self.accept(job(STOP, 2))
        two.work()
        self.assertEqual(self.world.results(), [("success", ""), ("success", "")])
        opens.set()
        wait_until(lambda: not self.one.executor.live())
        self.assertIs(self.world.known().status, Status.STOPPED)
        self.assertEqual(self.world.running(), [])

    def test_an_instance_that_resumes_after_its_operation_ended_touches_no_container_that_came_since(self) -> None:
        """It freezes before it reads the record, and reads a later one after the thaw (I7)."""
        for kind, before in (
            (OpKind.STOP, Status.RUNNING),
            (OpKind.RESTART, Status.RUNNING),
            (OpKind.PATCH, Status.RUNNING),
            (OpKind.CLEANUP, Status.STOPPED),
            (OpKind.START, Status.STOPPED),
        ):
            with self.subTest(kind):
                self.world = World()
                late = self.world.claim(request("g1", kind, image_ref=IMAGE_2 if kind is OpKind.PATCH else IMAGE))
                self.world.clock.advance(self.world.store.lease_s + 1)
                self.world.store.queue(2).reclaim_orphans()
                [taken_over] = self.world.store.queue(2).claim(1)
                self.world.store.queue(2).finish(taken_over, self.world.operator.run(taken_over))
                self.world.bring(before)
                containers = self.world.docker.containers
                with self.assertRaises(ClaimLost):
                    self.world.operator.run(late)
                self.assertEqual(self.world.docker.containers, containers)
                self.assert_consistent()

    def test_a_record_that_changed_meanwhile_is_decided_on_again(self) -> None:
        operation_id = self.one.queue.submit(request("g1"))

        def adopt() -> None:
            (container,) = self.world.docker.containers
            self.world.store.put_record(record("g1", current_container_id=container.container_id))

        with self.at_finish(adopt):
            self.one.work()
        verdict = self.one.queue.verdict(operation_id)
        assert verdict is not None
        self.assertEqual((verdict.outcome, verdict.error_code), (Outcome.SUCCESS, ErrorCode.REPLAY_NO_OP))
        self.assert_consistent()

    def test_a_record_that_another_writer_gave_another_container_is_decided_on_again(self) -> None:
        self.world.bring(Status.RUNNING)
        self.one.queue.submit(request("g1", OpKind.STOP))
        removed = replace(self.world.known(), status=Status.REMOVED, current_container_id=None)
        with self.at_finish(lambda: self.world.store.put_record(removed)):
            self.one.work()
        self.assertEqual(self.world.rows(), [("stop", "success", "replay_no_op")])
        self.assertIs(self.world.known().status, Status.REMOVED)


class RefusedTest(ExecutorTestCase):
    """The store rejects a completion permanently."""

    def test_a_started_container_whose_record_is_refused_is_taken_away_again(self) -> None:
        for before in (None, Status.STOPPED, Status.REMOVED):
            with self.subTest(before=before):
                self.world = World()
                one = self.instance()
                self.world.bring(before)
                self.accept(job(START, 1))
                self.world.store.refuse_endings(1)
                one.work()
                self.assertEqual(self.world.results(), [("failure", "container_start_failed")])
                self.assertEqual(self.world.rows(), [("start", "failure", "container_start_failed")])
                self.assertEqual(len(self.world.sent(Stream.NOTIFICATION_INTENTS)), 1)
                self.assertEqual(self.world.docker.containers, [])
                self.assert_consistent()

    def test_a_restart_whose_record_is_refused_leaves_a_stopped_game(self) -> None:
        self.world.bring(Status.RUNNING)
        self.one.queue.submit(request("g1", OpKind.RESTART))
        self.world.store.refuse_endings(1)
        self.one.work()
        self.assertIs(self.world.known().status, Status.STOPPED)
        self.assert_consistent()

    def test_another_end_that_is_refused_is_an_internal_error(self) -> None:
        self.accept(job(STOP, 1))
        self.world.store.refuse_endings(2)  # in a batch, and alone
        self.one.work()
        self.assertEqual(self.world.results(), [("failure", "internal_error")])

    def test_each_refused_end_is_counted_though_a_plainer_one_is_taken_and_each_other_end_too(self) -> None:
        counted: list[str] = []
        executor = self.one.executor
        with (
            mock.patch.object(executor, "_refused", lambda game_id, _: counted.append(game_id)),
            mock.patch.object(executor, "_taken", lambda: counted.append("taken")),
        ):
            for number, kind in enumerate((START, STOP)):
                self.accept(job(kind, number + 1))
                self.world.store.refuse_endings(2 if kind is STOP else 1)  # a stop in a batch, and alone
                self.one.work()
                self.assertEqual(counted, ["g1"] * (number + 1))
            self.accept(job(STOP, 3))  # completed in the claim step
            self.one.work()
            self.accept(job(START, 4))
            self.one.work()
        self.assertEqual(counted, ["g1", "g1", "taken", "taken"])

    def test_an_end_that_is_refused_again_and_again_becomes_plainer_and_then_waits(self) -> None:
        for refusals in range(2, 4):
            with self.subTest(refusals):
                self.world = World()
                one = self.instance()
                self.accept(job(START, 1))
                self.world.store.refuse_endings(refusals)
                one.work()
                self.assertEqual(self.world.results(), [("failure", "container_start_failed")])
                self.assert_consistent()
        self.world = World()
        one = self.instance()
        self.accept(job(START, 1))
        self.world.store.refuse_endings(4)
        one.once()
        self.assertEqual((self.states(), self.world.results()), (["due"], []))
        self.world.clock.advance(10)
        one.work()
        self.assertEqual(self.world.results(), [("success", "")])
        self.assert_consistent()

    def test_without_a_thread_to_be_had_an_operation_is_not_held_as_if_it_were_worked_on(self) -> None:
        self.accept(job(START, 1))
        no_thread = RuntimeError("can't start new thread")
        with mock.patch.object(threading.Thread, "start", side_effect=no_thread):
            self.one.executor.step()
        self.assertEqual(list(self.one.executor.live()), [])
        self.world.clock.advance(self.world.store.lease_s + 1)
        self.one.queue.reclaim_orphans()
        self.one.work()
        self.assertEqual(self.world.results(), [("success", "")])

    def test_a_container_that_cannot_be_taken_away_now_is_not_left_behind(self) -> None:
        for source in ("job", "call"):
            with self.subTest(source):
                self.world = World()
                one = self.instance()
                if source == "job":
                    self.accept(job(START, 1))
                else:
                    one.queue.submit(request("g1"))
                self.world.store.refuse_endings(1)
                with self.at_finish(lambda: setattr(self.world.docker, "available", False)):
                    one.work()
                self.world.docker.available = True
                self.world.clock.advance(RETRY_DELAY_S)
                one.work()
                self.assertEqual(self.states(), ["done"])
                self.assert_consistent()


class DefectTest(ExecutorTestCase):
    def test_an_unforeseen_error_is_an_internal_error_with_its_traceback_in_the_log(self) -> None:
        self.world.runtime.raises["network_exists"] = ZeroDivisionError("secret detail")
        self.accept(job(START, 1))
        for _ in range(DEFECT_TRIES):
            self.one.work()
            self.world.clock.advance(10)
        self.assertEqual(self.world.results(), [("failure", "internal_error")])
        (result,) = self.world.sent(Stream.JOB_RESULTS)
        self.assertNotIn("secret detail", result.fields["error_message"])
        logged = [r for r in self.world.captured.records if r.exc_info]
        self.assertEqual([r.exc_info[0] for r in logged if r.exc_info], [ZeroDivisionError] * DEFECT_TRIES)

    def test_text_that_cannot_be_stored_does_not_keep_a_job_without_its_answer(self) -> None:
        for text in ("exec: \0", "/games/\udcff"):
            with self.subTest(text):
                self.world = World()
                one = self.instance()
                self.world.docker.fail_launch("g1", text)
                self.accept(job(START, 1))
                one.work()
                self.assertEqual(self.world.results(), [("failure", "container_start_failed")])


class StopTest(ExecutorTestCase):
    """Shutdown of the instance."""

    def test_what_runs_may_end_within_its_time(self) -> None:
        self.accept(job(START, 1))
        with self.world.docker.holding("launch") as held:
            self.one.executor.step()
            held.wait_for(1)
            stopper = threading.Thread(target=self.one.executor.stop, args=(PATIENCE_S,))
            stopper.start()
        stopper.join()
        self.assertEqual((self.states(), self.world.results()), (["done"], [("success", "")]))

    def test_nothing_is_claimed_any_more(self) -> None:
        self.one.executor.stop(0)
        self.accept(job(START, 1))
        self.assertFalse(self.one.executor.step())
        self.assertEqual(self.states(), ["due"])

    def test_what_takes_longer_is_handed_back_and_ended_by_another_instance_once(self) -> None:
        self.accept(job(START, 1))
        arrived, opens = self.world.runtime.gate("launch")
        self.one.executor.step()
        self.assertTrue(arrived.wait(PATIENCE_S))
        self.one.executor.stop(0)
        with mock.patch.object(executor_module, "JOIN_S", 0.01):
            self.one.executor.join()
        self.assertEqual(self.states(), ["due"])
        self.instance(2, operator=self.world.make_operator(self.world.docker)).work()
        opens.set()
        wait_until(lambda: not self.one.executor.live(), "the end of the thread")
        self.assertEqual(self.world.results(), [("success", "")])
        self.assertEqual(len(self.world.docker.containers), 1)
        self.assert_consistent()

    def test_an_operation_that_finds_docker_closed_by_the_stop_goes_on_elsewhere(self) -> None:
        operation_id = self.one.queue.submit(request("g1"))
        arrived, opens = self.world.runtime.gate("network_exists")
        self.one.executor.step()
        self.assertTrue(arrived.wait(PATIENCE_S))
        stopper = threading.Thread(target=self.one.executor.stop, args=(PATIENCE_S,))
        stopper.start()
        wait_until(self.one.executor._stopping.is_set)
        self.world.docker.available = False
        opens.set()
        stopper.join()
        self.one.executor.join()
        self.assertEqual(self.states(), ["due"])
        with self.assertRaises(Unavailable):
            self.one.completions.wait(operation_id, 0)
        self.assertIsNone(self.one.queue.verdict(operation_id))

    def test_a_stop_does_not_wait_for_postgres(self) -> None:
        self.accept(job(START, 1))

        def gone() -> None:
            self.world.store.trouble.available = False

        with self.at_finish(gone):
            self.one.executor.step()
            wait_until(lambda: not self.world.store.trouble.available)
            self.one.executor.stop(PATIENCE_S)
            self.one.executor.join()
        self.world.store.trouble.available = True
        self.assertEqual(self.states(), ["running"])
        self.world.clock.advance(self.world.store.lease_s + 1)
        two = self.instance(2)
        two.queue.reclaim_orphans()
        two.work()
        self.assertEqual(self.world.results(), [("success", "")])
        self.assert_consistent()


class ImagesTest(ExecutorTestCase):
    def test_games_that_wait_for_one_image_share_one_pull(self) -> None:
        self.world.docker.present.clear()
        self.world.docker.registry[IMAGE] = FakeImage()
        for n in range(4):
            self.one.queue.submit(request(f"g{n}"))
        with self.world.docker.holding("pull", IMAGE) as held:
            self.one.executor.step()
            held.wait_for(1)
            wait_until(lambda: len(self.world.docker.called("request_image")) == 4)
        self.one.work()
        self.assertEqual(len(self.world.docker.called("pull")), 1)
        self.assertEqual(len(self.world.running()), 4)

    def test_one_missing_image_is_one_failure(self) -> None:
        self.accept(job(START, 1, start_fields("g1", image_ref="nobody/has:1.0.0")), job(START, 2, start_fields("g2")))
        self.one.work()
        self.assertEqual(sorted(self.world.results()), [("failure", "image_pull_failed"), ("success", "")])


class WaitingForPullsTest(ExecutorTestCase):
    """An operation that waits for a pull holds no thread and no slot, and resumes where it stopped."""

    def setUp(self) -> None:
        super().setUp()
        self.world.docker.registry |= {f"far/game:{n}": FakeImage() for n in range(10)}
        self.held = self.enterContext(self.world.docker.holding("pull"))

    def submit_far(self, *games: str) -> None:
        """Submit starts of games whose images must be pulled, and step until all of them wait."""
        for n, game_id in enumerate(games):
            self.one.queue.submit(request(game_id, image_ref=f"far/game:{n}"))
        while len(self.world.docker.called("pull")) < len(games):
            self.one.executor.step()
        wait_until(lambda: len(self.one.executor._waiting) == len(games), "all waiting")

    def test_others_work_in_the_slots_meanwhile_and_all_end(self) -> None:
        self.one = self.instance(slots=2)
        self.submit_far("g1", "g2", "g3", "g4")
        self.one.queue.submit(request("g9"))
        self.one.executor.step()
        wait_until(lambda: len(self.world.running()) == 1, "the start beside them")
        self.assertEqual(len(self.one.executor.live()), 4)
        self.held.release()
        self.one.work()
        self.assertEqual(len(self.world.running()), 5)
        self.assert_consistent()

    def test_what_can_go_on_takes_no_more_slots_than_there_are(self) -> None:
        self.one = self.instance(slots=2)
        self.submit_far("g1", "g2", "g3", "g4")
        arrived, gate = self.world.runtime.gate("launch")
        self.held.release()
        self.one.executor.resume()
        arrived.wait(PATIENCE_S)
        self.one.executor.resume()
        self.assertEqual(len(self.one.executor._live), 1)
        gate.set()
        self.one.work()
        self.assertEqual(len(self.world.running()), 4)

    def test_it_began_when_it_began_and_queries_the_lobby_once(self) -> None:
        began = self.world.clock()
        self.submit_far("g1")
        self.world.clock.advance(100)
        self.held.release()
        self.one.work()
        self.assertEqual(self.world.store.log[-1].started_at, began)
        self.assertEqual(self.world.lobby_queries, ["g1"])
        self.assertEqual(len(self.world.docker.called("pull")), 1)

    def test_a_pull_that_fails_is_one_answer(self) -> None:
        self.accept(job(START, 1, start_fields("g1", image_ref="nobody/has:1.0.0")))
        self.one.executor.step()
        wait_until(lambda: len(self.one.executor._waiting) == 1, "it waits")
        self.held.release()
        self.one.work()
        self.assertEqual(self.world.results(), [("failure", "image_pull_failed")])
        self.assertEqual(self.one.executor.live(), [])

    def test_a_start_after_an_outage_gives_up_its_place_and_any_other_writes_nothing(self) -> None:
        own = restart_request("g1", "c-g1", RestartCause.OUTAGE)
        self.one.queue.submit(replace(own, image_ref="far/game:0"))
        self.one.queue.submit(request("g2", image_ref="far/game:1"))
        self.one.executor.step()
        wait_until(lambda: len(self.one.executor._waiting) == 2, "both waiting")
        reasons = [row.deferred_why for row in self.world.store.operations.values()]
        self.assertEqual(reasons, [PULL_AWAITED, None])
        self.held.release()
        self.one.work()
        self.assertEqual(len(self.world.running()), 2)

    def test_a_later_stop_of_the_game_waits_for_its_turn(self) -> None:
        self.accept(job(START, 1, start_fields("g1", image_ref="far/game:1")), job(STOP, 2, stop_fields("g1")))
        for _ in range(3):
            self.one.executor.step()
        wait_until(lambda: len(self.one.executor._waiting) == 1, "it waits")
        self.assertEqual(self.world.results(), [])
        self.held.release()
        self.one.work()
        self.assertEqual(self.world.results(), [("success", "")] * 2)
        self.assertEqual(self.world.known().status, Status.STOPPED)

    def test_what_waits_keeps_its_claim(self) -> None:
        self.submit_far("g1", "g2")
        self.assertEqual(self.one.executor.live_ids(), {row.operation_id for row in self.one.executor.live()})
        self.assertEqual(len(self.one.executor.live_ids()), 2)
        self.assertTrue(self.one.executor.works_on("g1"))
        self.world.clock.advance(self.world.store.lease_s - 1)
        self.assertEqual(len(self.one.queue.heartbeat(self.one.executor.live())), 2)
        self.world.clock.advance(2)
        self.assertEqual(list(self.instance(2).queue.reclaim_orphans()), [])

    def test_a_stop_of_the_service_hands_it_back_and_the_next_instance_does_it(self) -> None:
        self.submit_far("g1", "g2")
        self.one.executor.stop(0.05)
        self.assertEqual(len(self.one.executor.live()), 2)
        self.one.executor.join()
        self.held.release()
        self.assertEqual(self.states(), ["due", "due"])
        self.instance(2).work()
        self.assertEqual(len(self.world.running()), 2)
        self.assert_consistent()

    def test_a_pull_that_ends_while_the_service_stops_is_used(self) -> None:
        self.submit_far("g1", "g2")
        stopping = threading.Thread(target=self.one.executor.stop, args=(PATIENCE_S,))
        stopping.start()
        self.held.release()
        stopping.join(PATIENCE_S)
        self.assertEqual(len(self.world.running()), 2)
        self.assertEqual(self.states(), ["done", "done"])

    def test_beyond_the_limit_an_operation_is_due_again_later(self) -> None:
        with mock.patch.object(executor_module, "WAITING_LIMIT", 2):
            self.submit_far("g1", "g2")
            self.one.queue.submit(request("g3", image_ref="far/game:3"))
            self.one.executor.step()
            wait_until(lambda: self.states().count("due") == 1, "it is put off")
        self.held.release()
        self.one.work()
        self.assertEqual(len(self.world.running()), 2)
        self.world.clock.advance(executor_module.WAITING_DELAY_S)
        self.one.work()
        self.assertEqual(len(self.world.running()), 3)

    def test_a_claim_that_was_lost_meanwhile_starts_nothing(self) -> None:
        self.submit_far("g1")
        self.world.clock.advance(self.world.store.lease_s + 1)
        two = self.instance(2)
        two.queue.reclaim_orphans()
        two.executor.step()
        self.held.release()
        two.work()
        self.one.work()
        self.assertEqual(len(self.world.running()), 1)
        self.assert_consistent()
