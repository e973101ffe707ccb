"""The last exit of a container that an operation stopped: who requested it, and what stays unchanged."""

from __future__ import annotations

import itertools
from datetime import timedelta

from rtmanager.domain.container import ContainerState
from rtmanager.domain.errors import ErrorCode, TemporaryAnswer, Unavailable
from rtmanager.domain.operation import Operation, OpKind, Outcome, Request
from rtmanager.domain.outage import UNKNOWN_EXIT_CODE, LastExit, RequestedBy, RuntimeRun
from rtmanager.domain.record import Status
from rtmanager.fakes import FakeImage
from rtmanager.fakes.runtime import Meant
from rtmanager.ports.runtime import ContainerNotFound
from rtmanager.tests.making import IMAGE, IMAGE_2, request
from rtmanager.tests.operating import World, WorldTestCase

#: The operations that end a game's running container.
ENDING = (OpKind.STOP, OpKind.RESTART, OpKind.PATCH)
CRASH = LastExit("of a crash", 139, False, World().clock.moment, "panic")


def request_of(kind: OpKind) -> Request:
    return request(kind=kind, **({"image_ref": IMAGE_2} if kind is OpKind.PATCH else {}))


class LastExitTest(WorldTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def begin(self, image: FakeImage | None = None) -> None:
        """A new world with one game, which runs."""
        self.world = World()
        self.world.docker.present[IMAGE] = image or FakeImage()
        self.world.bring(Status.RUNNING)
        self.container_id = self.world.known().current_container_id or ""

    def last_exit(self) -> LastExit | None:
        return self.world.store.last_exits.get("g1")

    def ended_by(self) -> RequestedBy:
        last_exit = self.last_exit()
        assert last_exit is not None
        self.assertEqual(last_exit.container_id, self.container_id)
        return last_exit.requested_by

    def exit_with(self, **changes: object) -> None:
        """Change the containers of processes that end from now on."""
        ended = self.world.docker.exit

        def exit_with(container_id: str, exit_code: int, oom_killed: bool = False) -> None:
            ended(container_id, exit_code, oom_killed)
            self.world.docker.alter(container_id, **changes)

        self.world.docker.exit = exit_with  # type: ignore[method-assign]


class RequestedByManagerTest(LastExitTest):
    def test_a_stop_a_restart_and_a_patch_of_a_game_that_lives_are_requests_of_the_manager(self) -> None:
        for kind, stubborn in itertools.product(ENDING, (False, True)):
            with self.subTest(kind=kind, stubborn=stubborn):
                self.begin(FakeImage(ignores_signals=stubborn))
                self.world.docker.logs[self.container_id] = "not read"
                self.world.do(request_of(kind))
                now = self.world.clock()
                expected = LastExit(
                    self.container_id, 137 if stubborn else 143, False, now, requested_by=RequestedBy.MANAGER
                )
                self.assertEqual(self.last_exit(), expected)
                self.assertEqual(self.world.docker.called("log_tail"), [])

    def test_memory_is_never_the_cause_of_it(self) -> None:
        self.begin(FakeImage(ignores_signals=True))
        self.exit_with(oom_killed=True)  # the flag also stays from a child that ran out of memory earlier
        self.world.do(request_of(OpKind.STOP))
        self.assertTrue(self.world.docker.inspect(self.container_id).oom_killed)
        last_exit = self.last_exit()
        assert last_exit is not None
        self.assertEqual((last_exit.exit_code, last_exit.oom), (137, False))

    def test_it_ended_when_the_runtime_reports_and_never_later_than_now(self) -> None:
        for ahead_s in (-5, 5):
            with self.subTest(ahead_s=ahead_s):
                self.begin()
                finished_at = self.world.clock() + timedelta(seconds=1 + ahead_s)
                self.world.docker.alter(self.container_id, finished_at=finished_at)
                self.world.do(request_of(OpKind.STOP))
                last_exit = self.last_exit()
                assert last_exit is not None
                self.assertEqual(last_exit.exited_at, min(finished_at, self.world.clock()))

    def test_a_code_that_cannot_be_read_is_the_unknown_one(self) -> None:
        self.exit_with(exit_code=None)
        self.world.do(request_of(OpKind.STOP))
        last_exit = self.last_exit()
        assert last_exit is not None
        self.assertEqual(last_exit.exit_code, UNKNOWN_EXIT_CODE)

    def test_a_stopped_game_that_a_person_had_started_is_ended_by_the_start_or_restart_that_replaces_it(self) -> None:
        for kind in (OpKind.START, OpKind.RESTART, OpKind.PATCH):
            with self.subTest(kind=kind):
                self.begin()
                self.world.do(request_of(OpKind.STOP))
                self.world.store.last_exits["g1"] = CRASH
                self.world.docker.change(self.container_id, ContainerState.RUNNING)
                self.world.do(request_of(kind))
                self.assertIs(self.ended_by(), RequestedBy.MANAGER)

    def test_an_operation_that_fails_after_its_stop_has_ended_the_container_all_the_same(self) -> None:
        self.world.docker.fail_launch("g1", "no address left")
        completion = self.world.do(request_of(OpKind.RESTART))
        self.assertIs(completion.outcome, Outcome.FAILURE)
        self.assertIs(self.ended_by(), RequestedBy.MANAGER)


class EndedByItselfTest(LastExitTest):
    def test_a_crash_that_nobody_has_seen_before_the_operation_is_not_the_managers(self) -> None:
        for kind in ENDING:
            with self.subTest(kind=kind):
                self.begin()
                self.world.docker.exit(self.container_id, 139)
                self.world.docker.logs[self.container_id] = "panic\0"
                self.world.do(request_of(kind))
                now = self.world.clock()
                self.assertEqual(self.last_exit(), LastExit(self.container_id, 139, False, now, "panic\\x00"))

    def test_memory_explains_such_a_crash(self) -> None:
        for code, oom in ((137, True), (139, False)):
            with self.subTest(code=code):
                self.begin()
                self.world.docker.exit(self.container_id, code, oom_killed=True)
                self.world.do(request_of(OpKind.STOP))
                last_exit = self.last_exit()
                assert last_exit is not None
                self.assertEqual((last_exit.requested_by, last_exit.oom), (RequestedBy.UNKNOWN, oom))

    def test_a_log_that_cannot_be_read_is_replaced_by_the_reason_and_the_stop_succeeds(self) -> None:
        self.world.docker.exit(self.container_id, 139)
        self.world.runtime.raises["log_tail"] = Unavailable("docker", "away")
        completion = self.world.do(request_of(OpKind.STOP))
        self.assertIs(completion.outcome, Outcome.SUCCESS)
        last_exit = self.last_exit()
        assert last_exit is not None
        self.assertIn("could not be read", last_exit.log)

    def test_the_crash_of_a_stopped_game_stays_when_an_operation_finds_nothing_to_end(self) -> None:
        for kind in (OpKind.STOP, OpKind.START, OpKind.RESTART, OpKind.PATCH, OpKind.CLEANUP):
            with self.subTest(kind=kind):
                self.begin()
                self.world.do(request_of(OpKind.STOP))
                self.world.store.last_exits["g1"] = CRASH
                self.world.do(request_of(kind))
                self.assertEqual(self.last_exit(), CRASH)

    def test_an_operation_that_is_refused_leaves_the_last_exit(self) -> None:
        self.world.store.last_exits["g1"] = CRASH
        self.world.docker.networks.clear()
        for kind in (OpKind.START, OpKind.RESTART, OpKind.CLEANUP):
            self.world.do(request_of(kind))
        self.assertEqual(self.last_exit(), CRASH)


class AgainTest(LastExitTest):
    """An earlier attempt may have stopped the container."""

    def test_what_an_earlier_try_has_stopped_was_requested_by_the_manager(self) -> None:
        for kind in ENDING:
            with self.subTest(kind=kind):
                self.begin()
                operation = self.world.claim(request_of(kind))
                self.world.docker.lose_answer("stop")
                with self.assertRaises(Unavailable):
                    self.world.operator.run(operation)
                self.world.queue.defer(operation, delay_s=0, why="it crashed")
                [again] = self.world.queue.claim(1)
                self.world.queue.finish(again, self.world.operator.run(again))
                self.assertIs(self.ended_by(), RequestedBy.MANAGER)

    def test_a_second_try_of_one_claim_has_what_the_first_has_stopped(self) -> None:
        operation = self.world.claim(request_of(OpKind.STOP))
        self.world.docker.lose_answer("stop")
        with self.assertRaises(Unavailable):
            self.world.operator.run(operation)
        self.world.queue.finish(operation, self.world.operator.run(operation))
        self.assertIs(self.ended_by(), RequestedBy.MANAGER)

    def test_what_ended_while_no_try_reached_the_runtime_was_not_requested_by_the_manager(self) -> None:
        for kind, by in itertools.product(ENDING, (RequestedBy.UNKNOWN, RequestedBy.DOCKER)):
            with self.subTest(kind=kind, by=by):
                self.begin()
                again = self.put_off(request_of(kind), Unavailable("docker", "connection refused", untouched=True))
                self.world.docker.exit(self.container_id, 0)
                self.world.docker.alter(self.container_id, started_at=self.world.clock() - timedelta(seconds=1))
                if by is RequestedBy.DOCKER:
                    self.world.docker.run = RuntimeRun(self.world.clock())
                self.world.queue.finish(again, self.world.operator.run(again))
                self.assertIs(self.ended_by(), by)

    def test_a_later_try_that_does_not_reach_the_runtime_leaves_the_end_to_the_first(self) -> None:
        operation = self.put_off(request_of(OpKind.STOP), Unavailable("docker", "no answer"))
        self.world.docker.exit(self.container_id, 143)
        operation = self.put_off_again(operation, Unavailable("docker", "connection refused", untouched=True))
        self.world.queue.finish(operation, self.world.operator.run(operation))
        self.assertIs(self.ended_by(), RequestedBy.MANAGER)

    def test_a_temporary_answer_to_a_stop_may_follow_its_signal(self) -> None:
        code = ErrorCode.CONTAINER_START_FAILED
        again = self.put_off(
            request_of(OpKind.STOP), TemporaryAnswer("docker", "no exit event", answer="stop", code=code)
        )
        self.world.docker.exit(self.container_id, 143)
        self.world.queue.finish(again, self.world.operator.run(again))
        self.assertIs(self.ended_by(), RequestedBy.MANAGER)

    def put_off(self, wanted: Request, error: Unavailable) -> Operation:
        """Claim the request, let its stop fail, and claim it again."""
        return self.put_off_again(self.world.claim(wanted), error)

    def put_off_again(self, operation: Operation, error: Unavailable) -> Operation:
        self.world.runtime.raises["stop"] = error
        with self.assertRaises(Unavailable):
            self.world.operator.run(operation)
        del self.world.runtime.raises["stop"]
        self.world.queue.defer(operation, delay_s=0, why="it was put off")
        [again] = self.world.queue.claim(1)
        return again

    def test_a_restart_that_cannot_go_on_reports_what_the_earlier_try_has_stopped(self) -> None:
        operation = self.world.claim(request_of(OpKind.RESTART))
        self.world.docker.lose_answer("stop")
        with self.assertRaises(Unavailable):
            self.world.operator.run(operation)
        self.world.queue.defer(operation, delay_s=0, why="it crashed")
        self.world.docker.networks.clear()
        [again] = self.world.queue.claim(1)
        completion = self.world.operator.run(again)
        self.world.queue.finish(again, completion)
        self.assertEqual((completion.outcome, self.world.known().status), (Outcome.FAILURE, Status.STOPPED))
        self.assertIs(self.ended_by(), RequestedBy.MANAGER)


class UnreadableTest(LastExitTest):
    """The stop has happened, even when its details cannot be read."""

    def test_an_inspect_that_fails_fails_and_defers_nothing_and_is_logged(self) -> None:
        for meant in Meant:
            with self.subTest(meant=meant):
                self.begin()
                self.world.store.last_exits["g1"] = CRASH
                self.world.docker.refuse("inspect", meant)
                completion = self.world.do(request_of(OpKind.STOP))
                self.assertEqual((completion.outcome, self.world.known().status), (Outcome.SUCCESS, Status.STOPPED))
                self.assertEqual(self.last_exit(), CRASH)
                self.assertIn("how the stopped container ended cannot be read", self.world.captured.messages)

    def test_an_inspect_without_an_answer_is_no_reason_to_stop_again(self) -> None:
        self.world.runtime.raises["inspect"] = Unavailable("docker", "away")
        completion = self.world.do(request_of(OpKind.STOP))
        self.assertEqual((completion.outcome, self.last_exit()), (Outcome.SUCCESS, None))

    def test_a_container_that_is_gone_by_then_leaves_no_last_exit(self) -> None:
        self.world.runtime.raises["inspect"] = ContainerNotFound("gone")
        completion = self.world.do(request_of(OpKind.STOP))
        self.assertEqual((completion.outcome, self.world.known().status), (Outcome.SUCCESS, Status.STOPPED))
        self.assertIsNone(self.last_exit())

    def test_a_container_that_somebody_starts_at_once_has_not_ended(self) -> None:
        self.exit_with(state=ContainerState.RUNNING)
        self.world.do(request_of(OpKind.STOP))
        self.assertIsNone(self.last_exit())
