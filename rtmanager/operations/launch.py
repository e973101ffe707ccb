"""Starts a container for a game in two steps: all that can fail without harm, then the launch.

Restart and patch run the first step while the old container still runs. A failed pull or a missing directory then
leaves the game unchanged. Both steps may run again after a crash: a container that an earlier try left running is
taken, a dead one is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rtmanager.domain.container import (
    ContainerSpec,
    ContainerView,
    NameConflict,
    limits_of_image,
    resolve_name_conflict,
)
from rtmanager.domain.errors import ErrorCode, FinalAnswer, InvalidValue, OperationFailed, with_remedy
from rtmanager.domain.game import check_game_id, container_name, engine_endpoint, is_game_id
from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.image_ref import parse_image_ref
from rtmanager.domain.messages import epoch_ms
from rtmanager.domain.operation import OpSource
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.operations.progress import Progress
from rtmanager.operations.stop import end_container
from rtmanager.operations.tools import Tools
from rtmanager.ports.runtime import (
    ContainerNotFound,
    Image,
    ImageRefInvalid,
    ImageUnavailable,
    LaunchFailed,
    LaunchInvalid,
    NameTaken,
    NetworkAmbiguous,
    PullPending,
    PullPolicy,
    StateDirectoryInvalid,
    StillRunning,
)

#: The variable that gives every engine of the platform its state directory, beside the configured one.
STORAGE_PATH = "STORAGE_PATH"
#: Tries to get the name: each one may remove one dead container that an earlier start left behind.
NAME_TRIES = 5

#: Raises `ClaimLost` when the operation may not continue.
Confirm = Callable[[], None]
#: Starts a container after a call of its `Confirm`; returns the container's id.
Start = Callable[[Confirm], str]


def check_names(game_id: str, image_ref: str) -> None:
    """Raise `OperationFailed` for a malformed game id or image reference."""
    try:
        check_game_id(game_id)
        parse_image_ref(image_ref)
    except InvalidValue as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error


def require_allowed(progress: Progress, tools: Tools, image_ref: str) -> None:
    """Raise `OperationFailed` for a malformed image reference, and for one that the operator's policy refuses.

    The manager's own restarts do not consult the policy: it says what may be requested.
    """
    if progress.operation.request.source is OpSource.AUTO_RECONCILE:
        return
    try:
        tools.settings.image_policy.check(image_ref)
    except InvalidValue as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error


def prepare(progress: Progress, tools: Tools, image_ref: str) -> ContainerSpec:
    """Check, pull, read the limits, create the directory; changes nothing that runs.

    Raises `OperationFailed`, or `PullPending` when the operation may wait for a pull without a thread.
    """
    game_id, settings = progress.operation.game_id, tools.settings
    progress.image_ref = image_ref
    check_names(game_id, image_ref)
    try:
        has_network = tools.runtime.network_exists(settings.network)
    except NetworkAmbiguous as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, with_remedy(error)) from error
    if not has_network:
        raise OperationFailed(
            ErrorCode.START_CONFIG_INVALID,
            f"the network {settings.network!r} does not exist; create it: docker network create {settings.network}",
        )
    try:
        image = _image(progress, tools, image_ref)
        state_path = _state_path(progress, tools)
    except ImageRefInvalid as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error
    except ImageUnavailable as error:
        raise OperationFailed(ErrorCode.IMAGE_PULL_FAILED, str(error)) from error
    except StateDirectoryInvalid as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error
    _refuse_foreign(progress, tools, image)
    limits, complaints = limits_of_image(image.labels, settings.default_limits)
    for complaint in complaints:
        tools.logger.warning("limits in the labels of an image cannot be read", extra={"error": complaint})
    return ContainerSpec(
        game_id=game_id,
        image_ref=image_ref,
        network=settings.network,
        limits=limits,
        state_path=state_path,
        mount_path=settings.mount_path,
        environment={settings.state_env_name: settings.mount_path, STORAGE_PATH: settings.mount_path},
        started_at_ms=epoch_ms(progress.now()),
        log_driver=settings.log_driver,
        log_options=settings.log_options,
        deployment=settings.deployment,
    )


def _state_path(progress: Progress, tools: Tools) -> str:
    """Return the game's directory, created if it is missing. Raises as `StateDirectories.prepare`."""
    game_id, before = progress.operation.game_id, progress.seen
    # Checked before `prepare`: a failure after it would hide the loss from the next try.
    if before is not None and tools.state_directories.is_missing(game_id):
        _note_loss(progress, tools, before)
    return tools.state_directories.prepare(game_id)


