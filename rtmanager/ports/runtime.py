"""What the operations need from the world, as interfaces; the adapters keep them.

Every method is bounded in time: it returns, or raises `Unavailable`, within a deadline of its adapter. It may also
raise `TemporaryAnswer`, which is one, or `FinalAnswer`. Other errors are named at the method. `rtmanager.fakes` has
an in-memory implementation of each port, held to the same contract tests as the real one.
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
    """When a registry is asked for an image."""

    IF_MISSING = "if_missing"
    ALWAYS = "always"
    NEVER = "never"


class ImageUnavailable(RuntimeManagerError):
    """The image could not be had (unknown, refused, too slow, absent under `never`); the message says why."""


class ImageRefInvalid(ImageUnavailable):
    """The reference of the image is malformed, by the runtime's own grammar."""


class ContainerNotFound(RuntimeManagerError):
    """There is no such container (any more)."""


class NetworkAmbiguous(RuntimeManagerError):
    """Several networks have this name; the runtime starts no container in any of them by it."""

    def __init__(self, network: str, count: int) -> None:
        super().__init__(f"{count} Docker networks are called {network!r}, and Docker starts nothing by such a name")
        self.remedy = f"docker network ls --filter name={network}, then docker network rm ID for all but one"


class NameTaken(RuntimeManagerError):
    """Another container already has the name that the game needs."""


class LaunchFailed(RuntimeManagerError):
    """The runtime refused to create or start the container; nothing of the attempt is left behind."""


class LaunchInvalid(LaunchFailed):
    """The runtime calls what it was to create malformed; nothing of the attempt is left behind."""


class StillRunning(RuntimeManagerError):
    """A container that was to be removed has a live process; it was left alone."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is present where the container will run."""

    image_id: str
    labels: Mapping[str, str]
    #: Its platform and the host's, when it is of another processor or system: it runs by emulation, or not at all.
    foreign: str = ""


class ImagePull(Protocol):
    """A pull that a caller waits for without a thread of its own. Whoever got one ends with `image` or `leave`."""

    def when_ended(self, call: Callable[[], None]) -> None:
        """Call back once the pull has ended, at once if it has; from any thread, so it has to be quick."""
        ...

    def image(self) -> Image:
        """Wait for the end: the image, or what `ensure_image` raises."""
        ...

    def leave(self) -> None:
        """Wait no more. A pull that nobody waits for is broken off, and no later caller joins it."""
        ...


class PullPending(Exception):
    """An operation can only go on when `pull` has ended."""

    def __init__(self, pull: ImagePull) -> None:
        super().__init__("waits for a pull")
        self.pull = pull


def unconditionally() -> None:
    """Nothing stands against it."""


