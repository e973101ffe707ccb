"""Ports to the container runtime and to the games' directories.

Every method is bounded in time: it returns, or raises `Unavailable`, within a deadline of its adapter. It may also
raise `TemporaryAnswer` or `FinalAnswer`. Other errors are named at the method. `rtmanager.fakes` has an in-memory
implementation of each port that passes the same contract tests as the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from rtmanager.domain.container import ContainerSpec, ContainerView
from rtmanager.domain.daemon import SeenDaemon
from rtmanager.domain.errors import IN_MESSAGE, RuntimeManagerError
from rtmanager.domain.outage import RuntimeRun


class PullPolicy(StrEnum):
    """When an image is pulled from its registry."""

    IF_MISSING = "if_missing"
    ALWAYS = "always"
    NEVER = "never"


class ImageUnavailable(RuntimeManagerError):
    """The image cannot be provided (unknown, denied, too slow, absent under `never`); the message has the reason."""


class ImageRefInvalid(ImageUnavailable):
    """The image reference is malformed by the runtime's own grammar."""


class ContainerNotFound(RuntimeManagerError):
    """No such container exists, or none any more."""


class NetworkAmbiguous(RuntimeManagerError):
    """Several networks have this name, so the runtime cannot start a container by it."""

    def __init__(self, network: str, count: int) -> None:
        super().__init__(f"{count} Docker networks are called {network!r}, and Docker starts nothing by such a name")
        self.remedy = f"docker network ls --filter name={network}, then docker network rm ID for all but one"


class NameTaken(RuntimeManagerError):
    """Another container already has the name that the game needs."""


class LaunchFailed(RuntimeManagerError):
    """The runtime cannot create or start the container; nothing of the attempt is left behind."""


class LaunchInvalid(LaunchFailed):
    """The runtime rejects the specification as malformed; nothing of the attempt is left behind."""


class StillRunning(RuntimeManagerError):
    """A container that was to be removed has a live process; it was not changed."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is present where the container will run."""

    image_id: str
    labels: Mapping[str, str]
    #: The image's platform and the host's, if they differ: the image runs by emulation, or not at all.
    foreign: str = ""


class ImagePull(Protocol):
    """A pull that a caller awaits without a thread of its own; every caller ends with `image` or `leave`."""

    def when_ended(self, call: Callable[[], None]) -> None:
        """Register a callback for the end of the pull, called at once if it has ended.

        Any thread may call it, so it must not block.
        """
        ...

    def image(self) -> Image:
        """Wait for the end and return the image. Raises as `ensure_image`."""
        ...

    def leave(self) -> None:
        """Stop waiting. A pull without waiters is cancelled, and no later caller joins it."""
        ...


class PullPending(Exception):
    """The operation can continue only after `pull` has ended."""

    def __init__(self, pull: ImagePull) -> None:
        super().__init__("waits for a pull")
        self.pull = pull


def unconditionally() -> None:
    """Default for `confirm`: always passes."""


