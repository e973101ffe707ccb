"""stop: the engine is asked to end, then killed; its container stays until it is cleaned up."""

from __future__ import annotations

from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.operation import Ending
from rtmanager.domain.record import Status
from rtmanager.operations.ports import ContainerNotFound
from rtmanager.operations.progress import Progress
from rtmanager.operations.tools import Tools


def nothing_to_stop(progress: Progress) -> Ending | None:
    """The end of a stop of a game that does not run; None for any other. Raises `OperationFailed`."""
    record = progress.known
    if record.status is not Status.RUNNING or record.current_container_id is None:
        return progress.replayed(f"game {record.game_id} is {record.status} already")
    return None


def stop(progress: Progress, tools: Tools) -> Ending:
    """Stop a game that runs. Raises `OperationFailed`, `OwnershipLost` or `Unavailable`."""
    record = progress.known
    assert record.current_container_id is not None
    tools.confirm(progress.operation)
    progress.committed = True
    try:
        tools.runtime.stop(record.current_container_id, tools.settings.stop_grace_s)
    except ContainerNotFound:
        progress.observe(
            HealthEvent(
                record.game_id,
                record.current_container_id,
                EventType.CONTAINER_DISAPPEARED,
                HealthSource.INSPECT,
                progress.now(),
            )
        )
        progress.set_record(record.removed(progress.now()))
    else:
        progress.set_record(record.stopped(progress.now()))
    return progress.succeeded()
