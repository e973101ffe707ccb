"""cleanup: removes the container of a stopped game; the game's directory always stays."""

from __future__ import annotations

from rtmanager.domain.errors import ErrorCode, OperationFailed
from rtmanager.domain.operation import Completion
from rtmanager.domain.record import Status
from rtmanager.operations.progress import Progress
from rtmanager.operations.tools import Tools
from rtmanager.ports.runtime import ContainerNotFound, StillRunning


def cleanup(progress: Progress, tools: Tools) -> Completion:
    """Remove the game's container. Raises `OperationFailed`, `ClaimLost` or `Unavailable`."""
    record = progress.known
    if record.status is Status.REMOVED:
        return progress.replayed(f"the container of game {record.game_id} is removed already")
    if record.status is Status.RUNNING:
        raise OperationFailed(ErrorCode.CONFLICT, f"game {record.game_id} is running; stop it first")
    if record.current_container_id is not None:
        tools.confirm(progress.operation)
        try:
            tools.runtime.remove(record.current_container_id)
        except ContainerNotFound:
            tools.logger.debug("container was gone already", extra={"container_id": record.current_container_id})
        except StillRunning as error:
            raise OperationFailed(
                ErrorCode.CONFLICT,
                f"{error}, though its record says stopped: a person started it; restart the game, or docker stop it",
            ) from error
    progress.set_record(record.removed(progress.now()))
    return progress.succeeded()
