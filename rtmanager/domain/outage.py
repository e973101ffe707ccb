"""Who ended a container: a person, Docker as it stopped or started, or the host.

A container that began before the runtime's present run and does not run ended with the run before, unless the
runtime keeps containers alive across its own restarts (live-restore). Both times are of the runtime's clock.

| signal heard | container began | live-restore | exit code | requested by | outage |
| ------------ | --------------- | ------------ | --------- | ------------ | ------ |
| by a person  | any             | any          | any       | signal       | no     |
| other, none  | before the run  | off          | 255       | host         | yes    |
| other, none  | before the run  | off          | other     | docker       | yes    |
| other, none  | before the run  | on           | 255       | host         | yes    |
| other        | otherwise       |              | any       | signal       | no     |
| none         | otherwise       |              | any       | unknown      | no     |
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rtmanager.domain.container import ContainerView

#: What Docker records for a container whose process vanished with the host.
LOST = 255


@dataclass(frozen=True, slots=True)
class RuntimeRun:
    """The present run of the container runtime: its begin, and whether containers live on across its restarts."""

    #: None when the runtime does not tell; then no end counts as an outage.
    began_at: datetime | None = None
    keeps_containers: bool = False


class RequestedBy(StrEnum):
    """Who requested the end of a container, as far as it is known."""

    MANAGER = "manager"
    SIGNAL = "signal"
    DOCKER = "docker"
    HOST = "host"
    UNKNOWN = "unknown"


#: Ends that no person and no engine caused.
OUTAGES = frozenset({RequestedBy.DOCKER, RequestedBy.HOST})


def requested_by(view: ContainerView, run: RuntimeRun, *, signalled: bool, by_person: bool) -> RequestedBy:
    """`signalled`: a signal to end was heard; `by_person`: and the runtime accepted calls after it."""
    if by_person:
        return RequestedBy.SIGNAL
    if _ended_with_a_run(view, run):
        return RequestedBy.HOST if view.exit_code == LOST else RequestedBy.DOCKER
    return RequestedBy.SIGNAL if signalled else RequestedBy.UNKNOWN


def _ended_with_a_run(view: ContainerView, run: RuntimeRun) -> bool:
    if run.began_at is None or view.started_at is None or view.started_at >= run.began_at:
        return False
    return view.exit_code == LOST if run.keeps_containers else True
