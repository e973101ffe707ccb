"""A container runtime in memory with injectable faults.

It passes the same `rtmanager.tests.runtime_contract` as `DockerRuntime`, and takes no time: a stop is over at once,
whatever its grace period. Faults are injected by a method's name:

    runtime.available = False                 # every call raises Unavailable
    runtime.fail_launch("g1", "no space left")
    runtime.lose_answer("launch")             # the next launch is done, its caller gets Unavailable
    runtime.refuse("stop", Meant.TEMPORARY)   # until `stop_refusing("stop")`; or for some calls only
    with runtime.holding("stop") as held:     # calls of stop wait inside the runtime …
        held.wait_for(1); ...                 # … until the block ends, or `held.release()`
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from math import inf

from rtmanager.domain.container import (
    KIND,
    LABEL_KIND,
    LABEL_OWNER,
    OWNER,
    ContainerSpec,
    ContainerState,
    ContainerView,
)
from rtmanager.domain.daemon import SeenDaemon
from rtmanager.domain.errors import (
    ErrorCode,
    FinalAnswer,
    InvalidValue,
    RuntimeManagerError,
    TemporaryAnswer,
    Unavailable,
)
from rtmanager.domain.image_ref import parse_image_ref
from rtmanager.domain.outage import RuntimeRun
from rtmanager.fakes.call_gate import HOLD_LIMIT_S, CallGate
from rtmanager.ports.runtime import (
    ContainerNotFound,
    Image,
    ImagePull,
    ImageRefInvalid,
    ImageUnavailable,
    LaunchFailed,
    NameTaken,
    NetworkAmbiguous,
    PullPolicy,
    StillRunning,
    unconditionally,
)

#: Methods that change something; after a temporary answer they may be done or not.
CHANGING = frozenset({"launch", "create_next", "promote", "stop", "remove"})

#: 128 + the signal, as a shell and Docker count it.
SIGTERM_CODE, SIGKILL_CODE = 143, 137


class Meant(StrEnum):
    """What a refusal means: the call may be retried, or is refused for good."""

    TEMPORARY = "temporary"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that the runtime received: the method and its main arguments."""

    method: str
    arguments: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class FakeImage:
    """An image; the process of one with `exits` ends with that code as soon as it is started."""

    labels: Mapping[str, str] = field(default_factory=dict)
    exits: int | None = None
    ignores_signals: bool = False
    has_command: bool = True
    #: See `Image.foreign`.
    foreign: str = ""


class _SharedPull:
    """One pull, and the number of callers that wait for it."""

    def __init__(self) -> None:
        self.waiting = 0
        self.outcome: Future[Image | RuntimeManagerError] = Future()


class _Waiter:
    """`ImagePull` of one waiting caller."""

    def __init__(self, runtime: FakeRuntime, image_ref: str, pull: _SharedPull) -> None:
        self._runtime = runtime
        self._image_ref = image_ref
        self._pull = pull

    def when_ended(self, call: Callable[[], None]) -> None:
        self._pull.outcome.add_done_callback(lambda _: call())

    def image(self) -> Image:
        found = self._pull.outcome.result(HOLD_LIMIT_S)
        if isinstance(found, Unavailable):
            raise found.again() from found
        if isinstance(found, RuntimeManagerError):
            refusal = type(found) if isinstance(found, ImageUnavailable) else ImageUnavailable
            raise refusal(str(found)) from found
        return found

    def leave(self) -> None:
        self._runtime._leave(self._image_ref, self._pull)


