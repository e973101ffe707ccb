"""The dependencies of an operation: ports, engine settings, a clock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rtmanager.domain.container import Limits
from rtmanager.domain.image_policy import ImagePolicy
from rtmanager.domain.operation import Operation
from rtmanager.domain.text import bounded
from rtmanager.ports.clock import Clock
from rtmanager.ports.runtime import ContainerRuntime, PullPolicy, StateDirectories
from rtmanager.ports.store import ClaimLost, Namesake

#: Length of an error that replaces a log, in characters.
LONGEST_ERROR = 500


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How every engine is run: the part of the configuration that operations need."""

    network: str
    default_limits: Limits
    pull_policy: PullPolicy
    #: Grace period of a stop: seconds between SIGTERM and SIGKILL.
    stop_grace_s: int
    mount_path: str
    state_env_name: str
    log_driver: str
    log_options: Mapping[str, str] = field(default_factory=dict)
    #: The label that separates this database's containers from another's.
    deployment: str = ""
    image_policy: ImagePolicy = field(default_factory=ImagePolicy)


def end_of_log(runtime: ContainerRuntime, container_id: str) -> str:
    """Return the end of an engine's log, or why it cannot be read: an exit is recorded with or without its log."""
    try:
        return runtime.log_tail(container_id)
    except Exception as error:  # noqa: BLE001 - no error of a log may prevent the record of an exit
        return f"(the log could not be read: {bounded(str(error), LONGEST_ERROR)})"


@dataclass(frozen=True, slots=True)
class Tools:
    """Ports, settings and callbacks for operations."""

    runtime: ContainerRuntime
    state_directories: StateDirectories
    settings: EngineSettings
    clock: Clock
    #: Whether a claim is still valid.
    owns: Callable[[Operation], bool]
    #: See `OperationQueue.claim_name`.
    claim_name: Callable[[Operation], Namesake | None]
    #: See `OperationQueue.note_end` and `OperationQueue.noted_end`.
    note_end: Callable[[Operation, str | None], str | None]
    noted_end: Callable[[Operation], str | None]
    #: Queries the Lobby about a game, for the log only; returns at once.
    query_lobby: Callable[[str], None]
    logger: logging.Logger
    #: Counts a game that ran before and whose directory is missing.
    count_lost_directory: Callable[[], object] = lambda: None
    #: Notes that an image was pulled for an operation: the reference and the image's id.
    pulled: Callable[[str, str], None] = lambda _image_ref, _image_id: None

    #: Called before a container gets its address.
    launches: Callable[[], object] = lambda: None

    def confirm(self, operation: Operation) -> None:
        """Raise `ClaimLost` when another claim holds the operation by now.

        Called right before a container is started, stopped or removed. An instance that was frozen for longer than the
        lease must not start a game that others have stopped since. The record that it decided on was read under its own
        claim. One read later might name a container that others have started since.
        """
        if not self.owns(operation):
            raise ClaimLost(f"operation {operation.operation_id} was taken over by another claim")
