"""Seeded histories of a platform with faults, in memory and on one thread, with the invariants of each.

Two instances share a store and a container runtime. A history is a sequence of random steps of these kinds:

- jobs, requests and operations; engines that crash; instances that die during an operation
- containers that are manually killed, removed, restarted, paused and run
- events that are late or lost; answers of the store that are lost; a store's clock that jumps
- a runtime that is unavailable, restarts, or is replaced by another one for a while

Between any two calls of an operation other steps may happen, which simulates threads and other processes. At the end
everything answers again; then the invariants of docs/architecture.md are checked:

I1 each accepted job has exactly one result. I2 a game never has two live containers that the manager made. I3 and I4
records and containers agree after a pass. I6 containers without a record are never stopped or removed. I7 while the
runtime is unavailable no finding changes a record. In addition, each published event about a container has happened to
it. A game that ran when the runtime ended runs again, unless another state was requested since; a stopped game does
not. Nothing is started on another runtime than the one on record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any, cast
from unittest import mock

from rtmanager.domain.container import ContainerState, ContainerView
from rtmanager.domain.crash import RestartPolicy
from rtmanager.domain.errors import DependencyError, Unavailable
from rtmanager.domain.game import container_name
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import Operation, OpKind
from rtmanager.domain.outage import RuntimeRun
from rtmanager.domain.record import Status
from rtmanager.fakes import Meant
from rtmanager.fakes.streams import MemoryStreams
from rtmanager.operations import executor as executor_module
from rtmanager.operations.completions import CompletionNotifier
from rtmanager.operations.executor import Executor
from rtmanager.operations.one_daemon import GuardedRuntime, OneDaemon
from rtmanager.operations.wake import Wake
from rtmanager.ports.runtime import ContainerRuntime
from rtmanager.ports.store import ClaimLost, GameBusy
from rtmanager.ports.watching import ContainerEvent, ContainerEventKind, ProbeBy
from rtmanager.tests.making import IMAGE_2, NETWORK, quiet, request, start_fields, stop_fields, view
from rtmanager.tests.watching import FakeProbes, FakeResult, WatchedWorld
from rtmanager.workers.clock import StoreClock
from rtmanager.workers.crash_restarts import CrashRestarts
from rtmanager.workers.ingest import Ingest
from rtmanager.workers.inspector import Inspector
from rtmanager.workers.prober import Prober
from rtmanager.workers.reconcile.listener import EventListener

GAMES = ("g1", "g2", "g3")
STEPS = 40
#: Steps after an outage of a platform at rest.
STEPS_AFTER_OUTAGE = 6
#: The percentage of an operation's calls that have other steps before them, and their maximal number.
BETWEEN_PERCENT = 20
LONGEST_BETWEEN = 4
#: Calls of the runtime that may be rejected.
REFUSABLE = (
    *("network_exists", "ensure_image", "launch", "create_next", "promote"),
    *("stop", "remove", "inspect", "list_games", "log_tail"),
)
#: The maximal nesting of such steps.
DEEPEST = 2
#: Exit codes of containers that end with the runtime, and with its host.
OUTAGE_CODES = (143, 137, 255)
#: Seconds by which the store's clock jumps when another host takes over: little, or more than any planned delay.
JUMPS_S = (-30, 30, -7200, 7200)
#: Seconds by which the clock of the runtime's host is off.
RUNTIME_OFFSETS_S = (0, 0, -3600, 3600)


class Killed(BaseException):
    """The working instance is dead; none of its code runs any further."""


class Violation(AssertionError):
    """An invariant does not hold."""


class SimRuntime:
    """The instances' view of the runtime: other steps may precede each call, and each call emits its events."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._simulation.docker, name)

        def called(*args: Any) -> Any:
            self._simulation.before_call(name, args)
            try:
                return method(*args)
            finally:
                self._simulation.emit(by_service=name)

        return called


