"""stop: signals the engine to end, then kills it; its container stays until cleanup.

Every operation that ends a recorded container uses `end_container`, which notes how it ended.
"""

from __future__ import annotations

from rtmanager.domain.container import ContainerView
from rtmanager.domain.errors import DependencyError
from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.operation import Completion
from rtmanager.domain.outage import LastExit, RequestedBy
from rtmanager.domain.record import Status
from rtmanager.operations.progress import Progress, storable
from rtmanager.operations.tools import Tools, end_of_log
from rtmanager.ports.runtime import ContainerNotFound


def nothing_to_stop(progress: Progress) -> Completion | None:
    """Return the completion for a game that does not run; None for any other. Raises `OperationFailed`."""
    record = progress.known
    if record.status is not Status.RUNNING or record.current_container_id is None:
        return progress.replayed(f"game {record.game_id} is {record.status} already")
    return None


def stop(progress: Progress, tools: Tools) -> Completion:
    """Stop a game that runs. Raises `OperationFailed`, `ClaimLost` or `Unavailable`."""
    record = progress.known
    assert record.current_container_id is not None
    try:
        end_container(progress, tools, record.current_container_id)
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


def end_container(progress: Progress, tools: Tools, container_id: str) -> None:
    """Stop the container that the record names, and note how it ended.

    Raises `ContainerNotFound`, `ClaimLost` or `Unavailable`.
    """
    tools.confirm(progress.operation)
    progress.committed = True
    ended_now = tools.runtime.stop(container_id, tools.settings.stop_grace_s)
    record = progress.record
    # For a stopped record, an earlier end is on record already.
    if ended_now or (record is not None and record.status is Status.RUNNING):
        _note_exit(progress, tools, container_id, ended_now=ended_now)


def end_of(progress: Progress, tools: Tools, view: ContainerView, *, ended_now: bool) -> LastExit:
    """Return how a container ended that was stopped now, or has no process although its record is running."""
    # An earlier try may have stopped it without an answer. Otherwise it ended by itself, and nothing has recorded that
    # yet.
    if ended_now or progress.again:
        return LastExit.of(view, progress.now()).explained(RequestedBy.MANAGER)
    log = storable(end_of_log(tools.runtime, view.container_id))
    return LastExit.of(view, progress.now()).explained(RequestedBy.UNKNOWN, log)


def _note_exit(progress: Progress, tools: Tools, container_id: str, *, ended_now: bool) -> None:
    """Note how the container ended. The stop has succeeded even if this cannot be read."""
    try:
        view = tools.runtime.inspect(container_id)
    except (ContainerNotFound, DependencyError) as error:
        extra = {"container_id": container_id, "error": str(error)}
        tools.logger.warning("how the stopped container ended cannot be read", extra=extra)
        return
    if view.ended:  # # otherwise a person has started it again
        progress.last_exit = end_of(progress, tools, view, ended_now=ended_now)
