"""Health events and the snapshot that each one leaves.

An event is what happened. The snapshot is the state since then, and follows from the event:

| event                  | snapshot status          |
| ---------------------- | ------------------------ |
| container_started      | healthy                  |
| probe_recovered        | healthy                  |
| container_exited       | exited                   |
| container_oom          | oom                      |
| container_disappeared  | container_disappeared    |
| inspect_unhealthy      | inspect_unhealthy        |
| probe_failed           | probe_failed             |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class EventType(StrEnum):
    """Events of a game's container, as the contract names them."""

    CONTAINER_STARTED = "container_started"
    CONTAINER_EXITED = "container_exited"
    CONTAINER_OOM = "container_oom"
    CONTAINER_DISAPPEARED = "container_disappeared"
    INSPECT_UNHEALTHY = "inspect_unhealthy"
    PROBE_FAILED = "probe_failed"
    PROBE_RECOVERED = "probe_recovered"


class HealthStatus(StrEnum):
    """The last technical health observation of a game."""

    HEALTHY = "healthy"
    PROBE_FAILED = "probe_failed"
    EXITED = "exited"
    OOM = "oom"
    INSPECT_UNHEALTHY = "inspect_unhealthy"
    CONTAINER_DISAPPEARED = "container_disappeared"


class HealthSource(StrEnum):
    """How an observation was made."""

    DOCKER_EVENT = "docker_event"
    INSPECT = "inspect"
    PROBE = "probe"


SNAPSHOT_STATUS: Mapping[EventType, HealthStatus] = {
    EventType.CONTAINER_STARTED: HealthStatus.HEALTHY,
    EventType.PROBE_RECOVERED: HealthStatus.HEALTHY,
    EventType.CONTAINER_EXITED: HealthStatus.EXITED,
    EventType.CONTAINER_OOM: HealthStatus.OOM,
    EventType.CONTAINER_DISAPPEARED: HealthStatus.CONTAINER_DISAPPEARED,
    EventType.INSPECT_UNHEALTHY: HealthStatus.INSPECT_UNHEALTHY,
    EventType.PROBE_FAILED: HealthStatus.PROBE_FAILED,
}


@dataclass(frozen=True, slots=True)
class HealthEvent:
    """One observation of one container; its snapshot and its message are written together."""

    game_id: str
    container_id: str
    event_type: EventType
    source: HealthSource
    occurred_at: datetime
    details: Mapping[str, object] = field(default_factory=dict)
    #: Whether the event is published; otherwise only the snapshot changes.
    published: bool = True

    @property
    def status(self) -> HealthStatus:
        """The game's status since this event."""
        return SNAPSHOT_STATUS[self.event_type]
