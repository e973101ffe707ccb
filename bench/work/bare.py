"""The bare Docker SDK's side of the work: the same containers, by the calls alone.

The manager's code builds the requests, so that both sides send the same; `check_same` compares a container of each.
Directory and options are prepared before the measurement.
"""

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from harness import daemon
from harness.fixtures.closing import Closing
from harness.images.recipe import labels_of
from rtmanager.adapters.docker.hardening import create_request
from rtmanager.adapters.docker.images import full_reference
from rtmanager.adapters.state_directories import HostStateDirectories
from rtmanager.config.settings import Config
from rtmanager.domain.container import (
    LABEL_DEPLOYMENT,
    LABEL_GAME_ID,
    LABEL_STARTED_AT_MS,
    ContainerSpec,
    Limits,
    limits_of_image,
)
from rtmanager.operations.launch import STORAGE_PATH

if TYPE_CHECKING:
    from docker import APIClient

#: The deployment of these containers: the manager leaves another deployment's alone.
DEPLOYMENT = "bench"

#: Fields of an inspect that describe the request. The others are Docker's, different each time.
_MADE_WITH = ("Config", "HostConfig", "Platform", "Driver")


@dataclass(frozen=True)
class Wanted:
    """A container to create: its name, and the body of `POST /containers/create`."""

    name: str
    request: Mapping[str, Any]


@dataclass
class Bare(Closing):
    """Clients of the SDK, and the manager's settings."""

    config: Config
    client: "APIClient" = field(default_factory=daemon.connect)
    _clients: "list[APIClient]" = field(default_factory=list)

    def close(self) -> None:
        """Close the connections."""
        for each in (self.client, *self._clients):
            each.close()

    def wanted(self, game_id: str, image_ref: str) -> Wanted:
        """Build the manager's request, and prepare the game's directory."""
        config = self.config
        directories = HostStateDirectories(
            config.game_state_root,
            config.game_state_dir_mode,
            config.game_state_owner_uid,
            config.game_state_owner_gid,
        )
        mount_path = config.engine_state_mount_path
        spec = ContainerSpec(
            game_id=game_id,
            image_ref=image_ref,
            network=config.docker_network,
            limits=self._limits(image_ref),
            state_path=directories.prepare(game_id),
            mount_path=mount_path,
            environment={config.engine_state_env_name: mount_path, STORAGE_PATH: mount_path},
            started_at_ms=round(time.time() * 1000),
            log_driver=config.docker_log_driver,
            log_options=config.docker_log_options,
            deployment=DEPLOYMENT,
        )
        return Wanted(spec.name, create_request(spec, full_reference(image_ref)))

    def _limits(self, image_ref: str) -> Limits:
        image: dict[str, Any] = self.client.inspect_image(image_ref)  # type: ignore[no-untyped-call]
        return limits_of_image(labels_of(image), self.config.default_limits)[0]

    def launch_all(self, wanted: Sequence[Wanted], width: int) -> None:
        """Launch all containers, `width` at once; each thread has its own client."""
        left = deque(wanted)
        clients = self._connected(width)

        def work(client: "APIClient") -> None:
            while left:
                launch(client, left.popleft())

        with ThreadPoolExecutor(width) as threads:
            list(threads.map(work, clients))

    def connect(self, width: int) -> None:
        """Open so many clients, so that no connection is made during the measurement."""
        self._connected(width)

    def _connected(self, width: int) -> "Sequence[APIClient]":
        self._clients += [daemon.connect() for _ in range(width - len(self._clients))]
        return self._clients[:width]


def launch(client: "APIClient", wanted: Wanted) -> str:
    """Create and start the container; returns its id."""
    made: dict[str, Any] = client.create_container_from_config(wanted.request, wanted.name)  # type: ignore[no-untyped-call]
    client.start(made["Id"])
    return str(made["Id"])


def check_same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raises BenchError unless two inspected containers were created alike, apart from game, deployment and time."""
    texts = [_made_with(each) for each in (ours, theirs)]
    if texts[0] != texts[1]:
        differ = [pair for pair in zip(*(text.splitlines() for text in texts), strict=False) if pair[0] != pair[1]]
        raise BenchError(f"the containers of the two sides differ: {differ[:5]}")


def _made_with(found: Mapping[str, Any]) -> str:
    parts = {name: found[name] for name in _MADE_WITH}
    labels = dict(parts["Config"]["Labels"])
    game_id = labels[LABEL_GAME_ID]
    for label in (LABEL_STARTED_AT_MS, LABEL_DEPLOYMENT):
        labels[label] = "another for each"
    parts["Config"] = {**parts["Config"], "Labels": labels, "Networks": sorted(found["NetworkSettings"]["Networks"])}
    return json.dumps(parts, indent=1, sort_keys=True).replace(game_id, "GAME")