class ContainerRuntime(Protocol):
    """Port to the container runtime. Ids are opaque; names are unique within the runtime.

    Any method may raise `Unavailable("docker", …)`: the runtime did not answer in time, and may or may not have carried
    out the request. `close` makes calls in flight on other threads raise it at once. `TemporaryAnswer` is an answer to
    retry, `FinalAnswer` one that would be the same again.
    """

    def ping(self) -> str:
        """Return the runtime's version, for a person; proves that it answers."""
        ...

    def identify(self, network: str) -> SeenDaemon:
        """Return the identity of the runtime that answers, which includes the networks of this exact name."""
        ...

    def network_ids(self, name: str) -> frozenset[str]:
        """Return the ids of the networks of this exact name, at a fifth of the cost of `identify`."""
        ...

    def connections_made(self) -> int:
        """Return a number that grows with each new connection.

        While it is unchanged, only a proxy that holds the connection can let another runtime answer.
        """
        ...

    def network_exists(self, name: str) -> bool:
        """Return whether a network of exactly this name exists. Raises `NetworkAmbiguous` when several do."""
        ...

    def ensure_image(self, image_ref: str, policy: PullPolicy) -> Image:
        """Return the image, pulled first if the policy requires it; callers for one image share one pull.

        With `IF_MISSING` a present image causes no request to a registry. Raises `ImageUnavailable`.
        """
        ...

    def request_image(self, image_ref: str, policy: PullPolicy) -> Image | ImagePull:
        """As `ensure_image`, but return the pull where `ensure_image` would wait for one."""
        ...

    def runtime_id(self) -> str:
        """Return an id that is unique to this runtime."""
        ...

    def remove_image(self, image_ref: str, image_id: str) -> bool:
        """Remove a reference that names this image, without force, and only if no container was made of the image.

        Returns False if a container was, so that the image stays. Returns True also if the reference names nothing or
        another image.
        """
        ...

    def launch(self, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> str:
        """Create and start a container; return its id once its process runs.

        `confirm` is called between create and start and may raise a `RuntimeManagerError`; the container is then
        removed. An instance that was frozen before `confirm` thus does not start what others have decided against
        since. An instance that freezes after it finds its container removed by them, because that container has the
        name and does not run.

        Raises `NameTaken` (nothing was done), `ContainerNotFound` (somebody removed the created container before its
        start), or `LaunchFailed` (the created container is removed again). `LaunchFailed` also covers an image whose
        process ends at once on its first start here. After `Unavailable` a container may exist.
        """
        ...

    def create_next(self, spec: ContainerSpec) -> str:
        """Create the container that is to replace the game's, as `spec.next_name`, without a start; return its id.

        Raises `NameTaken` or `LaunchFailed` when nothing was done. After `Unavailable` a container may exist.
        """
        ...

    def promote(self, container_id: str, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> None:
        """Give the container of `create_next` the game's name, and start it. `confirm` as with `launch`.

        Raises `ContainerNotFound`, `NameTaken` (it is unchanged), or `LaunchFailed` as `launch` does.
        """
        ...

    def stop(self, container_id: str, stop_grace_s: int) -> bool:
        """Send SIGTERM, and SIGKILL after `stop_grace_s` seconds; a container without a process is no error.

        Returns whether this call ended a live process; False also if the runtime does not report it. Raises
        `ContainerNotFound`.
        """
        ...

    def remove(self, container_id: str) -> None:
        """Remove a container without a live process, and wait until it is gone.

        Raises `ContainerNotFound` when it was gone before, `StillRunning` when it has a live process.
        """
        ...

    def present_run(self) -> RuntimeRun:
        """Return when the runtime's present run began, read over a new connection.

        A runtime that shuts down accepts no new connection before it ends its containers. The method then raises
        `Unavailable`.
        """
        ...

    def inspect(self, id_or_name: str) -> ContainerView:
        """Return one container. Raises `ContainerNotFound`."""
        ...

    def list_games(self) -> Sequence[ContainerView]:
        """Return all containers with the manager's owner and kind labels, running or not; one call to the runtime.

        Exit code, OOM and the image's id are missing, and `image_ref` may be an id.
        """
        ...

    def log_tail(self, container_id: str) -> str:
        """Return the last lines of the process's output, some kilobytes at most, or in brackets why there are none."""
        ...

    def close(self) -> None:
        """Close every connection and thread; calls in flight end with `Unavailable`."""
        ...


class StateDirectories(Protocol):
    """Port to the games' directories on the host; it deliberately has no method that deletes."""

    def path_of(self, game_id: str) -> str:
        """Return the path of the game's directory, whether it exists or not."""
        ...

    def is_missing(self, game_id: str) -> bool:
        """Return whether nothing exists at the game's path; changes nothing. Raises as `prepare`."""
        ...

    def prepare(self, game_id: str) -> str:
        """Create the game's directory, or correct owner and mode of an existing one; return its path.

        Raises:
        - `StateDirectoryInvalid` for a directory that cannot be used, and a root that is gone or read-only;
        - `StateRootUnfit` for a root that may take no game;
        - `TemporaryAnswer` for a file system that fails;
        - `Unavailable` when this process lacks descriptors or memory, or the file system hangs.
        """
        ...


class StateDirectoryInvalid(RuntimeManagerError):
    """The game's directory cannot be used: not writable, not a directory, or a link that leaves the root."""


class StateRootUnfit(StateDirectoryInvalid):
    """The root exists but may take no game: it is full, or is not the file system that held the games."""

    remedy = IN_MESSAGE
