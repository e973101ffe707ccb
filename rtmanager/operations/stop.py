"""stop: signals the engine to end, then kills it; its container stays until cleanup.

Every operation that ends a recorded container uses `end_container`, which notes how it ended.
"""

from __future__ import annotations

from rtmanager.domain.container import ContainerView
from rtmanager.domain.errors import DependencyError, TemporaryAnswer, Unavailable
from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.operation import Completion
from rtmanager.domain.outage import LastExit, RequestedBy, requested_by
from rtmanager.domain.record import Status
from rtmanager.operations.progress import Progress, storable
from rtmanager.operations.tools import Tools, end_of_log
from rtmanager.ports.runtime import ContainerNotFound


def nothing_to_stop(progress: Progress, _: Tools) -> Completion | None:
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
    # Noted first: an earlier try may have stopped it without an answer.
    tried_before = tools.note_end(progress.operation, container_id) == container_id
    progress.committed = True
    try:
        ended_now = tools.runtime.stop(container_id, tools.settings.stop_grace_s)
    except Unavailable as error:
        if not tried_before:
            _withdraw_note(progress, tools, error)
        raise
    record = progress.record
    # For a stopped record, an earlier end is on record already.
    if ended_now or (record is not None and record.status is Status.RUNNING):
        _note_exit(progress, tools, container_id, by_manager=ended_now or tried_before)


def began_to_end(progress: Progress, tools: Tools, container_id: str | None) -> bool:
    """Return whether the operation, in this try or an earlier one, has begun to stop this container."""
    return container_id is not None and tools.noted_end(progress.operation) == container_id


def end_of(progress: Progress, tools: Tools, view: ContainerView, *, by_manager: bool) -> LastExit:
    """Return how a container ended that has no process although its record is running.

    Unless the operation has stopped it, it ended before, and nothing has recorded that yet.
    """
    last_exit = LastExit.of(view, progress.now())
    if by_manager:
        return last_exit.explained(RequestedBy.MANAGER)
    return last_exit.explained(_requested_by(tools, view), storable(end_of_log(tools.runtime, view.container_id)))


def _withdraw_note(progress: Progress, tools: Tools, error: Unavailable) -> None:
    """Withdraw the note of an end whose request did not reach the runtime: whatever ends the container is another."""
    # A temporary answer to a stop may follow a signal that was sent.
    if not error.untouched or isinstance(error, TemporaryAnswer):
        return
    try:
        tools.note_end(progress.operation, None)
    except DependencyError as failure:
        tools.logger.warning("an end stays noted that was not requested", extra={"error": str(failure)})


def _requested_by(tools: Tools, view: ContainerView) -> RequestedBy:
    """Return who requested an end that no operation requested, as far as the runtime's present run shows it."""
    try:
        run = tools.runtime.present_run()
    except DependencyError as error:
        tools.logger.debug("the begin of the present run cannot be read", extra={"error": str(error)})
        return RequestedBy.UNKNOWN
    return requested_by(view, run)


def _note_exit(progress: Progress, tools: Tools, container_id: str, *, by_manager: bool) -> None:
    """Note how the container ended. The stop has succeeded even if this cannot be read."""
    try:
        view = tools.runtime.inspect(container_id)
    except (ContainerNotFound, DependencyError) as error:
        extra = {"container_id": container_id, "error": str(error)}
        tools.logger.warning("how the stopped container ended cannot be read", extra=extra)
        return
    if view.ended:  # otherwise a person has started it again
        progress.last_exit = end_of(progress, tools, view, by_manager=by_manager)
