"""restart and patch: the same game in a new container, as one operation with three log rows.

Everything that can fail without harm comes first, while the old container still runs: the checks, then the creation of
the new container, under a name of its own and not started. Then the old container is stopped and removed. The new one
takes its name and is started; if that start fails, the game is stopped.
"""

from __future__ import annotations

from rtmanager.domain.container import ContainerSpec, NameConflict, resolve_name_conflict
from rtmanager.domain.errors import DependencyError, ErrorCode, InvalidValue, OperationFailed
from rtmanager.domain.game import shown
from rtmanager.domain.image_ref import may_patch, parse_image_ref, version_of
from rtmanager.domain.operation import Completion, OpKind
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.operations.launch import (
    NAME_TRIES,
    Confirm,
    launch,
    launched_before,
    prepare,
    refusals,
    require_allowed,
    retire,
    stays_taken,
    taken_by,
)
from rtmanager.operations.progress import Progress
from rtmanager.operations.stop import began_to_end, end_container, end_of
from rtmanager.operations.tools import Tools
from rtmanager.ports.runtime import ContainerNotFound, NameTaken, StillRunning
from rtmanager.ports.store import ClaimLost


def restart(progress: Progress, tools: Tools) -> Completion:
    """Run the game's current image in a new container. Raises `OperationFailed`, `ClaimLost`, `Unavailable`."""
    record = _with_container(progress)
    return _recreate(progress, tools, record, record.current_image_ref or "")


def patch(progress: Progress, tools: Tools) -> Completion:
    """Run another patch version of the game's image. Raises `OperationFailed`, `ClaimLost`, `Unavailable`."""
    record, image_ref = _with_container(progress), progress.operation.request.image_ref
    _check_reference(image_ref)
    if record.current_image_ref != image_ref and progress.operation.generation == 1:
        require_allowed(progress, tools, image_ref)
    _check_versions(record.current_image_ref or "", image_ref)
    if record.status is Status.RUNNING and record.current_image_ref == image_ref:
        return progress.replayed(f"game {record.game_id} runs {image_ref} already")
    return _recreate(progress, tools, record, image_ref)


def _with_container(progress: Progress) -> RuntimeRecord:
    record = progress.known
    if record.status is Status.REMOVED:
        kind = progress.operation.request.kind
        raise OperationFailed(
            ErrorCode.CONFLICT,
            f"game {record.game_id} is removed, there is nothing to {kind}; start it instead",
        )
    return record


def _check_reference(image_ref: str) -> None:
    try:
        parse_image_ref(image_ref)
    except InvalidValue as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error


def _check_versions(current: str, wanted: str) -> None:
    try:
        versions = version_of(current), version_of(wanted)
    except InvalidValue as error:
        raise OperationFailed(ErrorCode.IMAGE_REF_NOT_SEMVER, str(error)) from error
    if not may_patch(*versions):
        raise OperationFailed(
            ErrorCode.SEMVER_PATCH_ONLY,
            f"{shown(wanted)} is no patch of {shown(current)}: only the third number may differ; "
            "stop the game and start it with the other version instead",
        )


def _recreate(progress: Progress, tools: Tools, record: RuntimeRecord, image_ref: str) -> Completion:
    if launched_before(progress, tools, image_ref):
        progress.note_part(OpKind.STOP, None if _has_to_stop(record) else ErrorCode.REPLAY_NO_OP)
        progress.note_part(OpKind.START)
        return progress.succeeded()
    if progress.operation.generation == 1 or not _began_to_stop(progress, tools, record):
        require_allowed(progress, tools, image_ref)
    try:
        spec = prepare(progress, tools, image_ref)
        _check_name(tools, record, spec)
        next_id = _create_next(progress, tools, spec)
    except OperationFailed:
        _note_what_is_left(progress, tools, record)
        raise
    try:
        _replace(progress, tools, record, spec, next_id)
    except (OperationFailed, ClaimLost):
        _discard(tools, next_id)
        raise
    if progress.launched != next_id:
        _discard(tools, next_id)
    return progress.succeeded()


def _check_name(tools: Tools, record: RuntimeRecord, spec: ContainerSpec) -> None:
    """Raise `OperationFailed` when a container with the game's name would block the new one."""
    try:
        found = tools.runtime.inspect(spec.name)
    except ContainerNotFound:
        return
    if found.container_id != record.current_container_id and resolve_name_conflict(found, spec) is NameConflict.REFUSE:
        raise taken_by(found, spec)


