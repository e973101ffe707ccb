"""An in-memory world for the tests of operations: store, runtime and directories, and one `OperationRunner`."""

from __future__ import annotations

import threading
import unittest
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from rtmanager.domain.container import ContainerView
from rtmanager.domain.errors import Unavailable
from rtmanager.domain.image_policy import ImagePolicy
from rtmanager.domain.messages import Message, Stream
from rtmanager.domain.operation import Completion, Operation, OpKind, OpSource, Request
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.fakes import FakeImage, FakeRuntime, FakeStateDirectories
from rtmanager.fakes.store import CALL_POSITION, ManualClock, MemoryStore
from rtmanager.operations.runner import OperationRunner
from rtmanager.operations.tools import Tools
from rtmanager.ports.runtime import ContainerRuntime
from rtmanager.tests.making import IMAGE, IMAGE_2, NETWORK, SETTINGS, LogCapture, request
from rtmanager.workers.image_retention import PullNotes

#: Real seconds after which a wait fails; only a failing test waits so long.
PATIENCE_S = 5.0


class FailingRuntime:
    """Passes calls on to a runtime; the `at`-th call from now fails, before or after it is done.

    `gates` holds calls of a method until an event is set, `raises` ends them with an unforeseen error.
    """

    def __init__(self, inner: FakeRuntime) -> None:
        self.inner = inner
        self.calls = 0
        self.at = 0
        self.done = False
        self.gates: dict[str, threading.Event] = {}
        self.arrived: dict[str, threading.Event] = {}
        self.raises: dict[str, Exception] = {}

    def fail(self, at: int, *, done: bool) -> None:
        """Arm the fault."""
        self.calls, self.at, self.done = 0, at, done

    def gate(self, method: str) -> tuple[threading.Event, threading.Event]:
        """Hold calls of `method`; return two events: a call has arrived, and the calls may go on."""
        self.arrived[method], self.gates[method] = threading.Event(), threading.Event()
        return self.arrived[method], self.gates[method]

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        def passed(*args: object) -> Any:
            if name in self.gates:
                self.arrived[name].set()
                if not self.gates[name].wait(PATIENCE_S):
                    raise TimeoutError(f"the gate of {name} never opened")
            if name in self.raises:
                raise self.raises[name]
            self.calls += 1
            if self.calls != self.at:
                return method(*args)
            if self.done:
                method(*args)
            raise Unavailable("docker", f"no answer to {name}", untouched=not self.done)

        return passed

    @property
    def port(self) -> ContainerRuntime:
        """This object, typed as the port."""
        return cast(ContainerRuntime, self)


