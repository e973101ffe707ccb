"""The container of a game: what RTM asks for, what it sees, and whose a container is.

Nothing here knows Docker. A container is named by an opaque id that the runtime chose, so that a second
runtime (a service of a cluster, say) fits behind the same values.
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
#: Of a container that is created to try whether it can be; no list of games has it.
KIND_TRIAL = "trial"

#: Labels of an engine *image* that ask for other limits than the configured defaults.
LABEL_CPU_QUOTA = "com.galaxy.cpu_quota"
LABEL_MEMORY = "com.galaxy.memory"
LABEL_PIDS_LIMIT = "com.galaxy.pids_limit"

#: Docker refuses less memory than this; so do we, before it does.
MIN_MEMORY_BYTES = 6 * 1024 * 1024

#: Linux has no more process ids than this, and refuses a greater limit.
MAX_PIDS = 1 << 22

_MEMORY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
Number = TypeVar("Number", int, float)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one engine may use: CPU in cores, memory in bytes (swap included), number of processes."""

    cpus: float
    memory_bytes: int
    pids: int


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that RTM decides about a container; how a runtime hardens it is the adapter's business."""

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
    #: The deployment (one database) that the container is made for.
    deployment: str = ""

    @property
    def name(self) -> str:
        """The name and the host name of the container."""
        return container_name(self.game_id)

    @property
    def next_name(self) -> str:
        """The name of the container while another one has the game's name."""
        return next_container_name(self.game_id)

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which RTM, and a person, recognises the container (contract, "The container")."""
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
    """A container as a game's, to be created and removed and never started; its "game" is a name of its own.

    Neither its name nor its labels are those of a game, so that nobody takes one that is left behind for a game's.
    """

    @property
    def name(self) -> str:
        """The name and the host name of the container."""
        return f"galaxy-trial-{self.game_id}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which the next trial finds one that is left behind."""
        return {LABEL_OWNER: OWNER, LABEL_KIND: KIND_TRIAL}


class ContainerState(StrEnum):
    """The states that Docker reports, `dead` (a removal that failed half way) included.

    `UNKNOWN` stands for every other word, and for none: nothing is known then of the process, neither that it lives
    nor that it ended.
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


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container as the runtime sees it at one moment."""

    container_id: str
    name: str
    image_ref: str
    state: ContainerState
    labels: Mapping[str, str] = field(default_factory=dict)
    networks: frozenset[str] = frozenset()
    #: The network that it was made for; a Docker that is killed right after a create forgets to join it.
    made_for: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    #: Its address in each network that has given it one.
    addresses: Mapping[str, str] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    restart_count: int = 0
    #: What the image's own health check says; empty where there is none.
    health: str = ""
    #: Whether its process is known to have run for an hour at least.
    up_for_an_hour: bool = False
    #: The runtime's own word for the state when that is unknown.
    state_word: str = ""
    #: The id of the image that it runs, whatever its name stands for now; a list does not tell it.
    image_id: str = ""

    @property
    def alive(self) -> bool:
        """Whether the engine's process exists."""
        return self.state in ALIVE

    @property
    def ended(self) -> bool:
        """Whether it is known that there is no process of the engine."""
        return self.state not in ALIVE and self.state is not ContainerState.UNKNOWN

    @property
    def game_id(self) -> str:
        """The game that its label names; empty when there is none."""
        return self.labels.get(LABEL_GAME_ID, "")

    def is_of_another(self, deployment: str) -> bool:
        """Whether another deployment made it. Releases before the label made containers without it: they are ours."""
        return self.labels.get(LABEL_DEPLOYMENT, "") not in ("", deployment)

    def labelled_for(self, game_id: str) -> bool:
        """Whether its labels say that RTM made it for this game, whatever its name."""
        return (
            self.labels.get(LABEL_OWNER) == OWNER
            and self.labels.get(LABEL_KIND) == KIND
            and self.labels.get(LABEL_GAME_ID) == game_id
        )

    def belongs_to(self, game_id: str) -> bool:
        """Whether RTM made it for this game: labels and name agree."""
        return self.labelled_for(game_id) and self.name == container_name(game_id)

    @property
    def is_next(self) -> bool:
        """Whether RTM made it to replace a game's container, which it has not done: labels and name agree."""
        return self.name == next_container_name(self.game_id) and self.labelled_for(self.game_id)

    @property
    def is_unstarted_next(self) -> bool:
        """Whether it is such a container, and never had a process."""
        return self.state is ContainerState.CREATED and self.is_next

    def runs(self, game_id: str, image_ref: str, network: str) -> bool:
        """Whether RTM made it for this game and it runs this image on this network."""
        same = self.labels.get(LABEL_IMAGE_REF) == image_ref and network in self.networks
        return self.belongs_to(game_id) and self.state is ContainerState.RUNNING and same


class NameConflict(StrEnum):
    """What to do when the name that a game needs is taken by another container."""

    TAKE = "take"
    REMOVE = "remove"
    REFUSE = "refuse"


def resolve_name_conflict(found: ContainerView, spec: ContainerSpec) -> NameConflict:
    """Ours and running what we want: take it, an earlier try of the same start left it. Ours and without a
    process: remove it. Anything else is not ours to touch (contract: never stop a container without a record).
    """
    if not found.belongs_to(spec.game_id) or spec.network not in found.networks | {found.made_for}:
        return NameConflict.REFUSE
    if found.ended:
        return NameConflict.REMOVE
    return NameConflict.TAKE if found.runs(spec.game_id, spec.image_ref, spec.network) else NameConflict.REFUSE


def parse_memory(text: str) -> int:
    """Bytes from `512m`, `1.5g`, `268435456`; units are powers of 1024. `InvalidValue` otherwise."""
    match = _MEMORY.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if not MIN_MEMORY_BYTES <= size < 1 << 60:
        raise InvalidValue(f"memory {shown(text)}: expected a size of at least 6m, such as 512m or 1.5g")
    return size


def parse_cpus(text: str) -> float:
    """Cores from `1.0`, `0.5`, `2`; `InvalidValue` otherwise."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,9})?", text.strip()) or not float(text) >= 0.01:
        raise InvalidValue(f"CPU quota {shown(text)}: expected a number of cores of at least 0.01, such as 0.5 or 2")
    return float(text)


def parse_pids(text: str) -> int:
    """A number of processes of at least 1; `InvalidValue` otherwise."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text.strip()) or int(text) > MAX_PIDS:
        raise InvalidValue(f"process limit {shown(text)}: expected a whole number from 1 to {MAX_PIDS}, such as 512")
    return int(text)


def limits_of_image(labels: Mapping[str, str], defaults: Limits) -> tuple[Limits, list[str]]:
    """The limits that an image's labels ask for, the default for each that is absent or cannot be read.

    The second value says, one line each, which labels could not be read: a typing error in an image should be
    seen by a person, but is no reason to keep a game from running under the limits that hold for all others.
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
