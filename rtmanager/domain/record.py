"""The record of a game, and the table of its transitions.

| from     | may become        | by                                        |
| -------- | ----------------- | ----------------------------------------- |
| (none)   | running           | start, adoption                           |
| running  | stopped, removed  | stop, restart and patch; ended, gone      |
| stopped  | running, removed  | start, restart, patch, adoption; cleanup  |
| removed  | running           | a new start, adoption                     |

`running → running` is a restart or a patch: another container, one transition. `stopped → stopped` is a stopped game
whose new container could not be started. PostgreSQL checks every change against the status and the container that the
deciding code read (`adapters/postgres`). A decision on an old record therefore changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """The last known state of a game's container."""

    RUNNING = "running"
    STOPPED = "stopped"
    REMOVED = "removed"


ALLOWED: frozenset[tuple[Status | None, Status]] = frozenset(
    {
        (None, Status.RUNNING),
        (Status.RUNNING, Status.RUNNING),
        (Status.RUNNING, Status.STOPPED),
        (Status.RUNNING, Status.REMOVED),
        (Status.STOPPED, Status.RUNNING),
        (Status.STOPPED, Status.STOPPED),
        (Status.STOPPED, Status.REMOVED),
        (Status.REMOVED, Status.RUNNING),
    }
)


@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """One row of `runtime_records`; times are aware datetimes in UTC."""

    game_id: str
    status: Status
    current_container_id: str | None
    current_image_ref: str | None
    engine_endpoint: str
    state_path: str
    docker_network: str
    started_at: datetime | None
    stopped_at: datetime | None
    removed_at: datetime | None
    last_op_at: datetime
    created_at: datetime

    def stopped(self, now: datetime) -> RuntimeRecord:
        """The record after the process has ended; the container is still there."""
        return replace(self, status=Status.STOPPED, stopped_at=now, last_op_at=now)

    def stopped_without_container(self, now: datetime) -> RuntimeRecord:
        """The record after a restart or a patch removed the old container and could not start the new one.

        The game is stopped and a restart brings it back; there is no container to clean up.
        """
        return replace(self.stopped(now), current_container_id=None)

    def removed(self, now: datetime) -> RuntimeRecord:
        """The record after the container is gone; it keeps the last image."""
        return replace(self, status=Status.REMOVED, current_container_id=None, removed_at=now, last_op_at=now)


def has_no_name(record: RuntimeRecord | None) -> bool:
    """Return whether this record lets another game take the game's name."""
    return record is None or record.status is Status.REMOVED


def check_transition(seen: RuntimeRecord | None, new: RuntimeRecord) -> None:
    """Raise `AssertionError` unless a record may become another; None: there is none."""
    step = (seen.status if seen else None, new.status)
    if step not in ALLOWED:
        raise AssertionError(f"game {new.game_id}: no transition {step[0]} → {step[1]}")