class World:
    """Everything that operations use, in memory; `do` runs one operation and writes its completion."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.queue = self.store.queue(1)
        self.docker = FakeRuntime([NETWORK])
        self.docker.present |= {IMAGE: FakeImage(), IMAGE_2: FakeImage()}
        self.runtime = FailingRuntime(self.docker)
        self.directories = FakeStateDirectories()
        self.lobby_queries: list[str] = []
        self.lost_directories = 0
        self.captured = LogCapture()
        self.settings = SETTINGS
        self.operator = self.make_operator(self.runtime.port)

    def make_operator(self, runtime: ContainerRuntime) -> OperationRunner:
        """An `OperationRunner` of one more instance."""
        tools = Tools(
            runtime=runtime,
            state_directories=self.directories,
            settings=self.settings,
            clock=self.clock,
            owns=lambda operation: bool(self.queue.heartbeat([operation])),
            claim_name=self.queue.claim_name,
            note_end=self.queue.note_end,
            noted_end=self.queue.noted_end,
            query_lobby=self.lobby_queries.append,
            logger=self.captured.logger,
            count_lost_directory=self._count_lost_directory,
            pulled=lambda ref, image_id: PullNotes(self.store.images, self.docker, self.captured.logger).note(
                ref, image_id
            ),
        )
        return OperationRunner(self.store.records, tools)

    def allow(self, policy: ImagePolicy) -> None:
        """Let further operations follow this policy, as another manager does."""
        self.settings = replace(self.settings, image_policy=policy)
        self.operator = self.make_operator(self.runtime.port)

    def _count_lost_directory(self) -> None:
        self.lost_directories += 1

    def claim(self, wanted: Request) -> Operation:
        """Accept and claim a request from any source."""
        self.clock.advance(1)
        self.store.add_row(wanted, CALL_POSITION)
        (operation,) = self.queue.claim(1)
        return operation

    def do(self, wanted: Request) -> Completion:
        """Run a request and write its completion."""
        operation = self.claim(wanted)
        completion = self.operator.run(operation)
        self.queue.finish(operation, completion)
        return completion

    def bring(self, status: Status | None, game_id: str = "g1") -> None:
        """Bring a game into a status by the operations that lead there, and forget their traces."""
        steps = {
            None: (),
            Status.RUNNING: (OpKind.START,),
            Status.STOPPED: (OpKind.START, OpKind.STOP),
            Status.REMOVED: (OpKind.START, OpKind.STOP, OpKind.CLEANUP),
        }
        for kind in steps[status]:
            self.do(request(game_id, kind))
        self.forget()

    def forget(self) -> None:
        """Clear the operation log, messages, snapshots, runtime calls and requests to the Lobby."""
        self.store.log.clear()
        self.store.messages.clear()
        self.store.snapshots.clear()
        self.docker.calls.clear()
        self.lobby_queries.clear()

    def record(self, game_id: str = "g1") -> RuntimeRecord | None:
        return self.store.records_by_game.get(game_id)

    def known(self, game_id: str = "g1") -> RuntimeRecord:
        """The game's record; fails when there is none."""
        record = self.record(game_id)
        assert record is not None, f"no record of {game_id}"
        return record

    def sent(self, stream: Stream) -> list[Message]:
        """The due messages of one stream."""
        return [message for message in self.store.messages.values() if message.stream is stream]

    def results(self) -> list[tuple[str, str]]:
        """Outcome and error code of each job result."""
        return [(m.fields["outcome"], m.fields["error_code"]) for m in self.sent(Stream.JOB_RESULTS)]

    def events(self) -> list[str]:
        """The types of the due health events."""
        return [message.fields["event_type"] for message in self.sent(Stream.HEALTH_EVENTS)]

    def rows(self) -> list[tuple[str, str, str | None]]:
        """Kind, outcome and error code of each log row."""
        return [(row.kind.value, row.outcome.value, row.error_code) for row in self.store.log]

    def running(self) -> list[ContainerView]:
        """Containers with a live process."""
        return [container for container in self.docker.containers if container.alive]


class WorldTestCase(unittest.TestCase):
    """A test in a world of its own."""

    def setUp(self) -> None:
        self.world = World()

    def assert_consistent(self) -> None:
        """Fail unless live containers and running records correspond, with one live container per game at most."""
        running = {(c.name, c.container_id) for c in self.world.running()}
        recorded = {
            (f"galaxy-game-{r.game_id}", r.current_container_id)
            for r in self.world.store.records_by_game.values()
            if r.status is Status.RUNNING
        }
        self.assertEqual(running, recorded)
        self.assertEqual(len({name for name, _ in running}), len(running))


def job_request(game_id: str = "g1", kind: OpKind = OpKind.START, **changes: Any) -> Request:
    """A request from an input stream."""
    ref = f"runtime:{'start' if kind is OpKind.START else 'stop'}_jobs:5-0"
    return request(game_id, kind, **{"source": OpSource.LOBBY_STREAM, "source_ref": ref, **changes})


def wait_until(condition: Callable[[], bool], what: str = "it") -> None:
    """Poll a condition; fail when it does not hold within `PATIENCE_S`."""
    pause = threading.Event()
    waited = timedelta()
    while not condition():
        if waited.total_seconds() > PATIENCE_S:
            raise AssertionError(f"{what} did not happen within {PATIENCE_S} s")
        pause.wait(0.001)
        waited += timedelta(milliseconds=1)