class Instance:
    """One instance of the manager: its executor and its watch."""

    def __init__(self, simulation: Simulation, owner: int) -> None:
        self.owner = owner
        self.simulation = simulation
        self.events: list[ContainerEvent] = []
        self.receives_events = True
        self.world = WatchedWorld(simulation.restarts, owner, after_outages=True)
        self.clock = StoreClock(simulation.clock, lambda: simulation.clock.passed_s)
        self.clock.read()
        self.world.store, self.world.clock = simulation.store, cast(Any, self.clock)
        self.world.queue = simulation.store.queue(owner)
        self.world.directories = simulation.base.directories
        one = OneDaemon(simulation.store.daemons, NETWORK, quiet())
        self.world.runtime = cast(Any, _Port(GuardedRuntime(cast(Any, SimRuntime(simulation)), one, quiet())))
        self.world.operator = self.world.make_operator(self.world.runtime.port)
        self.world.watch()
        self.executor = Executor(
            self.world.queue,
            self.world.operator,
            CompletionNotifier(),
            slots=4,
            wake=Wake(),
            messages_due=Wake(),
            logger=quiet(),
        )
        self.listener = EventListener(
            self, cast(Any, self.world.reconcile_queue), missed=self.reconcile_soon, logger=quiet()
        )
        self.probes = FakeProbes()
        parts: dict[str, Any] = {
            "records": simulation.store.records,
            "findings": self.world.findings,
            "leases": self.world.findings,
            "runtime": self.world.runtime.port,
            "clock": self.clock,
            "written": simulation.found,
        }
        self.inspector = Inspector(**parts, period_s=30, threads=1, logger=quiet())
        self.prober = Prober(
            **parts,
            probes=self.probes,
            by=lambda: ProbeBy.ENDPOINT,
            period_s=15,
            timeout_s=2,
            threshold=3,
            logger=quiet(),
        )
        self.crash_restarts = CrashRestarts(
            self.world.findings, queued=lambda: None, longest_pause_s=300, logger=quiet(), outages_at_once=2
        )
        self.ingest = Ingest(
            simulation.streams,
            simulation.store.inbox,
            {stream: stream.value for stream in Stream},
            accepted=lambda: None,
            logger=quiet(),
        )
        self.must_reconcile = True
        self.working: Operation | None = None

    # --- the event feed that the listener reads

    def connect(self) -> None:
        if not self.receives_events or not self.simulation.docker.available:
            raise Unavailable("docker", "no events")

    def listen(self) -> Iterator[ContainerEvent]:
        while self.events:
            yield self.events.pop(0)

    def interrupt(self) -> None:
        """Does nothing: no thread waits."""

    def reconcile_soon(self) -> None:
        self.must_reconcile = True

    # --- its steps

    def work(self) -> None:
        """Claim one operation and run it to its end, as a thread of the executor does."""
        self.simulation.run_operation(self)

    def process_events(self) -> None:
        self.listener.step()
        self.world.reconcile_queue.run()

    def reconcile(self) -> None:
        self.world.drift_scan.step()
        self.must_reconcile = False
        self.world.reconcile_queue.run()

    def probe(self) -> None:
        random = self.simulation.random
        self.probes.results = {
            game_id: random.choice([FakeResult(), FakeResult(503, "status 503"), None]) for game_id in GAMES
        }
        self.prober.step()


class _Port:
    """A runtime with itself as its port, as `FailingRuntime` is."""

    def __init__(self, runtime: ContainerRuntime) -> None:
        self.port = runtime


