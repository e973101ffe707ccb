"""The container of a game: its specification, its observed state, and its owner.

Nothing here depends on Docker. The runtime chooses an opaque id for each container, so another runtime fits behind the
same values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.game import container_name, next_container_name, shown

LABEL_OWNER = "com.galaxy.owner"
LABEL_KIND = "com.galaxy.kind"
LABEL_GAME_ID = "com.galaxy.game_id"
LABEL_DEPLOYMENT = "com.galaxy.deployment"
LABEL_IMAGE_REF = "com.galaxy.engine_image_ref"
LABEL_STARTED_AT_MS = "com.galaxy.started_at_ms"
OWNER = "rtmanager"
KIND = "game-engine"
#: Kind of a container that is created as a trial and never started. Lists of games omit it.
KIND_TRIAL = "trial"

#: Labels of an engine *image* that override the configured default limits.
LABEL_CPU_QUOTA = "com.galaxy.cpu_quota"
LABEL_MEMORY = "com.galaxy.memory"
LABEL_PIDS_LIMIT = "com.galaxy.pids_limit"

#: Docker rejects less memory than this.
MIN_MEMORY_BYTES = 6 * 1024 * 1024

#: Linux rejects a limit of more processes than this.
MAX_PIDS = 1 << 22

_MEMORY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
Number = TypeVar("Number", int, float)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one engine: CPU in cores, memory in bytes (swap included), number of processes."""

    cpus: float
    memory_bytes: int
    pids: int


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that the manager decides about a container; the adapter adds the hardening."""

    game_id: str
    image_ref: str
    network: str
    limits: Limits
    state_path: str
    mount_path: str
    environment: Mapping[str, str]
    started_at_ms: int
    log_driver: str
    log_options: Mapping[str, str]
    #: The deployment (one database) that owns the container.
    deployment: str = ""

    @property
    def name(self) -> str:
        """The container's name and host name."""
        return container_name(self.game_id)

    @property
    def next_name(self) -> str:
        """The container's name while another container has the game's name."""
        return next_container_name(self.game_id)

    @property
    def labels(self) -> dict[str, str]:
        """The labels that identify the container (contract, "The container")."""
        return {
            LABEL_OWNER: OWNER,
            LABEL_KIND: KIND,
            LABEL_GAME_ID: self.game_id,
            LABEL_IMAGE_REF: self.image_ref,
            LABEL_STARTED_AT_MS: str(self.started_at_ms),
            **({LABEL_DEPLOYMENT: self.deployment} if self.deployment else {}),
        }


@dataclass(frozen=True, slots=True)
class TrialSpec(ContainerSpec):
    """A container that is created, removed and never started; its `game_id` is an arbitrary name.

    Its name and labels are not those of a game, so nothing adopts a trial container that is left behind.
    """

    @property
    def name(self) -> str:
        """The container's name and host name."""
        return f"galaxy-trial-{self.game_id}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which the next trial finds a container that is left behind."""
        return {LABEL_OWNER: OWNER, LABEL_KIND: KIND_TRIAL}


class ContainerState(StrEnum):
    """The states that Docker reports, including `dead` (a removal that failed half way).

    `UNKNOWN` stands for every other word and for none: the process may live or may have ended.
    """

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"
    UNKNOWN = "unknown"


#: States in which the engine's process exists, frozen or not.
ALIVE = frozenset({ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING})


def is_another(label: str, deployment: str) -> bool:
    """Return whether a container's label names another deployment.

    Earlier releases set no such label; their containers count as this deployment's.
    """
    return label not in ("", deployment)