class ContainerRuntime(Protocol):
    """The one way to containers. Ids are opaque; names are unique within the runtime.

    Any method may raise `Unavailable("docker", …)`: the runtime did not answer, or not in time, so that what
    was asked may or may not have happened. `close` makes calls in flight on other threads raise it at once.
    `TemporaryAnswer` is an answer that is to be asked for again, `FinalAnswer` one that would be the same again.
    """

    def ping(self) -> str:
        """The runtime's version, for a person; proves that it answers."""
        ...

    def identify(self, network: str) -> SeenDaemon:
        """Which runtime answers, with the networks of this exact name as a part of its identity."""
        ...

    def network_ids(self, name: str) -> frozenset[str]:
        """The ids of the networks of this exact name: what `identify` answers, at a fifth of its cost."""
        ...

    def connections_made(self) -> int:
        """A number that grows before another runtime can be the one that answers."""
        ...

    def network_exists(self, name: str) -> bool:
        """Whether a network of exactly this name exists. Raises `NetworkAmbiguous` when several do."""
        ...

    def ensure_image(self, image_ref: str, policy: PullPolicy) -> Image:
        """The image, pulled first if the policy says so; callers asking for one image share one pull.

        With `IF_MISSING` and the image present no registry is asked. Raises `ImageUnavailable`.
        """
        ...

    def request_image(self, image_ref: str, policy: PullPolicy) -> Image | ImagePull:
        """As `ensure_image`, but where that would wait for a pull, the pull to wait for."""
        ...

    def runtime_id(self) -> str:
        """What tells this runtime from every other."""
        ...

    def remove_image(self, image_ref: str, image_id: str) -> bool:
        """Remove a reference that names this image; without force, and only when no container was made of the image.

        False when it is left since a container was. True also when the reference names nothing, or another image.
        """
        ...

    def launch(self, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> str:
        """Create and start a container; returns its id once its process runs.

        `confirm` is called between the two and may raise a `RuntimeManagerError`, which takes the container away
        again: whoever was frozen before it does not start what others have since decided on, and whoever freezes
        behind it finds his container removed by them, for it has the name and does not run.

        Raises `NameTaken` (nothing was done) or `LaunchFailed` (what was created is removed again), the latter
        also for an image whose process ends at once when it is started here for the first time. After
        `Unavailable` a container may be there.
        """
        ...

    def create_next(self, spec: ContainerSpec) -> str:
        """Create, and do not start, the container that is to replace the game's, as `spec.next_name`; returns its id.

        Raises `NameTaken` or `LaunchFailed`; nothing was done then. After `Unavailable` a container may be there.
        """
        ...

    def promote(self, container_id: str, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> None:
        """Give the container of `create_next` the game's name, and start it. `confirm` as with `launch`.

        Raises `ContainerNotFound`, `NameTaken` (it is as it was), or `LaunchFailed` as `launch` does.
        """
        ...

    def stop(self, container_id: str, grace_seconds: int) -> bool:
        """Ask the process to end, kill it after `grace_seconds`; a container without a process is fine.

        Returns whether it ended a live process; False also where the runtime does not say. Raises `ContainerNotFound`.
        """
        ...

    def remove(self, container_id: str) -> None:
        """Remove a container without a live process, and wait until it is gone.

        Raises `ContainerNotFound` when it was gone before, `StillRunning` when a process lives in it.
        """
        ...

    def present_run(self) -> RuntimeRun:
        """Since when the runtime runs, asked over a new connection.

        A runtime that is shutting down accepts none before it ends its containers: then this raises `Unavailable`.
        """
        ...

    def inspect(self, id_or_name: str) -> ContainerView:
        """One container. Raises `ContainerNotFound`."""
        ...

    def list_games(self) -> Sequence[ContainerView]:
        """All containers, running or not, that carry RTM's owner and kind labels; one call to the runtime.

        Exit code, OOM and the image's id are not known here, and the image may be given by its id.
        """
        ...

    def log_tail(self, container_id: str) -> str:
        """The last lines of what its process wrote, some kilobytes at most; in brackets why they cannot be read."""
        ...

    def close(self) -> None:
        """Give back every connection and thread; calls in flight end with `Unavailable`."""
        ...


class StateDirectories(Protocol):
    """The games' directories on the host; there is no method that deletes, and there will be none."""

    def path_of(self, game_id: str) -> str:
        """Where the game's directory is, or would be."""
        ...

    def is_missing(self, game_id: str) -> bool:
        """Whether nothing stands where the game's directory would be; changes nothing. Raises as `prepare`."""
        ...

    def prepare(self, game_id: str) -> str:
        """Create the game's directory, or correct owner and mode of the one that is there; returns its path.

        Raises `StateDirectoryInvalid` for a directory that cannot be used and a root that is gone or read-only,
        `StateRootUnfit` for one that may take no game, `TemporaryAnswer` for a file system that fails, `Unavailable`
        when this process lacks descriptors or memory, or the file system hangs.
        """
        ...


class StateDirectoryInvalid(RuntimeManagerError):
    """The game's directory cannot be used: not writable, not a directory, or a link that leaves the root."""


class StateRootUnfit(StateDirectoryInvalid):
    """The root is there and may take no game: it has no room, or is not the file system that held the games."""

    remedy = IN_MESSAGE