def _note_loss(progress: Progress, tools: Tools, before: RuntimeRecord) -> None:
    """Report that the game ran before and its directory is gone; this is no failure."""
    path = tools.state_directories.path_of(progress.operation.game_id)
    moved = "" if before.state_path == path else f"; its record names {before.state_path}"
    warning = (
        f"state directory {path} is missing though game {before.game_id} ran before{moved}: it begins with an empty "
        "one; to bring its state back, stop the game, restore the directory and start it again"
    )
    tools.logger.warning("state directory of a game that ran before is missing", extra={"warning": warning})
    tools.count_lost_directory()
    progress.warn(warning)


def _image(progress: Progress, tools: Tools, image_ref: str) -> Image:
    """Return the image. Raises `PullPending` when the operation may be put aside until the image has been pulled."""
    if progress.pull is None:
        found = tools.runtime.request_image(image_ref, tools.settings.pull_policy)
        if isinstance(found, Image):
            return found
        progress.pull = found
        if progress.may_wait:
            raise PullPending(found)
    image = progress.pull.image()
    tools.pulled(image_ref, image.image_id)
    return image


def _refuse_foreign(progress: Progress, tools: Tools, image: Image) -> None:
    """Raise `OperationFailed` if an image of another platform would replace a game that runs on the host's own."""
    record = progress.seen
    if not image.foreign or record is None or record.status is not Status.RUNNING:
        return
    try:
        running = tools.runtime.inspect(record.current_container_id or "")
    except ContainerNotFound:
        return
    if not running.alive or running.image_id == image.image_id:
        return
    before = record.current_image_ref or ""
    if before != progress.image_ref and _is_foreign(tools, before):
        return
    raise OperationFailed(
        ErrorCode.CONTAINER_START_FAILED,
        f"image {progress.image_ref} may not run here, so the game was left as it is: {image.foreign}; build it for "
        "the host's platform; or, where the host emulates the other one, stop the game and start it with this image",
    )


def _is_foreign(tools: Tools, image_ref: str) -> bool:
    try:
        found = tools.runtime.request_image(image_ref, PullPolicy.NEVER)
    except ImageUnavailable:
        return False
    return isinstance(found, Image) and bool(found.foreign)


def launch(progress: Progress, tools: Tools, spec: ContainerSpec, start: Start | None = None) -> None:
    """Start the container, by `start` or the runtime's `launch`, and note the new state.

    Raises `OperationFailed` or `ClaimLost`.
    """
    progress.committed = True
    tools.launches()
    start = start or partial(tools.runtime.launch, spec)
    container_id = _under_its_name(tools, spec, start, partial(tools.confirm, progress.operation))
    note_running(progress, container_id, spec.image_ref, spec.state_path, spec.network)


def note_running(progress: Progress, container_id: str, image_ref: str, state_path: str, network: str) -> None:
    """Note that the game runs in this container: its record, and the health event."""
    game_id, before, now = progress.operation.game_id, progress.record, progress.now()
    progress.launched = container_id
    progress.set_record(
        RuntimeRecord(
            game_id=game_id,
            status=Status.RUNNING,
            current_container_id=container_id,
            current_image_ref=image_ref,
            engine_endpoint=engine_endpoint(game_id),
            state_path=state_path,
            docker_network=network,
            started_at=now,
            stopped_at=None,
            removed_at=None,
            last_op_at=now,
            created_at=before.created_at if before else now,
        )
    )
    details = {"image_ref": image_ref}
    source = HealthSource.INSPECT
    progress.observe(HealthEvent(game_id, container_id, EventType.CONTAINER_STARTED, source, now, details))


def launched_before(progress: Progress, tools: Tools, image_ref: str) -> bool:
    """Return whether an earlier try of this operation has started its container; if so, note it.

    A retried operation checks this before anything else. What the earlier try required may be gone (a registry that
    answered, say) and is not needed any more.
    """
    operation, settings = progress.operation, tools.settings
    if operation.generation == 1 or not is_game_id(operation.game_id):
        return False
    try:
        found = tools.runtime.inspect(container_name(operation.game_id))
    except ContainerNotFound:
        return False
    recorded = progress.seen.current_container_id if progress.seen else None
    if found.container_id == recorded or not found.runs(operation.game_id, image_ref, settings.network):
        return False
    state_path = tools.state_directories.path_of(operation.game_id)
    tools.logger.info("took the container of an earlier try", extra={"container_id": found.container_id})
    progress.image_ref = image_ref
    note_running(progress, found.container_id, image_ref, state_path, settings.network)
    return True