@dataclass(frozen=True, slots=True)
class ContainerView:
    """The runtime's view of one container at one moment."""

    container_id: str
    name: str
    image_ref: str
    state: ContainerState
    labels: Mapping[str, str] = field(default_factory=dict)
    networks: frozenset[str] = frozenset()
    #: The network that the container was created for. A daemon killed right after the create leaves it unjoined.
    made_for: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    #: The container's address by network, where it has one.
    addresses: Mapping[str, str] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    restart_count: int = 0
    #: Result of the image's own health check; empty where there is none.
    health: str = ""
    #: Whether the process is known to have run for at least an hour.
    up_for_an_hour: bool = False
    #: The runtime's own word for a state that is `UNKNOWN`.
    state_word: str = ""
    #: The id of the container's image, whatever the image's name refers to now; empty in lists.
    image_id: str = ""

    @property
    def alive(self) -> bool:
        """Whether the engine's process exists."""
        return self.state in ALIVE

    @property
    def ended(self) -> bool:
        """Whether the engine is known to have no process."""
        return self.state not in ALIVE and self.state is not ContainerState.UNKNOWN

    @property
    def game_id(self) -> str:
        """The game that the container's label names; empty when there is none."""
        return self.labels.get(LABEL_GAME_ID, "")

    def is_of_another(self, deployment: str) -> bool:
        """Return whether another deployment owns the container."""
        return is_another(self.labels.get(LABEL_DEPLOYMENT, ""), deployment)

    @property
    def is_game(self) -> bool:
        """Whether the labels make it a container of a game, of whatever deployment."""
        return self.labels.get(LABEL_OWNER) == OWNER and self.labels.get(LABEL_KIND) == KIND

    def labelled_for(self, game_id: str) -> bool:
        """Return whether the labels assign the container to this game, whatever its name."""
        return self.is_game and self.labels.get(LABEL_GAME_ID) == game_id

    def belongs_to(self, game_id: str) -> bool:
        """Return whether the manager made the container for this game: labels and name agree."""
        return self.labelled_for(game_id) and self.name == container_name(game_id)

    @property
    def is_next(self) -> bool:
        """Whether the manager made the container to replace a game's, and has not done so: labels and name agree."""
        return self.name == next_container_name(self.game_id) and self.labelled_for(self.game_id)

    @property
    def is_unstarted_next(self) -> bool:
        """Whether the container is such a replacement and never had a process."""
        return self.state is ContainerState.CREATED and self.is_next

    def runs(self, game_id: str, image_ref: str, network: str) -> bool:
        """Return whether the manager made the container for this game and it runs this image on this network."""
        same = self.labels.get(LABEL_IMAGE_REF) == image_ref and network in self.networks
        return self.belongs_to(game_id) and self.state is ContainerState.RUNNING and same


class NameConflict(StrEnum):
    """What to do when another container has the name that a game needs."""

    TAKE = "take"
    REMOVE = "remove"
    REFUSE = "refuse"


def resolve_name_conflict(found: ContainerView, spec: ContainerSpec) -> NameConflict:
    """Decide what to do with the container that has the name of `spec`.

    Take the game's own container when it runs this image: an earlier try of the same start left it. Remove the game's
    own container when it has no process. Refuse any other (contract: never stop a container without a record).
    """
    if not found.belongs_to(spec.game_id) or spec.network not in found.networks | {found.made_for}:
        return NameConflict.REFUSE
    if found.ended:
        return NameConflict.REMOVE
    return NameConflict.TAKE if found.runs(spec.game_id, spec.image_ref, spec.network) else NameConflict.REFUSE


def parse_memory(text: str) -> int:
    """Parse bytes from `512m`, `1.5g` or `268435456`; units are powers of 1024. Raises `InvalidValue`."""
    match = _MEMORY.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if not MIN_MEMORY_BYTES <= size < 1 << 60:
        raise InvalidValue(f"memory {shown(text)}: expected a size of at least 6m, such as 512m or 1.5g")
    return size


def parse_cpus(text: str) -> float:
    """Parse cores from `1.0`, `0.5` or `2`. Raises `InvalidValue`."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,9})?", text.strip()) or not float(text) >= 0.01:
        raise InvalidValue(f"CPU quota {shown(text)}: expected a number of cores of at least 0.01, such as 0.5 or 2")
    return float(text)


def parse_pids(text: str) -> int:
    """Parse a number of processes, at least 1. Raises `InvalidValue`."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text.strip()) or int(text) > MAX_PIDS:
        raise InvalidValue(f"process limit {shown(text)}: expected a whole number from 1 to {MAX_PIDS}, such as 512")
    return int(text)


def limits_of_image(labels: Mapping[str, str], defaults: Limits) -> tuple[Limits, list[str]]:
    """Return the limits that an image's labels set, with the default for each that is absent or invalid.

    The second value has one line for each invalid label. A typing error in an image does not keep a game from running,
    because the defaults hold for all other games.
    """
    complaints: list[str] = []

    def read(label: str, parse: Callable[[str], Number], default: Number) -> Number:
        if label not in labels:
            return default
        try:
            return parse(labels[label])
        except InvalidValue as error:
            complaints.append(f"image label {label}: {error}; the default {default} is used")
            return default

    limits = Limits(
        cpus=read(LABEL_CPU_QUOTA, parse_cpus, defaults.cpus),
        memory_bytes=read(LABEL_MEMORY, parse_memory, defaults.memory_bytes),
        pids=read(LABEL_PIDS_LIMIT, parse_pids, defaults.pids),
    )
    return limits, complaints
