"""stop: the engine is asked to end, then killed; its container stays until it is cleaned up.

Every operation that ends a container of its game's record does so by `end_container`, which notes how it ended.
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
    """The end of a stop of a game that does not run; None for any other. Raises `OperationFailed`."""
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
    # The end of a container that is recorded as stopped is on record already, unless it was ended just now.
    if ended_now or (record is not None and record.status is Status.RUNNING):
        _note_exit(progress, tools, container_id, ended_now=ended_now)


def end_of(progress: Progress, tools: Tools, view: ContainerView, *, ended_now: bool) -> LastExit:
    """How a container ended that was stopped now, or was found without a process though its record says running."""
    # An earlier try may have stopped it and not seen the answer. Else it ended by itself, and nobody has seen that yet.
    if ended_now or progress.again:
        return LastExit.of(view, progress.now()).explained(RequestedBy.MANAGER)
    log = storable(end_of_log(tools.runtime, view.container_id))
    return LastExit.of(view, progress.now()).explained(RequestedBy.UNKNOWN, log)


def _note_exit(progress: Progress, tools: Tools, container_id: str, *, ended_now: bool) -> None:
    """The stop has happened, so it succeeds also when this cannot be found out."""
    try:
        view = tools.runtime.inspect(container_id)
    except (ContainerNotFound, DependencyError) as error:
        extra = {"container_id": container_id, "error": str(error)}
        tools.logger.warning("how the stopped container ended cannot be read", extra=extra)
        return
    if view.ended:  # else somebody has started it again
        progress.last_exit = end_of(progress, tools, view, ended_now=ended_now)
