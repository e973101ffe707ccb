"""What the watching workers find out about a game, and all that it changes.

A finding is decided on a record as it was seen. It is written as a whole or not at all, and only while the record
is still that one and no operation is under way on the game: an operation settles its game by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rtmanager.domain.health import HealthEvent, HealthSource, HealthStatus
from rtmanager.domain.messages import Message
from rtmanager.domain.operation import LogEntry
from rtmanager.domain.outage import LastExit
from rtmanager.domain.record import RuntimeRecord, has_no_name


class AlarmKind(StrEnum):
    """What can be wrong with a container while it lives; one alarm of a kind per game."""

    PROBE = "probe"
    INSPECT = "inspect"
    OOM = "oom"


class RestartCause(StrEnum):
    """Why a game is started again by itself; the first word of the operation's `source_ref`."""

    CRASH = "crash"
    OUTAGE = "outage"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something is wrong with a container and was told. `mark` tells one occasion from the next."""

    kind: AlarmKind
    container_id: str
    mark: str
    raised_at: datetime
    details: Mapping[str, object] = field(default_factory=dict)
    #: Whether the game is not restarted for it, since its budget is used up.
    restart_given_up: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found out about one game.

    `seen` is the record that it was decided on and `new` what the record becomes. With `raises` it is written
    only when that alarm was not raised before, with `calms` only when one of that kind is; so what several
    instances see is told once.
    """

    game_id: str
    seen: RuntimeRecord | None
    why: str
    new: RuntimeRecord | None = None
    log: tuple[LogEntry, ...] = ()
    health: tuple[HealthEvent, ...] = ()
    last_exit: LastExit | None = None
    raises: Alarm | None = None
    calms: AlarmKind | None = None
    #: The snapshot of a container that was inspect_unhealthy says so no more; there is no event for that.
    restores: bool = False
    #: When to start the game again, and why; None: not at all.
    restart_at: datetime | None = None
    restart_cause: RestartCause = RestartCause.CRASH
    messages: tuple[Message, ...] = ()

    @property
    def claims_name(self) -> bool:
        """Whether the game has no name by its record, and is to have one."""
        return self.new is not None and has_no_name(self.seen)


@dataclass(frozen=True, slots=True)
class Stray:
    """A container that disagrees with its record, or has none and cannot be adopted. Reported, never touched."""

    game_id: str
    container_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The last technical observation of a game, as it is stored."""

    container_id: str
    status: HealthStatus
    source: HealthSource
    details: Mapping[str, object]
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What is known of a game's health: the last observation, the last end of a container of it, its next restart."""

    snapshot: Snapshot | None = None
    last_exit: LastExit | None = None
    restart_due_at: datetime | None = None
    #: Whether its probes fail and it is not restarted, since its budget is used up.
    probe_restart_given_up: bool = False
