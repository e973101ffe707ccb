"""Starting a container for a game, in two halves: everything that can fail without harm, then the launch.

Restart and patch run the first half while the old container still serves, so that a failed pull or a missing
directory leaves the game as it was. Both halves may run again after a crash and find their own traces: what an
earlier try left running is taken, what it left dead is removed.
"""

from __future__ import annotations

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
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.operations.ports import (
    ContainerNotFound,
    Image,
    ImageRefInvalid,
    ImageUnavailable,
    LaunchFailed,
    LaunchInvalid,
    NameTaken,
    NetworkAmbiguous,
    PullPending,
    StateDirectoryInvalid,
    StillRunning,
)
from rtmanager.operations.progress import Progress
from rtmanager.operations.tools import Tools

#: The variable by which every engine of the platform is told where its state is, beside the configured one.
STORAGE_PATH = "STORAGE_PATH"
#: Tries to get the name: each one may remove one dead container that an earlier start left behind.
NAME_TRIES = 5


def check_names(game_id: str, image_ref: str) -> None:
    """Raises `OperationFailed` for a game id or an image reference that is malformed."""
    try:
        check_game_id(game_id)
        parse_image_ref(image_ref)
    except InvalidValue as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error


def prepare(progress: Progress, tools: Tools, image_ref: str) -> ContainerSpec:
    """Check, pull, read the limits, make the directory; changes nothing that runs.

    Raises `OperationFailed`, or `PullPending` when the progress may wait for a pull without a thread.
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
        state_path = tools.state_directories.prepare(game_id)
    except ImageRefInvalid as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error
    except ImageUnavailable as error:
        raise OperationFailed(ErrorCode.IMAGE_PULL_FAILED, str(error)) from error
    except StateDirectoryInvalid as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error
    limits, complaints = limits_of_image(image.labels, settings.default_limits)
    for complaint in complaints:
        tools.logger.warning("image asks for limits that cannot be read", extra={"error": complaint})
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


def _image(progress: Progress, tools: Tools, image_ref: str) -> Image:
    """The image. Raises `PullPending` when the operation may be put aside until it has been pulled."""
    if progress.pull is None:
        found = tools.runtime.request_image(image_ref, tools.settings.pull_policy)
        if isinstance(found, Image):
            return found
        progress.pull = found
        if progress.may_wait:
            raise PullPending(found)
    return progress.pull.image()


def launch(progress: Progress, tools: Tools, spec: ContainerSpec) -> None:
    """Start the container and note what is true then. Raises `OperationFailed` or `OwnershipLost`."""
    progress.committed = True
    note_running(progress, _run(progress, tools, spec), spec.image_ref, spec.state_path, spec.network)


def note_running(progress: Progress, container_id: str, image_ref: str, state_path: str, network: str) -> None:
    """The game runs in this container now: its record, and the health event."""
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
    """Whether an earlier try of this operation got as far as a running container; then that is noted.

    Asked before anything else when an operation is run again: what the earlier try had to prepare (a registry
    that answered, for one) may not be there any more, and need not be.
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
    try:
        state_path = tools.state_directories.prepare(operation.game_id)
    except StateDirectoryInvalid as error:
        raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error
    tools.logger.info("took the container of an earlier try", extra={"container_id": found.container_id})
    progress.image_ref = image_ref
    note_running(progress, found.container_id, image_ref, state_path, settings.network)
    return True


def retire(progress: Progress, tools: Tools, container_id: str) -> None:
    """Take away the container that the record names, so that its name is free.

    It is stopped first though the record says that it is: a person may have started it again. Raises `OperationFailed`
    or `OwnershipLost`.
    """
    tools.confirm(progress.operation)
    progress.committed = True
    try:
        tools.runtime.stop(container_id, tools.settings.stop_grace_s)
        tools.runtime.remove(container_id)
    except ContainerNotFound:
        tools.logger.debug("container was gone already", extra={"container_id": container_id})
    except StillRunning as error:
        raise OperationFailed(ErrorCode.CONFLICT, f"{error}: somebody starts it again and again") from error


def _run(progress: Progress, tools: Tools, spec: ContainerSpec) -> str:
    def confirm() -> None:
        tools.confirm(progress.operation)

    last = ""
    for _ in range(NAME_TRIES):
        try:
            return tools.runtime.launch(spec, confirm)
        except NameTaken as error:
            last = str(error)
            confirm()
            taken = _settle_name(tools, spec)
            if taken is not None:
                return taken
        except LaunchInvalid as error:
            raise OperationFailed(ErrorCode.START_CONFIG_INVALID, str(error)) from error
        except LaunchFailed as error:
            raise OperationFailed(ErrorCode.CONTAINER_START_FAILED, str(error)) from error
        except FinalAnswer as error:
            if error.dependency != "docker":
                raise
            raise OperationFailed(ErrorCode.CONTAINER_START_FAILED, str(error)) from error
    raise OperationFailed(
        ErrorCode.CONTAINER_START_FAILED,
        f"the name {spec.name} stays taken, by one container after another; see docker events: {last}",
    )


def _settle_name(tools: Tools, spec: ContainerSpec) -> str | None:
    """The id of a container that is what we want; None when the name is free now. Raises `OperationFailed`."""
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
    taken_by = (
        f"the name {spec.name} is taken by container {found.container_id[:12]} ({found.image_ref}, {found.state})"
    )
    raise OperationFailed(ErrorCode.CONTAINER_START_FAILED, f"{taken_by}, {_whose(found, spec)}")


def _whose(found: ContainerView, spec: ContainerSpec) -> str:
    """Why a container that has the name of `spec` is left alone, and what frees the name."""
    game_id = found.game_id
    if game_id == spec.game_id or not is_game_id(game_id) or not found.labelled_for(game_id):
        return "which this service has no record of and will not touch; rename or remove it, then try again"
    own = container_name(game_id)
    return (
        f"which was made for game {game_id} and renamed; give it its name back: "
        f"docker rename {found.container_id[:12]} {own} (rename what has that name first), then try again"
    )
