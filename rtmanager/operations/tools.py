"""What an operation works with: the ports, the settings of the engines, a clock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rtmanager.domain.container import Limits
from rtmanager.domain.operation import Operation
from rtmanager.domain.text import bounded
from rtmanager.ports.clock import Clock
from rtmanager.ports.runtime import ContainerRuntime, PullPolicy, StateDirectories
from rtmanager.ports.store import ClaimLost, Namesake

#: Characters of an error that stand in place of a log.
LONGEST_ERROR = 500


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How every engine is run; the configuration's part that operations need."""

    network: str
    default_limits: Limits
    pull_policy: PullPolicy
    stop_grace_s: int
    mount_path: str
    state_env_name: str
    log_driver: str
    log_options: Mapping[str, str] = field(default_factory=dict)
    #: The label by which another database's containers are told apart.
    deployment: str = ""


def end_of_log(runtime: ContainerRuntime, container_id: str) -> str:
    """The end of what an engine wrote, or why it could not be read; an end is recorded with its log or without."""
    try:
        return runtime.log_tail(container_id)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a log, it keeps no end from being recorded
        return f"(the log could not be read: {bounded(str(error), LONGEST_ERROR)})"


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything outside that an operation may use."""

    runtime: ContainerRuntime
    state_directories: StateDirectories
    settings: EngineSettings
    clock: Clock
    #: Whether a claim is still good.
    owns: Callable[[Operation], bool]
    #: See `OperationQueue.claim_name`.
    claim_name: Callable[[Operation], Namesake | None]
    #: Asks the Lobby about a game, for the log only; returns at once.
    ask_lobby: Callable[[str], None]
    logger: logging.Logger
    #: Counts a game that ran before and whose directory is missing.
    count_lost_directory: Callable[[], object] = lambda: None
    #: Notes that an image was pulled for an operation: the reference and the image's id.
    pulled: Callable[[str, str], None] = lambda _image_ref, _image_id: None

    def confirm(self, operation: Operation) -> None:
        """Raises `ClaimLost` when another claim has the operation by now.

        Asked right before a container is started, stopped or removed. An instance that was frozen for longer than the
        lease must not start a game that others have stopped since; and what it decided on is a record that it read
        when the claim was its own: one that it read later may name a container that others have started since.
        """
        if not self.owns(operation):
            raise ClaimLost(f"operation {operation.operation_id} was taken over by another claim")