class FakeRuntime:
    """A container runtime in memory.

    `present` holds the images on the host and `registry` those that a pull finds, both by their full reference (with a
    tag or a digest).
    """

    def __init__(self, networks: Sequence[str] = ("galaxy-net",)) -> None:
        self.networks = set(networks)
        #: Names shared by two networks.
        self.ambiguous_networks: set[str] = set()
        #: The daemon id that `identify` returns, and the number of connections made.
        self.daemon_id = "daemon-1"
        self.connections = 1
        self.present: dict[str, FakeImage] = {}
        self.registry: dict[str, FakeImage] = {}
        self.available = True
        #: The result of `present_run`.
        self.run = RuntimeRun()
        self.calls: list[Call] = []
        #: Log drivers with which the creation of a container fails.
        self.refused_log_drivers: set[str] = set()
        #: The log of each container.
        self.logs: dict[str, str] = {}
        self._lock = threading.RLock()
        self._containers: dict[str, ContainerView] = {}
        self._images: dict[str, FakeImage] = {}
        self._numbers = count(1)
        self._launch_failures: dict[str, str] = {}
        self._lost: list[str] = []
        self._holds: dict[str, CallGate] = {}
        self._refusals: dict[str, tuple[Meant, float]] = {}
        self._pulls: dict[str, _SharedPull] = {}
        self._closed = False

    # ── the port ──

    def ping(self) -> str:
        with self._call("ping"):
            return "in memory"

    def identify(self, network: str) -> SeenDaemon:
        with self._call("identify", network):
            return SeenDaemon(self.daemon_id, f"host of {self.daemon_id}", self._network_ids(network))

    def network_ids(self, name: str) -> frozenset[str]:
        with self._call("network_ids", name):
            return self._network_ids(name)

    def _network_ids(self, name: str) -> frozenset[str]:
        ids = {f"{self.daemon_id}/{name}"} if name in self.networks else set()
        if name in self.ambiguous_networks:
            ids.add(f"{self.daemon_id}/{name}/2")
        return frozenset(ids)

    def connections_made(self) -> int:
        return self.connections

    def network_exists(self, name: str) -> bool:
        with self._call("network_exists", name):
            if name in self.ambiguous_networks:
                raise NetworkAmbiguous(name, 2)
            return name in self.networks

    def ensure_image(self, image_ref: str, policy: PullPolicy) -> Image:
        found = self.request_image(image_ref, policy)
        return found if isinstance(found, Image) else found.image()

    def request_image(self, image_ref: str, policy: PullPolicy) -> Image | ImagePull:
        with self._call("request_image", image_ref, policy):
            full = _full(image_ref)
            found = None if policy is PullPolicy.ALWAYS else self.present.get(full)
            if found is not None:
                return _described(full, found)
            if policy is PullPolicy.NEVER:
                raise ImageUnavailable(f"image {image_ref} is absent and the pull policy is `never`: load it")
        return self._join(full)

    def runtime_id(self) -> str:
        with self._call("runtime_id"):
            return "in memory"

    def remove_image(self, image_ref: str, image_id: str) -> bool:
        with self._call("remove_image", image_ref, image_id):
            full = _full(image_ref)
            found = self.present.get(full)
            if found is None or _described(full, found).image_id != image_id:
                return True
            if any(self._images[view.container_id] is found for view in self._containers.values()):
                return False
            del self.present[full]
            return True

    def launch(self, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> str:
        with self._call("launch", spec.game_id, spec):
            self._require_free(spec.name)
            container_id = self._create(spec, spec.name)
            self._start(container_id, spec, confirm)
            return container_id

    def create_next(self, spec: ContainerSpec) -> str:
        with self._call("create_next", spec.game_id, spec):
            self._require_free(spec.next_name)
            return self._create(spec, spec.next_name)

    def promote(self, container_id: str, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> None:
        with self._call("promote", container_id, spec):
            self._find(container_id)
            self._require_free(spec.name)
            self._replace(container_id, name=spec.name)
            self._start(container_id, spec, confirm)

    def stop(self, container_id: str, stop_grace_s: int) -> bool:
        try:
            with self._call("stop", container_id, stop_grace_s):
                view = self._find(container_id)
                if view.alive:
                    stubborn = self._images[view.container_id].ignores_signals
                    self.exit(container_id, SIGKILL_CODE if stubborn else SIGTERM_CODE)
                return view.alive
        except (FinalAnswer, TemporaryAnswer):
            if self._find(container_id).alive:
                raise
            return False

    def remove(self, container_id: str) -> None:
        with self._call("remove", container_id):
            view = self._find(container_id)
            if view.alive:
                raise StillRunning(f"container {container_id} is {view.state} and was not removed")
            del self._containers[view.container_id]

    def present_run(self) -> RuntimeRun:
        with self._call("present_run"):
            return self.run

    def inspect(self, id_or_name: str) -> ContainerView:
        with self._call("inspect", id_or_name):
            return self._find(id_or_name)

    def list_games(self) -> Sequence[ContainerView]:
        with self._call("list_games"):
            found = (view for view in self._containers.values() if _is_game(view))
            return [replace(view, exit_code=None, oom_killed=False, image_id="") for view in found]

    def log_tail(self, container_id: str) -> str:
        try:
            with self._call("log_tail", container_id):
                return self.logs.get(container_id, "")
        except (TemporaryAnswer, FinalAnswer) as error:
            return f"(the log cannot be read: {error})"

    def close(self) -> None:
        with self._lock:
            self._closed = True
            holds = list(self._holds.values())
        for held in holds:
            held.release()

    # ── what happens in the world without the port ──

    @property
    def containers(self) -> list[ContainerView]:
        """All containers, ours or not, in the order of their creation; no call of the port, so it always works."""
        with self._lock:
            return list(self._containers.values())

    def add_foreign(self, view: ContainerView) -> None:
        """Add a container that the manager did not create."""
        with self._lock:
            self._containers[view.container_id] = view
            self._images[view.container_id] = FakeImage()

    def change(self, container_id: str, state: ContainerState) -> None:
        """Change the state of a container, as a pause, restart or start by a person does."""
        self._replace(container_id, state=state, exit_code=None)

    def alter(self, container_id: str, **changes: object) -> None:
        """Change fields of a container's view: its health, its restart count, its addresses."""
        self._replace(container_id, **changes)

    def exit(self, container_id: str, exit_code: int, oom_killed: bool = False) -> None:
        """End the container's process."""
        self._replace(container_id, state=ContainerState.EXITED, exit_code=exit_code, oom_killed=oom_killed)

    def exchange(self, daemon_id: str, *, behind_proxy: bool = False) -> list[ContainerView]:
        """Replace the daemon by one without containers; return the old containers, for `bring_back`.

        `behind_proxy`: the connections to the proxy stay.
        """
        with self._lock:
            before = self.containers
            self._containers.clear()
            self.daemon_id = daemon_id
            self.connections += not behind_proxy
            return before

    def bring_back(self, daemon_id: str, containers: Sequence[ContainerView]) -> None:
        """Replace the daemon by an earlier one with its containers."""
        with self._lock:
            self.exchange(daemon_id)
            self._containers = {view.container_id: view for view in containers}

    def vanish(self, container_id: str) -> None:
        """Remove the container, running or not, as a forced removal by a person does."""
        with self._lock:
            del self._containers[container_id]

    # ── trouble ──

    def fail_launch(self, game_id: str, message: str) -> None:
        """Let the next start of a container for this game raise `LaunchFailed`."""
        with self._lock:
            self._launch_failures[game_id] = message

    def lose_answer(self, method: str) -> None:
        """Let the next call of `method` be done, and then raise `Unavailable` instead of returning."""
        with self._lock:
            self._lost.append(method)

    def refuse(self, method: str, meant: Meant, times: float = inf) -> None:
        """Refuse so many calls of `method` (of the port, or `pull`); a refused call is not done."""
        with self._lock:
            self._refusals[method] = (meant, times)

    def refuses(self, method: str) -> bool:
        """Whether the next call of `method` is refused."""
        return method in self._refusals

    def stop_refusing(self, method: str) -> None:
        """End the refusals of `method`."""
        with self._lock:
            self._refusals.pop(method, None)

    @contextmanager
    def holding(self, method: str, about: str | None = None) -> Iterator[CallGate]:
        """Hold calls of `method` (of the port, or `pull`) while the block runs, before they do anything.

        `about` limits it to one game (`launch`), image (`ensure_image`, `pull`) or container (the others).
        """
        held = CallGate(about)
        with self._lock:
            self._holds[method] = held
        try:
            yield held
        finally:
            with self._lock:
                self._holds.pop(method, None)
            held.release()

    def called(self, method: str) -> list[tuple[object, ...]]:
        """The arguments of each call of `method` so far."""
        with self._lock:
            return [call.arguments for call in self.calls if call.method == method]

    @contextmanager
    def _call(self, method: str, *arguments: object) -> Iterator[None]:
        """Record a call, apply its holds and faults, and run its body under the lock."""
        with self._lock:
            self._check()
            self.calls.append(Call(method, arguments))
            held = self._holds.get(method)
        if held is not None and held.about in (None, *arguments[:1]):
            held.arrive()
        with self._lock:
            self._check()
            self._check_refused(method)
            lost = method in self._lost
            if lost:
                self._lost.remove(method)
            try:
                yield
            finally:
                if lost:
                    raise Unavailable("docker", f"the answer to {method} was lost")

    def _join(self, image_ref: str) -> ImagePull:
        """Join the pull of the image that is under way, or start one on a thread of its own."""
        with self._lock:
            pull = self._pulls.get(image_ref)
            if pull is None:
                pull = self._pulls[image_ref] = _SharedPull()
                name = f"fake pull {image_ref}"
                threading.Thread(target=self._run_pull, args=(image_ref, pull), name=name, daemon=True).start()
            pull.waiting += 1
        return _Waiter(self, image_ref, pull)

    def _run_pull(self, image_ref: str, pull: _SharedPull) -> None:
        try:
            found: Image | RuntimeManagerError = self._pull(image_ref)
        except RuntimeManagerError as error:
            found = error
        with self._lock:
            if self._pulls.get(image_ref) is pull:
                del self._pulls[image_ref]
        pull.outcome.set_result(found)

    def _leave(self, image_ref: str, pull: _SharedPull) -> None:
        with self._lock:
            pull.waiting -= 1
            if not pull.waiting and self._pulls.get(image_ref) is pull:
                del self._pulls[image_ref]

    def _pull(self, image_ref: str) -> Image:
        with self._call("pull", image_ref):
            found = self.registry.get(image_ref)
            if found is None:
                raise ImageUnavailable(f"image {image_ref} cannot be pulled: manifest unknown")
            self.present[image_ref] = found
            return _described(image_ref, found)

    def _check(self) -> None:
        if self._closed:
            raise Unavailable("docker", "the runtime is closed")
        if not self.available:
            raise Unavailable("docker", "the runtime does not answer")

    def _check_refused(self, method: str) -> None:
        """Raise what `DockerRuntime` raises for a refusal of that meaning."""
        method = "ensure_image" if method == "request_image" else method  # the same call, with and without a wait
        meant, times = self._refusals.get(method, (None, 0))
        if meant is None:
            return
        self._refusals[method] = (meant, times - 1)
        if times <= 1:
            del self._refusals[method]
        text = f"the runtime in memory was set to refuse {method}"
        if meant is Meant.TEMPORARY:
            found = TemporaryAnswer("docker", text, answer=f"{method}: set", code=_CODES.get(method, _OTHER_CODE))
            found.untouched = method not in CHANGING
            raise found
        raise _REFUSED.get(method, _final)(text)

    def _find(self, id_or_name: str) -> ContainerView:
        for view in self._containers.values():
            if id_or_name in (view.container_id, view.name):
                return view
        raise ContainerNotFound(f"container {id_or_name} does not exist")

    def _replace(self, container_id: str, **changes: object) -> None:
        with self._lock:
            self._containers[container_id] = replace(self._find(container_id), **changes)  # type: ignore[arg-type]

    def _require_free(self, name: str) -> None:
        if any(view.name == name for view in self._containers.values()):
            raise NameTaken(f"container name {name} is taken")

    def _create(self, spec: ContainerSpec, name: str) -> str:
        image = self.present.get(_full(spec.image_ref))
        if image is None:
            raise LaunchFailed(f"container {spec.name}: no such image: {spec.image_ref}")
        if not image.has_command:
            raise LaunchFailed(f"container {spec.name}: no command specified")
        if spec.log_driver in self.refused_log_drivers:
            raise LaunchFailed(f"container {spec.name}: plugin {spec.log_driver} not found")
        container_id = f"{next(self._numbers):064x}"
        self._images[container_id] = image
        self._containers[container_id] = ContainerView(
            container_id=container_id,
            name=name,
            image_ref=_full(spec.image_ref),
            state=ContainerState.CREATED,
            labels={**image.labels, **spec.labels},
            networks=frozenset({spec.network}),
            made_for=spec.network,
            image_id=f"sha256:{_full(spec.image_ref)}",
        )
        return container_id

    def _start(self, container_id: str, spec: ContainerSpec, confirm: Callable[[], None]) -> None:
        """Start the container, or remove it on failure. A missing network fails only here, as with Docker."""
        try:
            confirm()
            self._require_start(container_id, spec)
        except RuntimeManagerError:
            self._containers.pop(container_id, None)  # another daemon may answer by now
            raise
        self._replace(container_id, state=ContainerState.RUNNING)

    def _require_start(self, container_id: str, spec: ContainerSpec) -> None:
        if container_id not in self._containers:
            raise ContainerNotFound(f"container {container_id} was removed before its start")
        image = self._images[container_id]
        if spec.game_id in self._launch_failures:
            raise LaunchFailed(f"container {spec.name}: {self._launch_failures.pop(spec.game_id)}")
        if spec.network not in self.networks:
            raise LaunchFailed(f"container {spec.name}: network {spec.network} not found")
        if image.exits is not None:
            raise LaunchFailed(f"container {spec.name}: its process ended at once with exit code {image.exits}")


def _final(text: str) -> RuntimeManagerError:
    return FinalAnswer("docker", text)


#: By method: the error code of an operation that gets temporary answers for too long; and what a final answer raises.
_CODES = {
    "ensure_image": ErrorCode.IMAGE_PULL_FAILED,
    "pull": ErrorCode.IMAGE_PULL_FAILED,
    "launch": ErrorCode.CONTAINER_START_FAILED,
    "create_next": ErrorCode.CONTAINER_START_FAILED,
    "promote": ErrorCode.CONTAINER_START_FAILED,
}
_OTHER_CODE = ErrorCode.INTERNAL_ERROR
_REFUSED: Mapping[str, Callable[[str], RuntimeManagerError]] = {
    "ensure_image": ImageUnavailable,
    "pull": ImageUnavailable,
    "launch": LaunchFailed,
    "create_next": LaunchFailed,
    "promote": LaunchFailed,
}


def _full(image_ref: str) -> str:
    """The reference with its tag; without a tag and a digest it means `latest`."""
    try:
        parsed = parse_image_ref(image_ref)
    except InvalidValue as error:
        raise ImageRefInvalid(str(error)) from error
    return image_ref if parsed.tag or parsed.digest else f"{image_ref}:latest"


def _described(image_ref: str, found: FakeImage) -> Image:
    return Image(f"sha256:{image_ref}", dict(found.labels), found.foreign)


def _is_game(view: ContainerView) -> bool:
    return view.labels.get(LABEL_OWNER) == OWNER and view.labels.get(LABEL_KIND) == KIND
