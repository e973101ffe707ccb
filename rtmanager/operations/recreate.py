"""restart and patch: the same game in a new container, as one operation with three log rows.

Everything that can fail without harm comes first, while the old container still serves. After that the old
container is stopped and removed and the new one started; if that start fails, the game is stopped.
"""

from __future__ import annotations

from rtmanager.domain.errors import ErrorCode, InvalidValue, OperationFailed
from rtmanager.domain.game import shown
from rtmanager.domain.image_ref import may_patch, parse_image_ref, version_of
from rtmanager.domain.operation import Ending, OpKind
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.operations.launch import launch, launched_before, prepare, retire
from rtmanager.operations.ports import ContainerNotFound
from rtmanager.operations.progress import Progress
from rtmanager.operations.tools import Tools


def restart(progress: Progress, tools: Tools) -> Ending:
    """Run the game's current image in a new container. Raises `OperationFailed`, `OwnershipLost`, `Unavailable`."""
    record = _with_container(progress)
    return _recreate(progress, tools, record, record.current_image_ref or "")


def patch(progress: Progress, tools: Tools) -> Ending:
    """Run another patch version of the game's image. Raises `OperationFailed`, `OwnershipLost`, `Unavailable`."""
    record, image_ref = _with_container(progress), progress.operation.request.image_ref
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


def _check_versions(current: str, wanted: str) -> None:
    try:
        parse_image_ref(wanted)
    except InvalidValue as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error
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


def _recreate(progress: Progress, tools: Tools, record: RuntimeRecord, image_ref: str) -> Ending:
    if launched_before(progress, tools, image_ref):
        progress.note_part(OpKind.STOP, None if _has_to_stop(record) else ErrorCode.REPLAY_NO_OP)
        progress.note_part(OpKind.START)
        return progress.succeeded()
    try:
        spec = prepare(progress, tools, image_ref)
    except OperationFailed:
        _note_what_is_left(progress, tools, record)
        raise
    _stop_part(progress, tools, record)
    if record.current_container_id is not None:
        retire(progress, tools, record.current_container_id)
    progress.set_record(record.stopped_without_container(progress.now()))
    with progress.part(OpKind.START):
        launch(progress, tools, spec)
    return progress.succeeded()


def left_half_done(progress: Progress, tools: Tools) -> bool:
    """Whether an earlier try of a restart or a patch has ended the container that runs by the record."""
    record = progress.seen
    if progress.operation.generation == 1 or record is None or record.status is not Status.RUNNING:
        return False
    try:
        return not tools.runtime.inspect(record.current_container_id or "").alive
    except ContainerNotFound:
        return True


def _note_what_is_left(progress: Progress, tools: Tools, record: RuntimeRecord) -> None:
    """Nothing was done now; but an earlier try of this operation may have stopped the container, or removed it."""
    if progress.operation.generation == 1 or record.status is not Status.RUNNING:
        return
    try:
        if tools.runtime.inspect(record.current_container_id or "").ended:
            progress.set_record(record.stopped(progress.now()))
    except ContainerNotFound:
        progress.set_record(record.stopped_without_container(progress.now()))


def _has_to_stop(record: RuntimeRecord) -> bool:
    return record.status is Status.RUNNING and record.current_container_id is not None


def _stop_part(progress: Progress, tools: Tools, record: RuntimeRecord) -> None:
    if not _has_to_stop(record) or record.current_container_id is None:
        progress.note_part(OpKind.STOP, ErrorCode.REPLAY_NO_OP)
        return
    tools.confirm(progress.operation)
    progress.committed = True
    with progress.part(OpKind.STOP):
        try:
            tools.runtime.stop(record.current_container_id, tools.settings.stop_grace_s)
        except ContainerNotFound:
            tools.logger.info("container was gone already", extra={"container_id": record.current_container_id})
        progress.set_record(record.stopped(progress.now()))
