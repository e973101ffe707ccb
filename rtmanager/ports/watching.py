"""What the watching workers need from the store, the runtime and the engines, as interfaces."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from rtmanager.domain.drift import RunningGame
from rtmanager.domain.errors import DependencyError
from rtmanager.domain.findings import Alarm, AlarmKind, Finding, RestartCause
from rtmanager.domain.operation import OpKind, OpSource, Request
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.ports.store import StoreRejected


class WriteResult(StrEnum):
    """What became of a finding."""

    WRITTEN = "written"
    #: An operation is under way on the game and settles it by itself; look again when it has ended.
    BUSY = "busy"
    #: The record is not what the finding was decided on; decide again.
    CHANGED = "changed"
    #: It was told before, by this instance or another.
    KNOWN = "known"


#: Restarts that one call queues.
MOST_AT_ONCE = 100


def restart_request(game_id: str, container_id: str, cause: RestartCause) -> Request:
    """The operation that starts a game again; after an outage a start, which no budget of restarts counts."""
    kind = OpKind.START if cause is RestartCause.OUTAGE else OpKind.RESTART
    return Request(game_id, kind, OpSource.AUTO_RECONCILE, restart_ref(container_id, cause))


def restart_ref(container_id: str, cause: RestartCause) -> str:
    """The reference by which a restart, or the notification that there is none, is known."""
    return f"{cause}:{container_id[:12]}"


def status_before(cause: RestartCause) -> Status:
    """What the record has to say for a planned restart to hold: a game whose probes fail runs."""
    return Status.RUNNING if cause is RestartCause.PROBE else Status.STOPPED


class Findings(Protocol):
    """Where findings become durable. Every method may raise `Unavailable("postgres", …)`."""

    def write(self, finding: Finding) -> WriteResult:
        """Write it as a whole: record, log, snapshot, messages; or nothing.

        Raises `StoreRejected` for what the store will never take.
        """
        ...

    def busy(self, game_id: str) -> bool:
        """Whether an operation of the game is not done."""
        ...

    def alarms(self, kind: AlarmKind) -> Mapping[str, Alarm]:
        """The alarms of a kind that are raised of containers that run by their records, by game."""
        ...

    def forget_old_alarms(self) -> None:
        """Forget those of containers that are on record as running no more."""
        ...

    def running(self) -> Sequence[RunningGame]:
        """What a pass has to know of the games that run by their records."""
        ...

    def records_of(self, game_ids: Collection[str]) -> Sequence[RuntimeRecord]:
        """The records of these games, those without one left out."""
        ...

    def namesakes(self, game_ids: Collection[str]) -> Mapping[str, str]:
        """Of these games, those whose name another game has by its record but for the case, with that game."""
        ...

    def stopped_before(self, moment: datetime, limit: int) -> Sequence[RuntimeRecord]:
        """The stopped records with the oldest last operations, those before `moment`."""
        ...

    def now(self) -> datetime:
        """The store's clock, by which restarts are planned and counted: hosts may disagree about the time."""
        ...

    def queue_restart(
        self,
        due_by: datetime,
        *,
        cause: RestartCause = RestartCause.CRASH,
        at_once: int = MOST_AT_ONCE,
        oldest: datetime | None = None,
        latest: datetime | None = None,
        refused: Callable[[str, StoreRejected], None] | None = None,
    ) -> Sequence[Request]:
        """Queue the restarts of a cause that are due, as ordinary operations; returns what was queued.

        At most `at_once` are queued. After an outage those that are under way count, whichever instance queued them.

        One that the store will never take is dropped, and `refused` hears of it.

        What was due before `oldest` is dropped: nobody expects it any more. What is due after `latest` was planned by a
        clock that was ahead, and is due.
        One that has been overtaken (by any operation on its game, or another state of its record) is dropped.
        """
        ...

    def restarts_since(self, game_id: str, moment: datetime) -> int:
        """How many restarts after a crash the game has had since then."""
        ...


#: A lease of another instance, whose periods may be longer, lasts no longer than so many of ours.
AHEAD_TIMES = 2.0
#: What was raised so many seconds after now, was by a clock that was ahead.
AHEAD_S = 60.0
#: Memory of one container that ran out again is not told for so many seconds: a child that leaks dies many times a
#: minute, and its engine lives on.
OOM_PAUSE_S = 60.0


class Leases(Protocol):
    """Work that one instance does for all. Raises `Unavailable("postgres", …)`."""

    def mine(self, work: str, for_s: float) -> bool:
        """Whether this instance does it, for as many seconds from now; one that says nothing more loses it.

        A lease that would last longer than `AHEAD_TIMES` as long is taken over: it was taken by a clock that was ahead.
        """
        ...


#: A lease is kept for so many periods: another instance takes over when ours says nothing for that long.
LEASE_PERIODS = 3.0


@contextmanager
def lease(leases: Leases, work: str, period_s: float) -> Iterator[bool]:
    """Whether this instance does the work of this period, and of those that follow as long as it comes back.

    One that cannot, since something does not answer it, lets others.
    """
    mine = leases.mine(work, period_s * LEASE_PERIODS)
    try:
        yield mine
    except DependencyError:
        if mine:
            with suppress(DependencyError):
                leases.mine(work, 0.0)
        raise


class ContainerEventKind(StrEnum):
    """The events of a container that matter here, in Docker's words."""

    DIE = "die"
    OOM = "oom"
    DESTROY = "destroy"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """One event; `time_ns` (0: not known) and the rest are the same for everybody who listens.

    How a process ended it does not tell: a label could say otherwise. Inspect tells it.
    """

    what: ContainerEventKind
    game_id: str
    container_id: str
    time_ns: int
    #: Of a kill. A label of that name hides it, see `signal_is_label`.
    signal: str = ""
    #: Whether the container has a label `signal`, which the signals of its kills are not told apart from.
    signal_is_label: bool = False


@dataclass(frozen=True, slots=True)
class UnreadableEvent:
    """Something was told that cannot be read; what it was about is found by a pass."""

    why: str


class EventFeed(Protocol):
    """The runtime's events: hints, not a log; what was missed is found by looking."""

    def connect(self) -> None:
        """Begin to listen from where the last listening ended. Raises `Unavailable`."""
        ...

    def listen(self) -> Iterator[ContainerEvent | UnreadableEvent]:
        """Events as they come, each once; ends after a while, without a gap to the next `connect`.

        Raises `Unavailable` when the connection is lost: then events may be missing.
        """
        ...

    def interrupt(self) -> None:
        """End the listening on another thread, for good."""
        ...


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Whom to probe: `key` is the caller's name for it."""

    key: str
    host: str
    port: int


class ProbeResult(Protocol):
    """What an engine said to a probe: its HTTP status, and why that is not good (empty when it is)."""

    @property
    def status(self) -> int | None: ...

    @property
    def error(self) -> str: ...

    @property
    def good(self) -> bool: ...


class ProbeBy(StrEnum):
    """How engines are reached."""

    #: By the endpoint of the record, a name inside the Docker network.
    ENDPOINT = "endpoint"
    #: By the container's address, from the Docker host.
    CONTAINER_IP = "container_ip"


class Probes(Protocol):
    """Asks many engines at once. A key that is missing from the answer was not asked."""

    def probe(self, targets: Sequence[ProbeTarget], timeout_s: float) -> Mapping[str, ProbeResult]: ...