class Simulation:
    """One history."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.trace: list[str] = []
        self.restarts = RestartPolicy() if self.random.random() < 0.3 else None
        self.base = WatchedWorld()
        self.store, self.clock, self.docker = self.base.store, self.base.clock, self.base.docker
        self.streams = MemoryStreams(self.clock)
        self.accepted: Counter[str] = Counter()
        self.ended_by_world: set[str] = set()
        self.gone_by_world: set[str] = set()
        self.strangers: set[str] = set()
        #: Games that ran when the runtime ended, with their containers, and games that were stopped then.
        self.due_back: dict[str, str] = {}
        self.stays_down: set[str] = set()
        self.outages = self.exchanges = 0
        #: While another daemon answers: the containers of the daemon on record.
        self._elsewhere: list[ContainerView] | None = None
        #: The other histories leave more room for frequent faults.
        self._hosts_in_trouble = self.random.random() < 0.5
        self._runtime_offset_s = self.random.choice(RUNTIME_OFFSETS_S)
        self._seen: dict[str, ContainerView] = {}
        self.owners = 0
        self._time_ns = 0
        self._depth = 0
        self._names = 0
        OneDaemon(self.store.daemons, NETWORK, quiet()).establish(cast(ContainerRuntime, self.docker))
        self.instances = [self._new_instance(), self._new_instance()]
        self.store.trouble.before = self._before_store

    def run(self) -> None:
        """Run the whole history; raises `Violation`."""
        for _ in range(STEPS):
            self._step()
        if self.random.random() < 0.5:
            self._outage_at_rest()
        self._settle()
        self._check_end()

    def _outage_at_rest(self) -> None:
        """Bring games to running or stopped, restart the runtime without an operation in progress, then continue."""
        for game_id in GAMES:
            stream, fields = self.random.choice(
                [(Stream.START_JOBS, start_fields(game_id)), (Stream.STOP_JOBS, stop_fields(game_id))]
            )
            self._job(stream, fields)
        self._settle()
        self._depth = 0
        self._do("the runtime restarts", self._restart_docker)
        for _ in range(STEPS_AFTER_OUTAGE):
            self._step()

    # --- steps

    def _step(self) -> None:
        instance = self.random.choice(self.instances)
        name, step = self.random.choice(self._service_steps(instance) + self._world_steps())
        self._do(name, step)

    def _do(self, name: str, step: Callable[[], object]) -> None:
        self.trace.append("  " * self._depth + name)
        for game_id in GAMES:
            if game_id in name:
                self._want_something_else(game_id)
        self.clock.advance(self.random.choice([0.1, 1, 5]))
        try:
            step()
        except (DependencyError, GameBusy) as error:
            self.trace.append("  " * self._depth + f"  {type(error).__name__}")
        self.emit()
        self._check_always()

    def _service_steps(self, of: Instance) -> list[tuple[str, Callable[[], object]]]:
        number = self.instances.index(of)
        return [
            (f"{number} works", of.work),
            (f"{number} works on", of.work),
            (f"{number} ingests", lambda: self._ingest(of)),
            (f"{number} reads events", of.process_events),
            (f"{number} reads events again", of.process_events),
            (f"{number} reconciles", of.reconcile),
            (f"{number} probes", of.probe),
            (f"{number} inspects", of.inspector.step),
            (f"{number} restarts the crashed", of.crash_restarts.step),
            (f"{number} is killed", lambda: self._kill(of)),
            (f"{number} loses events, or no longer", lambda: self._toggle_events(of)),
            (f"{number} reads the store's clock", of.clock.read),
        ]

    def _world_steps(self) -> list[tuple[str, Callable[[], object]]]:
        game_id = self.random.choice(GAMES)
        hosts: list[tuple[str, Callable[[], object]]] = [
            ("the runtime restarts", self._restart_docker),
            ("another runtime answers, or no longer", self._exchange_docker),
            ("the store's clock jumps", lambda: self.clock.jump(self.random.choice(JUMPS_S))),
        ]
        return [
            *([self.random.choice(hosts)] if self._hosts_in_trouble else []),
            (f"start job {game_id}", lambda: self._job(Stream.START_JOBS, start_fields(game_id))),
            (f"start job {game_id} again", lambda: self._job(Stream.START_JOBS, start_fields(game_id))),
            (f"stop job {game_id}", lambda: self._job(Stream.STOP_JOBS, stop_fields(game_id))),
            (f"call {game_id}", lambda: self._call(game_id)),
            (f"crash {game_id}", lambda: self._end(game_id, 139)),
            (f"kill {game_id}", lambda: self._end(game_id, 137)),
            (f"exit 0 {game_id}", lambda: self._end(game_id, 0)),
            (f"rm -f {game_id}", lambda: self._remove(game_id)),
            (f"restart by hand {game_id}", lambda: self._restart_by_hand(game_id)),
            (f"pause or go on {game_id}", lambda: self._pause(game_id)),
            (f"run by hand {game_id}", lambda: self._run_by_hand(game_id)),
            ("the runtime goes or comes", self._toggle_docker),
            ("an answer of the store is lost", self._lose_answer),
            ("the runtime refuses something", self._refuse),
            ("time passes", lambda: self.clock.advance(100)),
        ]

    def _job(self, stream: Stream, fields: dict[str, str]) -> None:
        self.streams.add(stream, fields)
        self.accepted[fields["game_id"]] += 1

    def _ingest(self, of: Instance) -> None:
        of.ingest._take_over()

    def _call(self, game_id: str) -> None:
        kind = self.random.choice([OpKind.START, OpKind.STOP, OpKind.RESTART, OpKind.PATCH, OpKind.CLEANUP])
        image = {"image_ref": IMAGE_2} if kind is OpKind.PATCH else {}
        self.instances[0].world.queue.submit(request(game_id, kind, **image))

    def _end(self, game_id: str, code: int) -> None:
        for seen in self._alive(game_id):
            self.docker.exit(seen.container_id, code)
            self.ended_by_world.add(seen.container_id)

    def _remove(self, game_id: str) -> None:
        for seen in self._alive(game_id):
            self.docker.vanish(seen.container_id)
            self.gone_by_world.add(seen.container_id)

    def _restart_by_hand(self, game_id: str) -> None:
        if self._elsewhere is not None:
            return  # a launch on the other daemon is removed again, and gets no manual start
        for seen in self._of(game_id):
            if seen.is_next:
                continue  # started manually, it is a stray: reported, and not touched
            if seen.alive:
                self.docker.exit(seen.container_id, 143)
                self.ended_by_world.add(seen.container_id)
                self.emit()
            self.docker.change(seen.container_id, ContainerState.RUNNING)
            self.docker.alter(seen.container_id, started_at=self._runtime_now())

    def _pause(self, game_id: str) -> None:
        for seen in self._alive(game_id):
            running = seen.state is ContainerState.RUNNING
            self.docker.change(seen.container_id, ContainerState.PAUSED if running else ContainerState.RUNNING)

    def _run_by_hand(self, game_id: str) -> None:
        if self._elsewhere is not None:
            return
        self._names += 1
        container_id = f"by-hand-{self._names}"
        agrees = self.random.random() < 0.6
        if agrees and any(seen.name == container_name(game_id) for seen in self.docker.containers):
            return
        name = container_name(game_id) if agrees else f"odd-{self._names}"
        self.docker.add_foreign(replace(view(game_id, container_id=container_id), name=name))
        if not agrees:
            self.strangers.add(container_id)

    def _toggle_docker(self) -> None:
        self.docker.available = not self.docker.available

    def _runtime_now(self) -> datetime:
        """The clock of the runtime's host, which never jumps."""
        return self.clock.start + timedelta(seconds=self.clock.passed_s + self._runtime_offset_s)

    def _restart_docker(self) -> None:
        """Restart the runtime or its host; its containers end with it, and its feeds break off."""
        if self._elsewhere is not None:
            return
        self.outages += 1
        for game_id in GAMES:
            self._expect_after_outage(game_id)
        code = self.random.choice(OUTAGE_CODES)
        for seen in self.docker.containers:
            if seen.alive:
                self.docker.exit(seen.container_id, code)
                self.ended_by_world.add(seen.container_id)
        self.emit()
        self.docker.run = RuntimeRun(began_at=self._runtime_now())
        self._break_feeds()

    def _expect_after_outage(self, game_id: str) -> None:
        """Record the required state of a game, when it has no operation in progress and no later request."""
        record, refused = self.store.records_by_game.get(game_id), any(map(self.docker.refuses, REFUSABLE))
        answered = sum(each.fields["game_id"] == game_id for each in self._sent(Stream.JOB_RESULTS))
        if record is None or refused or self.store.live.get(game_id) or answered != self.accepted[game_id]:
            return
        container_id = record.current_container_id or ""
        alive = [seen.container_id for seen in self._alive(game_id)]
        if record.status is Status.RUNNING and alive == [container_id]:
            self.due_back[game_id] = container_id
        elif record.status is Status.STOPPED and not alive and game_id not in self.store.planned_restarts:
            self.stays_down.add(game_id)

    def _want_something_else(self, game_id: str) -> None:
        self.due_back.pop(game_id, None)
        self.stays_down.discard(game_id)

    def _exchange_docker(self) -> None:
        """Make the address lead to another daemon for a while; it does not change back within one operation."""
        if self._elsewhere is None:
            self.exchanges += 1
            behind_proxy = self.exchanges % 2 == 0
            self._elsewhere, self._seen = self.docker.exchange("daemon-2", behind_proxy=behind_proxy), {}
        elif self._depth == 0:
            self._bring_back()
        self._break_feeds()

    def _bring_back(self) -> None:
        if self._elsewhere is not None:
            self.docker.bring_back("daemon-1", self._elsewhere)
            self._elsewhere, self._seen = None, {seen.container_id: seen for seen in self.docker.containers}

    def _break_feeds(self) -> None:
        for each in self.instances:
            each.events.clear()
            each.listener.broken()

    def _lose_answer(self) -> None:
        self.store.trouble.fail_call(self.random.randint(1, 8), done=self.random.random() < 0.5)

    def _refuse(self) -> None:
        """Reject some calls in a row; a start that is rejected permanently does not restore a game."""
        for game_id in GAMES:
            self._want_something_else(game_id)
        self.docker.refuse(self.random.choice(REFUSABLE), self.random.choice(list(Meant)), self.random.randint(1, 3))

    def _kill(self, of: Instance) -> None:
        if of.working is not None:
            raise Killed
        self._replace(of)

    def _toggle_events(self, of: Instance) -> None:
        of.receives_events = not of.receives_events
        if not of.receives_events:
            of.events.clear()
            of.listener.broken()

    # --- operations, with other steps in between

    def run_operation(self, of: Instance) -> None:
        """Run one operation to its end, or to the death of its instance."""
        of.world.queue.reclaim_orphans([of.working.operation_id] if of.working else [])
        if of.working is not None:
            return
        for operation in of.world.queue.claim(1):
            of.working = operation
            self.trace.append("  " * self._depth + f"  {operation.request.kind} {operation.game_id}")
            try:
                of.executor._run_to_end(operation)
            except ClaimLost:
                self.trace.append("  lost")
            except Killed:
                self._replace(of)
            finally:
                of.working = None

    def before_call(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Other steps may precede a call of the manager; a call that changes a foreign container is a violation."""
        if name in ("stop", "remove") and arguments[0] in self.strangers:
            raise Violation(f"I6: {name} of {arguments[0]}, which has no record")
        self._world_moves()

    def _before_store(self, name: str) -> None:
        """Other steps may also come between the runtime's last call and the write of the result."""
        if name == "finish":
            self._world_moves()

    def _world_moves(self) -> None:
        if self._depth < DEEPEST and self.random.randrange(100) < BETWEEN_PERCENT:
            self._depth += 1
            try:
                for _ in range(self.random.randint(1, LONGEST_BETWEEN)):
                    self._step()
            finally:
                self._depth -= 1

    def emit(self, by_service: str = "") -> None:
        """Send every connected instance the changes since the last call."""
        for seen in self.docker.containers:
            if seen.alive and seen.started_at is None:
                self.docker.alter(seen.container_id, started_at=self._runtime_now())
        now = {seen.container_id: seen for seen in self.docker.containers}
        for container_id, before in self._seen.items():
            after = now.get(container_id)
            if before.alive and (after is None or not after.alive):
                if by_service == "stop":
                    self._emit(before, ContainerEventKind.KILL, signal="15")
                self._emit(before, ContainerEventKind.DIE)
            if after is None:
                self._emit(before, ContainerEventKind.DESTROY)
        self._seen = now

    def _emit(self, seen: ContainerView, what: ContainerEventKind, **more: Any) -> None:
        self._time_ns += 1
        event = ContainerEvent(what, seen.game_id, seen.container_id, self._time_ns, **more)
        for instance in self.instances:
            if instance.receives_events and self.docker.available:
                instance.events.append(event)

    def found(self, _finding: object) -> None:
        """Called for a written finding; does nothing, since nothing is relayed here."""

    # --- instances

    def _new_instance(self) -> Instance:
        self.owners += 1
        return Instance(self, self.owners)

    def _replace(self, of: Instance) -> None:
        """End its session, and start another instance in its place."""
        self.store.present.discard(of.owner)
        self.instances[self.instances.index(of)] = self._new_instance()

    # --- invariants

    def _of(self, game_id: str) -> list[ContainerView]:
        return [seen for seen in self.docker.containers if seen.game_id == game_id]

    def _alive(self, game_id: str) -> list[ContainerView]:
        return [seen for seen in self._of(game_id) if seen.alive]

    def _settle(self) -> None:
        """End all faults, and complete everything that is due."""
        self.trace.append("everything answers again")
        self.docker.available = True
        self._bring_back()
        self._break_feeds()
        for method in REFUSABLE:
            self.docker.stop_refusing(method)
        self._depth = DEEPEST  # no other steps from here on
        for _ in range(12):
            self.clock.advance(61)
            for instance in list(self.instances):
                instance.receives_events = True
                with _patiently():
                    instance.clock.read()
                    self._ingest(instance)
                    instance.process_events()
                    for _ in range(20):
                        instance.work()
                    instance.reconcile()
                    instance.crash_restarts.step()
            self.emit()

    def _check_always(self) -> None:
        if self._elsewhere is not None:
            made_there = [seen.container_id for seen in self.docker.containers if seen.alive]
            if made_there:
                raise Violation(f"one daemon: {made_there} live on another one")
        for game_id in GAMES:
            made = [seen for seen in self._alive(game_id) if seen.belongs_to(game_id)]
            if len(made) > 1:
                raise Violation(f"I2: {game_id} lives in {[seen.container_id for seen in made]}")

    def _check_end(self) -> None:
        results = Counter(message.fields["game_id"] for message in self._sent(Stream.JOB_RESULTS))
        if results != self.accepted:
            raise Violation(f"I1: accepted {dict(self.accepted)}, answered {dict(results)}")
        if self.store.live:
            raise Violation(f"operations that do not end: {self.store.live}")
        for game_id in GAMES:
            self._check_agreement(game_id)
            self._check_after_outage(game_id)
        self._check_published()

    def _check_agreement(self, game_id: str) -> None:
        record = self.store.records_by_game.get(game_id)
        recorded = record.current_container_id if record and record.status is Status.RUNNING else None
        alive = {seen.container_id: seen for seen in self._alive(game_id)}
        if recorded is not None and recorded not in alive:
            raise Violation(f"I4: {game_id} is recorded as running in {recorded}, alive are {sorted(alive)}")
        for container_id, seen in alive.items():
            adoptable = container_id not in self.strangers and seen.state is ContainerState.RUNNING
            if adoptable and container_id != recorded:
                raise Violation(f"I3: {container_id} of {game_id} lives, recorded is {recorded}")

    def _check_after_outage(self, game_id: str) -> None:
        record = self.store.records_by_game.get(game_id)
        runs = record is not None and record.status is Status.RUNNING
        before = self.due_back.get(game_id)
        if before and not (record and runs and record.current_container_id != before):
            raise Violation(f"outage: {game_id} ran in {before} and is not back: {record}")
        if game_id in self.stays_down and runs:
            raise Violation(f"outage: {game_id} was stopped, and runs: {record}")

    def _check_published(self) -> None:
        published: Counter[str] = Counter()
        for message in self._sent(Stream.HEALTH_EVENTS):
            container_id, what = message.fields["container_id"], message.fields["event_type"]
            published[f"{what} of {container_id}"] += 1
            if what == "container_exited" and container_id not in self.ended_by_world:
                raise Violation(f"{container_id} was published as exited, though nothing ended it but this service")
            if what == "container_disappeared" and container_id not in self.gone_by_world:
                raise Violation(f"{container_id} was published as disappeared, though nothing removed it")
        for what, times in published.items():
            if times > 1 and what.startswith("container_disappeared"):
                raise Violation(f"{what} was published {times} times")

    def _sent(self, stream: Stream) -> list[Any]:
        return [message for message in self.store.messages.values() if message.stream is stream]


@contextmanager
def _patiently() -> Iterator[None]:
    """Ignore missing answers at the end: the next round tries again."""
    try:
        yield
    except (Unavailable, GameBusy):
        return


def run(seed: int) -> Simulation:
    """Run one history. Raises `Violation`, whose notes contain the seed and the last steps."""
    with mock.patch.object(executor_module, "STORE_PAUSE_S", 0):
        simulation = Simulation(seed)
        try:
            simulation.run()
        except Exception as error:
            error.add_note("\n".join([*simulation.trace[-60:], f"seed {seed}"]))
            raise
    return simulation
