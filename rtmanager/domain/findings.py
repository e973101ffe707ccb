"""Findings of the watching workers about a game, and everything that a finding changes.

A finding rests on a record as it was read. It is written as a whole or not at all, and only while the record is
unchanged and no operation of the game is under way. An operation corrects its game's record by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rtmanager.domain.health import HealthSource, HealthStatus
from rtmanager.domain.operation import Changes
from rtmanager.domain.outage import LastExit
from rtmanager.domain.record import has_no_name


class AlarmKind(StrEnum):
    """What can be wrong with a live container; at most one alarm of a kind per game."""

    PROBE = "probe"
    INSPECT = "inspect"
    OOM = "oom"


class RestartCause(StrEnum):
    """Why the manager restarts a game by itself; the first word of the operation's `source_ref`."""

    CRASH = "crash"
    OUTAGE = "outage"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A reported problem of a container; `mark` separates one occasion from the next."""

    kind: AlarmKind
    container_id: str
    mark: str
    raised_at: datetime
    details: Mapping[str, object] = field(default_factory=dict)
    #: Whether the game is not restarted, because its restart budget is used up.
    restart_given_up: bool = False


@dataclass(frozen=True, slots=True)
class Finding(Changes):
    """One finding about one game, and everything that it changes.

    With `raises` it is written only if that alarm is not raised yet, with `calms` only if an alarm of that kind is.
    Several instances thus report a finding once.
    """

    game_id: str
    why: str
    raises: Alarm | None = None
    calms: AlarmKind | None = None
    #: Ends the snapshot inspect_unhealthy of a container; there is no event for that.
    restores: bool = False
    #: When to restart the game; None: not at all.
    restart_at: datetime | None = None
    restart_cause: RestartCause = RestartCause.CRASH

    @property
    def claims_name(self) -> bool:
        """Whether the record gives the game no name so far, and the finding gives it one."""
        return self.new is not None and has_no_name(self.seen)


@dataclass(frozen=True, slots=True)
class Stray:
    """A container that disagrees with its record, or has none and cannot be adopted. Reported, never changed."""

    game_id: str
    container_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The last stored observation of a game."""

    container_id: str
    status: HealthStatus
    source: HealthSource
    details: Mapping[str, object]
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The health of a game: last observation, last exit of a container, next restart."""

    snapshot: Snapshot | None = None
    last_exit: LastExit | None = None
    restart_due_at: datetime | None = None
    #: Whether its probes fail and it is not restarted, because its restart budget is used up.
    probe_restart_given_up: bool = False
