"""Trials of a start: creates and removes a game's directory, and creates and removes a container.

Only `python -m rtmanager check` runs them. Nothing is started. Directory and container have names and labels that no
game has. What a killed check leaves behind therefore belongs to no game, and the next check removes it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence

from rtmanager.bootstrap.dependencies import Check, Dependencies, NotTried
from rtmanager.config.settings import Config
from rtmanager.domain.container import Limits, TrialSpec, limits_of_image
from rtmanager.domain.errors import RuntimeManagerError
from rtmanager.ports.runtime import LaunchFailed

#: Below this a warning is given: it is enough for an engine's first turns, and not many more.
FEW_BYTES, FEW_INODES = 100 << 20, 1_000
#: How many images of the Docker host are tried, when each is removed by somebody before it is used.
MAX_CHOICES = 5


class NoRoom(RuntimeManagerError):
    """The file system of the games' directories is full."""

    def __init__(self, free: str, remedy: str) -> None:
        super().__init__(f"the file system of the games' directories is full: {free}")
        self.remedy = remedy


class ImageMissing(RuntimeManagerError):
    """The named image is not on the Docker host, as a trial requires."""

    def __init__(self, image_ref: str) -> None:
        super().__init__(f"image {image_ref} is not on the Docker host, and a check pulls nothing")
        self.remedy = f"docker pull {image_ref}, or name another one (--image)"


class Trials:
    """The trials of one configuration, with the image `image_ref`, or any on the Docker host when it is empty."""

    def __init__(self, config: Config, parts: Dependencies, image_ref: str = "") -> None:
        self._config = config
        self._parts = parts
        self._image_ref = image_ref

    def checks(self) -> Sequence[Check]:
        """Return the trials in their order; none is run while a check that it needs fails."""
        root = f"see RTMANAGER_GAME_STATE_ROOT={self._config.game_state_root}"
        needs = ("docker", "network", "log driver", "directory")
        return (
            Check("room", "file system", self._room, root, needs=("state root",)),
            Check("directory", "file system", self._directory, root, needs=("state root",)),
            Check("container", "Docker", self._container, "read the log of the Docker daemon", needs=needs),
        )

    def _room(self) -> str:
        """Check the free space for games."""
        free = self._parts.state_directories.room()
        description = f"{size(free.bytes)} free" + ("" if free.inodes is None else f", and {free.inodes} inodes")
        remedy = f"make room in the file system of {self._config.game_state_root} (df -h, df -i)"
        if free.bytes == 0 or free.inodes == 0:
            raise NoRoom(description, remedy)
        if free.bytes < FEW_BYTES or (free.inodes is not None and free.inodes < FEW_INODES):
            self._parts.warnings["room"] = [f"only {description}; remedy: {remedy}"]
        return description

    def _directory(self) -> str:
        """Create a directory like a game's, and remove it."""
        config = self._config
        with self._parts.state_directories.trial():
            owner = f"{config.game_state_owner_uid}:{config.game_state_owner_gid}"
            return f"made for {owner} with mode {config.game_state_dir_mode:04o}, and removed, by user {os.geteuid()}"

    def _container(self) -> str:
        """Create a container like a game's, and remove it; pulls no image."""
        self._parts.docker.remove_trials(self._config.docker_network)
        if self._image_ref:
            return self._of_named_image(self._image_ref)
        for reference in self._parts.docker.local_references()[:MAX_CHOICES]:
            if description := self._of_any_image(reference):
                return description
        raise NotTried(
            "no image is on the Docker host to create a container from",
            "docker pull the image of an engine, then check again, or name one: check --image REF",
        )

    def _of_named_image(self, reference: str) -> str:
        image = self._parts.docker.local_image(reference)
        if image is None:
            raise ImageMissing(reference)
        limits, self._parts.warnings["container"] = limits_of_image(image.labels, self._config.default_limits)
        return self._created(reference, limits, any_command=False)

    def _of_any_image(self, reference: str) -> str:
        """Return the description, or an empty one if the image has gone.

        The image may belong to anybody, so its labels and its command do not count.
        """
        try:
            return self._created(reference, self._config.default_limits, any_command=True)
        except LaunchFailed:
            if self._parts.docker.local_image(reference) is None:
                return ""
            raise

    def _created(self, reference: str, limits: Limits, *, any_command: bool) -> str:
        with self._parts.state_directories.trial() as path:
            self._parts.docker.try_create(self._spec(reference, path, limits), any_command=any_command)
        given = f"{limits.cpus:g} cores, {size(limits.memory_bytes)}, {limits.pids} processes"
        return f"created from {reference} with {given}, and removed, not started"

    def _spec(self, reference: str, path: str, limits: Limits) -> TrialSpec:
        config = self._config
        return TrialSpec(
            game_id=secrets.token_hex(6),
            image_ref=reference,
            network=config.docker_network,
            limits=limits,
            state_path=path,
            mount_path=config.engine_state_mount_path,
            environment={config.engine_state_env_name: config.engine_state_mount_path},
            started_at_ms=0,
            log_driver=config.docker_log_driver,
            log_options=config.docker_log_options,
        )


def size(count: int) -> str:
    """Format a number of bytes for a person."""
    value, units = float(count), iter(("bytes", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.4g} {unit}"
