"""Ports of the watching workers to the store, the runtime and the engines."""

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
from rtmanager.domain.operation import Request
from rtmanager.domain.outage import STOP_EXPLAINS_S, explains_for_s
from rtmanager.domain.record import RuntimeRecord
from rtmanager.ports.store import StoreRejected


class WriteResult(StrEnum):
    """The result of writing a finding."""

    WRITTEN = "written"
    #: An operation of the game is under way and corrects its record; inspect again when it has ended.
    BUSY = "busy"
    #: The record is not the one that the finding rests on; decide again.
    CHANGED = "changed"
    #: This or another instance reported it before.
    KNOWN = "known"


#: Most restarts that one call queues.
MOST_AT_ONCE = 100


class Findings(Protocol):
    """Where findings become durable. Every method may raise `Unavailable("postgres", …)`."""

    def write(self, finding: Finding) -> WriteResult:
        """Write record, log, snapshot and messages as a whole, or nothing.

        Raises `StoreRejected` for what the store will never accept.
        """
        ...

    def busy(self, game_id: str) -> bool:
        """Return whether the game has an unfinished operation."""
        ...

    def alarms(self, kind: AlarmKind) -> Mapping[str, Alarm]:
        """Return the raised alarms of a kind by game, of containers that run by their records."""
        ...

    def forget_old_alarms(self) -> None:
        """Delete the alarms of containers whose records are not running any more."""
        ...

    def running(self) -> Sequence[RunningGame]:
        """Return the part of the records of running games that a pass compares."""
        ...

    def records_of(self, game_ids: Collection[str]) -> Sequence[RuntimeRecord]:
        """Return the records of these games; games without one are left out."""
        ...

    def namesakes(self, game_ids: Collection[str]) -> Mapping[str, str]:
        """Return which of these games have a name that another game's record holds but for the case, with that game."""
        ...

    def stopped_before(self, moment: datetime, limit: int) -> Sequence[RuntimeRecord]:
        """Return up to `limit` stopped records with the oldest last operation, those before `moment`."""
        ...

    def now(self) -> datetime:
        """Return the time of the store's clock, which plans and counts restarts: hosts' clocks may differ."""
        ...

    def queue_restart(
        self,
        due_by: datetime,
        *,
        cause: RestartCause = RestartCause.CRASH,
        at_once: int = MOST_AT_ONCE,
        oldest: datetime | None = None,
        pauses_s: Sequence[float] = (),
        refused: Callable[[str, StoreRejected], None] | None = None,
    ) -> Sequence[Request]:
        """Queue the due restarts of a cause as ordinary operations; return what was queued.

        At most `at_once` are queued. After an outage, restarts under way count towards it, whichever instance queued
        them, except those that were deferred or parked. A restart that the store will never accept is dropped and
        passed to `refused`. A restart due before `oldest` is dropped as out of date. `pauses_s`: the longest pause
        before each try, the last one for all others. One due later than that after `due_by` was planned by a clock that
        was ahead, and counts as due. One that another status of its game has overtaken is dropped. One
        whose game has an operation in progress is left: the end of that operation decides on it.
        """
        ...

    def drop_restarts(self, cause: RestartCause) -> None:
        """Drop all planned restarts of a cause."""
        ...

    def restarts_since(self, game_id: str, moment: datetime) -> int:
        """Return how many restarts after a crash the game has had since `moment`."""
        ...


#: Longest lease of another instance, as a multiple of this instance's: the other's periods may be longer.
AHEAD_TIMES = 2.0
#: Seconds: an alarm raised later than this after now was raised by a clock that was ahead.
AHEAD_S = 60.0
#: Seconds between two reports that one container's memory ran out. A child that leaks dies many times a minute, while
#: its engine lives on.
OOM_PAUSE_S = 60.0


class Leases(Protocol):
    """Work that one instance does for all. Raises `Unavailable("postgres", …)`."""

    def mine(self, work: str, for_s: float) -> bool:
        """Take or renew the lease for `for_s` seconds from now; return whether this instance holds it.

        It expires unless renewed. A lease that would last longer than `AHEAD_TIMES` as long is taken over: a clock that
        was ahead set it.
        """
        ...


#: Length of a lease in periods: another instance takes over after so long without a renewal.
LEASE_PERIODS = 3.0


@contextmanager
def lease(leases: Leases, work: str, period_s: float) -> Iterator[bool]:
    """Yield whether this instance does the work of this period; it keeps the lease as long as it renews it.

    After a `DependencyError` it releases the lease, so that another instance can take it.
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
    """The container events that matter here, in Docker's words."""

    DIE = "die"
    OOM = "oom"
    DESTROY = "destroy"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """One event; `time_ns` (0: unknown) and the other fields are the same for every subscriber.

    It has no exit code, because a label could falsify it; `inspect` returns the code.
    """

    what: ContainerEventKind
    game_id: str
    container_id: str
    time_ns: int
    #: The signal of a kill. A label of that name hides it, see `signal_is_label`.
    signal: str = ""
    #: Whether the container has a label `signal`, which the event does not separate from the signal of a kill.
    signal_is_label: bool = False
    #: The deployment in the container's labels; empty when there is none.
    deployment: str = ""

    @property
    def explains_for_s(self) -> float:
        """Seconds for which the signal of a kill explains an end; a hidden signal may be any."""
        return STOP_EXPLAINS_S if self.signal_is_label else explains_for_s(self.signal)


@dataclass(frozen=True, slots=True)
class UnreadableEvent:
    """An event that cannot be read; a pass finds what it was about."""

    why: str


class EventFeed(Protocol):
    """The runtime's events: hints, not a log; a pass finds what was missed."""

    def connect(self) -> None:
        """Subscribe from where the last subscription ended. Raises `Unavailable`."""
        ...

    def listen(self) -> Iterator[ContainerEvent | UnreadableEvent]:
        """Yield events as they arrive, each once; ends after a while, without a gap to the next `connect`.

        Raises `Unavailable` when the connection is lost: then events may be missing.
        """
        ...

    def interrupt(self) -> None:
        """End the subscription on another thread, for good."""
        ...


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """What to probe; `key` is the caller's name for it."""

    key: str
    host: str
    port: int


class ProbeResult(Protocol):
    """The result of a probe: its HTTP status, and why it failed (empty if it did not)."""

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
    """Probes many engines at once. A key that is missing from the result was not probed."""

    def probe(self, targets: Sequence[ProbeTarget], timeout_s: float) -> Mapping[str, ProbeResult]: ...