def _create_next(progress: Progress, tools: Tools, spec: ContainerSpec) -> str:
    """Create the new container beside the old one. Raises `OperationFailed` when the runtime rejects it."""
    last = ""
    for _ in range(NAME_TRIES):
        try:
            with refusals():
                return tools.runtime.create_next(spec)
        except NameTaken as error:
            last = str(error)
            tools.confirm(progress.operation)
            _free_next_name(tools, spec)
    raise stays_taken(spec.next_name, last)


def _free_next_name(tools: Tools, spec: ContainerSpec) -> None:
    """Remove the container of an earlier try. Raises `OperationFailed` for any other, and for one with a process."""
    try:
        found = tools.runtime.inspect(spec.next_name)
        ours = found.is_next and found.game_id == spec.game_id and spec.network in found.networks | {found.made_for}
        if not (ours and found.ended):
            raise taken_by(found, spec)
        tools.runtime.remove(found.container_id)
    except ContainerNotFound:
        tools.logger.debug("the name is free again", extra={"container": spec.next_name})
    except StillRunning as error:
        raise OperationFailed(ErrorCode.CONTAINER_START_FAILED, str(error)) from error


def _replace(progress: Progress, tools: Tools, record: RuntimeRecord, spec: ContainerSpec, next_id: str) -> None:
    """Remove the old container and start the new one in its place."""
    _stop_part(progress, tools, record)
    if record.current_container_id is not None:
        retire(progress, tools, record.current_container_id)
    progress.set_record(record.stopped_without_container(progress.now()))

    def promote(confirm: Confirm) -> str:
        try:
            tools.runtime.promote(next_id, spec, confirm)
        except ContainerNotFound:  # `docker container prune` removes containers that are not started
            tools.logger.warning("the new container was removed meanwhile", extra={"container_id": next_id})
            return tools.runtime.launch(spec, confirm)
        return next_id

    with progress.part(OpKind.START):
        launch(progress, tools, spec, promote)


def _discard(tools: Tools, next_id: str) -> None:
    """Remove the new container that is not needed; if that fails, the reconciler removes it."""
    try:
        tools.runtime.remove(next_id)
    except ContainerNotFound:
        tools.logger.debug("the new container is gone already", extra={"container_id": next_id})
    except (StillRunning, DependencyError) as error:
        extra = {"container_id": next_id, "error": str(error)}
        tools.logger.warning("the new container is left, the reconciler removes it", extra=extra)


def left_half_done(progress: Progress, tools: Tools) -> bool:
    """Return whether an earlier try of a restart or patch has ended the container that is running by the record."""
    record = progress.seen
    if record is None or not _began_to_stop(progress, tools, record):
        return False
    try:
        return not tools.runtime.inspect(record.current_container_id or "").alive
    except ContainerNotFound:
        return True


def _note_what_is_left(progress: Progress, tools: Tools, record: RuntimeRecord) -> None:
    """Note what an earlier try of this operation has done: it may have stopped or removed the container.

    The container may also have ended without it, such as by an outage. The watch records that end, and the game may
    come back.
    """
    if not _began_to_stop(progress, tools, record):
        return
    try:
        view = tools.runtime.inspect(record.current_container_id or "")
        if view.ended:
            progress.last_exit = end_of(progress, tools, view, by_manager=True)
            progress.set_record(record.stopped(progress.now()))
    except ContainerNotFound:
        progress.set_record(record.stopped_without_container(progress.now()))


def _began_to_stop(progress: Progress, tools: Tools, record: RuntimeRecord) -> bool:
    return record.status is Status.RUNNING and began_to_end(progress, tools, record.current_container_id)


def _has_to_stop(record: RuntimeRecord) -> bool:
    return record.status is Status.RUNNING and record.current_container_id is not None


def _stop_part(progress: Progress, tools: Tools, record: RuntimeRecord) -> None:
    if not _has_to_stop(record) or record.current_container_id is None:
        progress.note_part(OpKind.STOP, ErrorCode.REPLAY_NO_OP)
        return
    with progress.part(OpKind.STOP):
        try:
            end_container(progress, tools, record.current_container_id)
        except ContainerNotFound:
            tools.logger.info("container was gone already", extra={"container_id": record.current_container_id})
        progress.set_record(record.stopped(progress.now()))