def retire(progress: Progress, tools: Tools, container_id: str) -> None:
    """Stop and remove the container that the record names, so that its name is free.

    It is stopped even if it is stopped by the record: a person may have started it again. Raises `OperationFailed` or
    `ClaimLost`.
    """
    try:
        end_container(progress, tools, container_id)
        tools.runtime.remove(container_id)
    except ContainerNotFound:
        tools.logger.debug("container was gone already", extra={"container_id": container_id})
    except StillRunning as error:
        raise OperationFailed(ErrorCode.CONFLICT, f"{error}: somebody starts it again and again") from error


@contextmanager
def refusals() -> Iterator[None]:
    """Convert the runtime's rejections of a create or a start to `OperationFailed`."""
    try:
        yield
    except LaunchInvalid as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error
    except LaunchFailed as error:
        raise OperationFailed(ErrorCode.CONTAINER_START_FAILED, str(error)) from error
    except FinalAnswer as error:
        if error.dependency != "docker":
            raise
        raise OperationFailed(ErrorCode.CONTAINER_START_FAILED, str(error)) from error


def _under_its_name(tools: Tools, spec: ContainerSpec, start: Start, confirm: Confirm) -> str:
    """Return the container that runs under the game's name, from `start` or an earlier try."""
    last, gone = "", ""
    for _ in range(NAME_TRIES):
        try:
            with refusals():
                return start(confirm)
        except NameTaken as error:
            last = str(error)
            confirm()
            taken = _settle_name(tools, spec)
            if taken is not None:
                return taken
        except ContainerNotFound as error:  # `docker container prune` removes containers that are not started
            gone = str(error)
            tools.logger.warning("the new container was removed before its start", extra={"error": gone})
            confirm()
    raise stays_taken(spec.name, last) if last else _stays_removed(spec.name, gone)


def _stays_removed(name: str, gone: str) -> OperationFailed:
    return OperationFailed(
        ErrorCode.CONTAINER_START_FAILED,
        f"container {name} was created {NAME_TRIES} times and removed before its start each time, as docker container "
        f"prune does; see docker events: {gone}",
    )


def stays_taken(name: str, last: str) -> OperationFailed:
    """The failure of an operation that found a name taken each time; `last` is the runtime's message."""
    return OperationFailed(
        ErrorCode.CONTAINER_START_FAILED,
        f"the name {name} stays taken, by one container after another; see docker events: {last}",
    )


def _settle_name(tools: Tools, spec: ContainerSpec) -> str | None:
    """Return the named container if it can be taken; None when the name is free. Raises `OperationFailed`."""
    try:
        found = tools.runtime.inspect(spec.name)
        action = resolve_name_conflict(found, spec)
        if action is NameConflict.TAKE:
            tools.logger.info("took the container of an earlier try", extra={"container_id": found.container_id})
            return found.container_id
        if action is NameConflict.REMOVE:
            tools.runtime.remove(found.container_id)
            return None
    except ContainerNotFound:
        return None
    except StillRunning as error:
        raise OperationFailed(ErrorCode.CONTAINER_START_FAILED, str(error)) from error
    raise taken_by(found, spec)


def taken_by(found: ContainerView, spec: ContainerSpec) -> OperationFailed:
    """The failure of an operation that needs the name of a container that it must not change."""
    taken = f"the name {found.name} is taken by container {found.container_id[:12]} ({found.image_ref}, {found.state})"
    return OperationFailed(ErrorCode.CONTAINER_START_FAILED, f"{taken}, {_whose(found, spec)}")


def _whose(found: ContainerView, spec: ContainerSpec) -> str:
    """Describe whose container has the name of `spec`, and how to free the name."""
    game_id = found.game_id
    if game_id == spec.game_id or not is_game_id(game_id) or not found.labelled_for(game_id):
        return "which this service has no record of and will not touch; rename or remove it, then try again"
    own = container_name(game_id)
    return (
        f"which was made for game {game_id} and renamed; give it its name back: "
        f"docker rename {found.container_id[:12]} {own} (rename what has that name first), then try again"
    )
