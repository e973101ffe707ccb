"""start: gives a game that does not run a new container (contract, "Operations")."""

from __future__ import annotations

from dataclasses import replace

from rtmanager.domain.errors import ErrorCode, OperationFailed
from rtmanager.domain.operation import Completion
from rtmanager.domain.record import Status, has_no_name
from rtmanager.operations.launch import check_names, launch, launched_before, prepare, require_allowed, retire
from rtmanager.operations.progress import Progress
from rtmanager.operations.tools import Tools


def nothing_to_start(progress: Progress, tools: Tools) -> Completion | None:
    """Return the completion for a game that already runs; None for any other. Raises `OperationFailed`."""
    record, image_ref = progress.seen, progress.operation.request.image_ref
    check_names(progress.operation.game_id, image_ref)
    running = record if record is not None and record.status is Status.RUNNING else None
    if running is not None and running.current_image_ref == image_ref:
        return progress.replayed(f"game {running.game_id} runs {image_ref} already")
    if progress.operation.generation == 1:  # an earlier try may have started the game
        require_allowed(progress, tools, image_ref)
    if running is not None:
        raise OperationFailed(
            ErrorCode.CONFLICT,
            f"game {running.game_id} runs {running.current_image_ref}; stop it first, or patch it to {image_ref}",
        )
    return None


def start(progress: Progress, tools: Tools) -> Completion:
    """Start a game that does not run. Raises `OperationFailed`, `ClaimLost` or `Unavailable`."""
    record, image_ref = progress.seen, progress.operation.request.image_ref
    if has_no_name(record):
        _claim_name(progress, tools)
    if progress.pull is None:  # requested once, not again after the pull
        tools.query_lobby(progress.operation.game_id)
    if launched_before(progress, tools, image_ref):
        return progress.succeeded()
    require_allowed(progress, tools, image_ref)
    spec = prepare(progress, tools, image_ref)
    if record is not None and record.current_container_id is not None:
        retire(progress, tools, record.current_container_id)
        progress.set_record(replace(record, current_container_id=None))
    launch(progress, tools, spec)
    return progress.succeeded()


def _claim_name(progress: Progress, tools: Tools) -> None:
    """Claim the game's name. Raises `OperationFailed` when another game has the same host name, or is about to."""
    namesake = tools.claim_name(progress.operation)
    if namesake is None:
        return
    game_id, other = progress.operation.game_id, namesake.game_id
    state = f"is {namesake.status}" if namesake.status else "is being started"
    raise OperationFailed(
        ErrorCode.CONFLICT,
        f"game {other} {state}, and its name is that of game {game_id} but for the case, which Docker's DNS ignores; "
        f"use another id, or stop game {other} and clean it up first",
    )
