"""An operation that is repeated after a crash at any point has the same result as without the crash."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass

from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.operation import Completion, Operation, OpKind, OpSource, Outcome
from rtmanager.domain.record import Status
from rtmanager.operations.runner import PartiallyApplied
from rtmanager.tests.making import IMAGE, IMAGE_2, request
from rtmanager.tests.operating import World, WorldTestCase

CASES = [
    (OpKind.START, None),
    (OpKind.START, Status.STOPPED),
    (OpKind.START, Status.REMOVED),
    (OpKind.STOP, Status.RUNNING),
    (OpKind.RESTART, Status.RUNNING),
    (OpKind.RESTART, Status.STOPPED),
    (OpKind.PATCH, Status.RUNNING),
    (OpKind.PATCH, Status.STOPPED),
    (OpKind.CLEANUP, Status.STOPPED),
]


@dataclass(frozen=True)
class End:
    """The result of an operation, without ids and times."""

    status: Status | None
    image: str | None
    has_container: bool
    containers: tuple[tuple[str, str, str], ...]
    rows: tuple[tuple[str, str, str | None], ...]
    events: tuple[str, ...]
    results: tuple[tuple[str, str], ...]


def end_of(world: World) -> End:
    record = world.record()
    return End(
        status=record.status if record else None,
        image=record.current_image_ref if record else None,
        has_container=bool(record and record.current_container_id),
        containers=tuple((c.name, c.image_ref, c.state.value) for c in world.docker.containers),
        rows=tuple(world.rows()),
        events=tuple(world.events()),
        results=tuple(world.results()),
    )


class AgainTest(WorldTestCase):
    def run_with_faults(self, kind: OpKind, before: Status | None, *faults: tuple[int, bool]) -> int:
        """Crash at each fault in turn, then run to completion; returns the number of calls of that last run."""
        self.world = world = World()
        world.bring(before)
        image_ref = {"image_ref": IMAGE_2} if kind is OpKind.PATCH else {}
        operation = world.claim(request(kind=kind, source=OpSource.LOBBY_STREAM, **image_ref))
        for at, done in faults:
            world.runtime.fail(at, done=done)
            # An operation survives some faults; it then crashes before its completion is written.
            with suppress(Unavailable):
                world.operator.run(operation)
            world.clock.advance(1)
            world.queue.defer(operation, delay_s=0, why="it crashed")
            [operation] = world.queue.claim(1)
        world.runtime.fail(0, done=False)
        completion: Completion = world.operator.run(operation)
        world.queue.finish(operation, completion)
        return world.runtime.calls

    def test_a_crash_before_or_after_any_call_of_the_runtime_changes_nothing_in_the_end(self) -> None:
        for kind, before in CASES:
            calls = self.run_with_faults(kind, before)
            expected = end_of(self.world)
            self.assertGreater(calls, 0)
            for at in range(1, calls + 1):
                for done in (False, True):
                    with self.subTest(kind=kind, before=before, at=at, done=done):
                        self.run_with_faults(kind, before, (at, done))
                        self.assertEqual(end_of(self.world), expected)
                        self.assert_consistent()

    def test_two_crashes_in_a_row_change_nothing_either(self) -> None:
        for kind, before in CASES:
            calls = self.run_with_faults(kind, before)
            expected = end_of(self.world)
            for first in range(1, calls + 1):
                for second in range(1, calls + 1):
                    with self.subTest(kind=kind, before=before, first=first, second=second):
                        self.run_with_faults(kind, before, (first, True), (second, True))
                        self.assertEqual(end_of(self.world), expected)
                        self.assert_consistent()

    def test_there_is_never_more_than_the_games_container_and_a_next_one_on_the_way(self) -> None:
        for kind, before in CASES:
            with self.subTest(kind=kind, before=before):
                world = World()
                world.bring(before)
                operation = world.claim(
                    request(kind=kind, image_ref=IMAGE_2 if kind is OpKind.PATCH else "galaxy/game:1.0.0")
                )
                for at in range(1, 20):
                    world.runtime.fail(at, done=True)
                    try:
                        world.operator.run(operation)
                    except Unavailable:
                        own = [each for each in world.docker.containers if not each.is_next]
                        self.assertLessEqual(len(own), 1)
                        self.assertLessEqual(len(world.docker.containers) - len(own), 1)


class HalfDoneTest(WorldTestCase):
    """Docker fails in the middle: the error shows whether something must be completed."""

    def kind_of_failure(self, kind: OpKind, before: Status | None, method: str, *, done: bool) -> type[Unavailable]:
        self.world = World()
        self.world.bring(before)
        operation = self.world.claim(request(kind=kind))
        if done:
            self.world.docker.lose_answer(method)
        else:
            self.world.runtime.raises[method] = Unavailable("docker", "away", untouched=True)
        with self.assertRaises(Unavailable) as caught:
            self.world.operator.run(operation)
        self.assertEqual(caught.exception.dependency, "docker")
        return type(caught.exception)

    def test_before_anything_happened_nothing_is_half_done(self) -> None:
        for kind, before, method in (
            (OpKind.START, None, "network_exists"),
            (OpKind.START, None, "request_image"),
            (OpKind.RESTART, Status.RUNNING, "request_image"),
            (OpKind.RESTART, Status.RUNNING, "create_next"),
            (OpKind.STOP, Status.RUNNING, "stop"),
        ):
            with self.subTest(kind=kind, method=method):
                self.assertIs(self.kind_of_failure(kind, before, method, done=False), Unavailable)

    def test_a_stop_whose_answer_is_lost_is_half_done(self) -> None:
        for kind in (OpKind.STOP, OpKind.RESTART):
            with self.subTest(kind=kind):
                self.assertIs(self.kind_of_failure(kind, Status.RUNNING, "stop", done=True), PartiallyApplied)

    def test_a_restart_that_stopped_the_old_container_is_half_done(self) -> None:
        for method in ("remove", "promote"):
            with self.subTest(method):
                self.assertIs(
                    self.kind_of_failure(OpKind.RESTART, Status.RUNNING, method, done=False), PartiallyApplied
                )

    def test_a_start_that_may_have_started_a_container_is_half_done(self) -> None:
        for before in (None, Status.STOPPED, Status.REMOVED):
            with self.subTest(before=before):
                self.assertIs(self.kind_of_failure(OpKind.START, before, "launch", done=True), PartiallyApplied)


class SecondTryTest(WorldTestCase):
    """An operation is repeated after its first attempt got far, and something it needed is gone."""

    def first_try(self, kind: OpKind, method: str, image_ref: str = IMAGE) -> Operation:
        """Run until the answer to `method` is lost, as if killed there; returns the operation, claimed again."""
        operation = self.world.claim(request(kind=kind, image_ref=image_ref))
        self.world.docker.lose_answer(method)
        with self.assertRaises(Unavailable):
            self.world.operator.run(operation)
        self.world.queue.defer(operation, delay_s=0, why="killed")
        (again,) = self.world.queue.claim(1)
        return again

    def end(self, operation: Operation) -> Completion:
        completion = self.world.operator.run(operation)
        self.world.queue.finish(operation, completion)
        return completion

    def test_a_start_that_got_its_container_needs_no_registry_any_more(self) -> None:
        again = self.first_try(OpKind.START, "launch")
        self.world.docker.present.clear()
        self.assertEqual(self.end(again).outcome, Outcome.SUCCESS)
        self.assert_consistent()

    def test_a_restart_that_stopped_its_container_and_cannot_go_on_reports_stopped(self) -> None:
        self.world.bring(Status.RUNNING)
        again = self.first_try(OpKind.RESTART, "stop")
        self.world.docker.present.clear()
        self.assertEqual(self.end(again).error_code, ErrorCode.IMAGE_PULL_FAILED)
        self.assertEqual(self.world.known().status, Status.STOPPED)
        self.assert_consistent()

    def test_a_restart_or_patch_that_stopped_nothing_leaves_an_end_meanwhile_to_the_watch(self) -> None:
        for kind, gone in itertools.product((OpKind.RESTART, OpKind.PATCH), (False, True)):
            with self.subTest(kind=kind, gone=gone):
                self.world = World()
                self.world.bring(Status.RUNNING)
                before, container_id = self.world.known(), self.world.known().current_container_id or ""
                again = self.first_try(kind, "request_image", IMAGE_2 if kind is OpKind.PATCH else "")
                self.world.docker.exit(container_id, 255)
                if gone:
                    self.world.docker.vanish(container_id)
                self.world.docker.present.clear()
                self.assertEqual(self.end(again).error_code, ErrorCode.IMAGE_PULL_FAILED)
                self.assertEqual(self.world.known(), before)
                self.assertEqual(self.world.store.last_exits, {})

    def test_a_restart_that_got_its_container_is_ended_with_its_three_rows(self) -> None:
        self.world.bring(Status.RUNNING)
        rows, old = len(self.world.store.log), self.world.known().current_container_id
        again = self.first_try(OpKind.RESTART, "promote")
        self.world.docker.present.clear()
        self.assertEqual(self.end(again).outcome, Outcome.SUCCESS)
        new = self.world.known().current_container_id
        found = [(row.kind, row.container_id) for row in self.world.store.log[rows:]]
        self.assertEqual(found, [(OpKind.STOP, old), (OpKind.START, new), (OpKind.RESTART, new)])
        self.assert_consistent()

    def test_a_start_that_took_the_old_container_away_and_failed_names_it_no_more(self) -> None:
        self.world.bring(Status.STOPPED)
        self.world.docker.fail_launch("g1", "no")
        completion = self.world.do(request(kind=OpKind.START, image_ref=IMAGE))
        self.assertEqual(completion.error_code, ErrorCode.CONTAINER_START_FAILED)
        self.assertIsNone(self.world.known().current_container_id)
