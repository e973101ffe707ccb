"""One database, one daemon: answers of the container runtime count only from the daemon on record.

Records name containers by ids of one daemon. On another daemon all of them are absent, and a pass would record every
running game as removed. `GuardedRuntime` therefore confirms the daemon's identity

- after a list, an absence, a rejection, or a container found by its name, before any decision on it;
- between the create and the start of a container.

A confirmation requests the network's id each time: behind an HTTP proxy, the daemon may be exchanged while the
manager's connection stays. The daemon's own id, which costs more, is requested only after a new connection.

Another daemon raises `OtherDaemon`, a kind of `Unavailable`: jobs stay due, calls get `service_unavailable`, no record
changes. From then on every call confirms first, so the other daemon gets no other request.

The guard also hides the containers of other deployments, by their label.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rtmanager.domain.container import LABEL_DEPLOYMENT, ContainerSpec, ContainerView
from rtmanager.domain.daemon import Daemon, Match, SeenDaemon, difference
from rtmanager.domain.errors import IN_MESSAGE, FinalAnswer, RuntimeManagerError, Unavailable
from rtmanager.domain.game import shown
from rtmanager.domain.outage import RuntimeRun
from rtmanager.ports.runtime import (
    ContainerNotFound,
    ContainerRuntime,
    Image,
    ImagePull,
    ImageUnavailable,
    LaunchFailed,
    NameTaken,
    NetworkAmbiguous,
    PullPolicy,
    unconditionally,
)
from rtmanager.ports.store import DaemonRecords

REMEDY = (
    "let RTMANAGER_DOCKER_HOST name the daemon on record; if the games were moved here on purpose, or its network was "
    "created anew, run `python -m rtmanager accept-daemon` (docs/operations.md, Move to another host)"
)


class OtherDaemon(Unavailable):
    """Another daemon answers than the one on record; it got no request but for its identity."""

    def __init__(self, recorded: Daemon, seen: SeenDaemon) -> None:
        super().__init__("docker", f"{difference(recorded, seen)}; {REMEDY}", untouched=True)
        self.remedy = IN_MESSAGE


class IdentityChanges(Unavailable):
    """The daemon gives another id with each answer, so it cannot be recognised."""

    def __init__(self, first: SeenDaemon, second: SeenDaemon) -> None:
        super().__init__(
            "docker",
            f"the daemon gives another id with each answer, {first.daemon_id} and then {second.daemon_id}, so it "
            "cannot be distinguished from another one",
            untouched=True,
        )
        self.remedy = "use a daemon whose `docker info` gives the same ID each time; Podman's service does not"


def stable(runtime: ContainerRuntime, network: str) -> SeenDaemon:
    """Return the daemon that answers. Raises `IdentityChanges` or `DependencyError`."""
    first, second = runtime.identify(network), runtime.identify(network)
    if first.daemon_id != second.daemon_id:
        raise IdentityChanges(first, second)
    return second


class OneDaemon:
    """The daemon on record, and whether it is the one that answers; shared by all its clients, thread-safe."""

    def __init__(self, records: DaemonRecords, network: str, logger: logging.Logger) -> None:
        """`network` is the network by which a first start recognises the daemon."""
        self._records = records
        self._network = network
        self._logger = logger
        self._lock = threading.Lock()
        self._why = ""
        #: The deployment in the label of containers; set by `establish`.
        self.deployment = ""
        #: Ids of containers that are known not to belong to another deployment.
        self.ours: set[str] = set()

    @property
    def is_frozen(self) -> bool:
        """Whether another daemon answered last."""
        return bool(self._why)

    def establish(self, runtime: ContainerRuntime) -> None:
        """Confirm the daemon at start-up, and record it if none is on record.

        Raises `OtherDaemon`, `IdentityChanges`, `NoSuchNetwork` or `DependencyError`.
        """
        self.deployment = self._records.deployment_id()
        recorded = self._records.recorded()
        if recorded is None:
            recorded = self._records.record(self.identity(runtime))
            self._logger.info("daemon recorded", extra={"daemon": str(recorded)})
        seen = runtime.identify(recorded.network)
        if recorded.compare(seen) is not Match.SAME:
            raise OtherDaemon(recorded, seen)

    def identity(self, runtime: ContainerRuntime) -> Daemon:
        """Return the daemon that answers, as it would be recorded. Raises as `establish`, except `OtherDaemon`."""
        return Daemon.of(stable(runtime, self._network), self._network)

    def confirm(
        self, runtime: ContainerRuntime, *, without_network: bool = False, same_connections: bool = False
    ) -> None:
        """Raise `OtherDaemon` unless the daemon on record answers.

        `without_network`: the id alone is enough if the network is gone. `same_connections`: both ids were confirmed on
        the present connections, so the network alone is enough. Also raises `DependencyError`.
        """
        # Read each time: `accept-daemon` may have recorded another one.
        recorded = self._records.recorded() or self._records.record(self.identity(runtime))
        if same_connections and not self.is_frozen and recorded.network_id in runtime.network_ids(recorded.network):
            return
        self._compare(recorded, runtime.identify(recorded.network), without_network=without_network)

    def _compare(self, recorded: Daemon, seen: SeenDaemon, *, without_network: bool = False) -> None:
        match = recorded.compare(seen)
        if match is Match.OTHER or (match is Match.NETWORK_GONE and not without_network):
            other = OtherDaemon(recorded, seen)
            self._note(str(other) if match is Match.OTHER else "")
            raise other
        self._note("")

    def _note(self, why: str) -> None:
        """Log a change, once."""
        with self._lock:
            before, self._why = self._why, why
        if why and not before:
            self._logger.error("another daemon answers, passes are frozen", extra={"error": why})
        if before and not why:
            self._logger.info("the daemon on record answers again")


class GuardedRuntime:
    """`ContainerRuntime` of one daemon and one deployment; see the module."""

    def __init__(self, inner: ContainerRuntime, one: OneDaemon, logger: logging.Logger) -> None:
        self._inner = inner
        self._one = one
        self._logger = logger
        #: Number of connections at the last confirmation.
        self._confirmed_at = -1
        self._hidden = 0

    def require_daemon(self) -> None:
        """Raise `OtherDaemon` if another daemon answered last and still does."""
        if self._one.is_frozen:
            self.confirm()

    @property
    def deployment(self) -> str:
        """The deployment in the label of containers."""
        return self._one.deployment

    # ── the port ──

    def ping(self) -> str:
        """See the port; answered by any daemon."""
        return self._inner.ping()

    def identify(self, network: str) -> SeenDaemon:
        """See the port; answered by any daemon."""
        return self._inner.identify(network)

    def network_ids(self, name: str) -> frozenset[str]:
        """See the port; answered by any daemon."""
        return self._inner.network_ids(name)

    def connections_made(self) -> int:
        """See the port."""
        return self._inner.connections_made()

    def network_exists(self, name: str) -> bool:
        """See the port."""
        with self._counting(NetworkAmbiguous, without_network=True):
            exists = self._inner.network_exists(name)
        if not exists:
            self.confirm(without_network=True)
        return exists

    def ensure_image(self, image_ref: str, policy: PullPolicy) -> Image:
        """See the port."""
        with self._counting(ImageUnavailable, without_network=True):
            return self._inner.ensure_image(image_ref, policy)

    def request_image(self, image_ref: str, policy: PullPolicy) -> Image | ImagePull:
        """See the port."""
        with self._counting(ImageUnavailable, without_network=True):
            found = self._inner.request_image(image_ref, policy)
        return found if isinstance(found, Image) else _GuardedPull(found, self)

    def launch(self, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> str:
        """See the port. `LaunchFailed` also when a container of another deployment has the name."""
        with self._launching(spec, spec.name, ContainerNotFound):
            container_id = self._inner.launch(spec, self._confirming(confirm))
        self._one.ours.add(container_id)
        return container_id

    def create_next(self, spec: ContainerSpec) -> str:
        """See the port. `LaunchFailed` also when a container of another deployment has the name."""
        with self._launching(spec, spec.next_name):
            container_id = self._inner.create_next(spec)
            try:
                self.confirm(without_network=True)
            except RuntimeManagerError:
                self._discard(container_id)
                raise
        self._one.ours.add(container_id)
        return container_id

    def promote(self, container_id: str, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> None:
        """See the port. `LaunchFailed` as with `launch`."""
        with self._launching(spec, spec.name, ContainerNotFound):
            self._require_ours(container_id)
            self._inner.promote(container_id, spec, self._confirming(confirm))

    def stop(self, container_id: str, stop_grace_s: int) -> bool:
        """See the port."""
        with self._counting(ContainerNotFound):
            self._require_ours(container_id)
            return self._inner.stop(container_id, stop_grace_s)

    def remove(self, container_id: str) -> None:
        """See the port."""
        with self._counting(ContainerNotFound):
            self._require_ours(container_id)
            self._inner.remove(container_id)

    def inspect(self, id_or_name: str) -> ContainerView:
        """See the port."""
        with self._counting(ContainerNotFound):
            found = self._of_ours(self._inner.inspect(id_or_name))
        if found.container_id != id_or_name:
            self.confirm()  # any daemon may have a container of that name
        return found

    def list_games(self) -> Sequence[ContainerView]:
        """See the port; omits containers of other deployments."""
        self.require_daemon()
        listed = self._inner.list_games()
        self.confirm()
        ours = [view for view in listed if not view.is_of_another(self._one.deployment)]
        self._one.ours = {view.container_id for view in ours}
        hidden = len(listed) - len(ours)
        if hidden != self._hidden:
            self._hidden = hidden
            self._logger.info("containers of other deployments are left alone", extra={"containers": hidden})
        return ours

    def runtime_id(self) -> str:
        """See the port."""
        return self._inner.runtime_id()

    def remove_image(self, image_ref: str, image_id: str) -> bool:
        """See the port."""
        self.confirm(without_network=True)
        return self._inner.remove_image(image_ref, image_id)

    def present_run(self) -> RuntimeRun:
        """See the port."""
        self.require_daemon()
        run = self._inner.present_run()
        self.confirm()
        return run

    def present_run_of_any(self) -> RuntimeRun:
        """Return the run of whichever daemon answers; without the store, so that only Docker's silence raises."""
        return self._inner.present_run()

    def log_tail(self, container_id: str) -> str:
        """See the port."""
        return self._inner.log_tail(container_id)

    def close(self) -> None:
        """See the port."""
        self._inner.close()

    # ── confirmation ──

    def confirm(self, *, without_network: bool = False) -> None:
        """Raise `OtherDaemon` unless the daemon on record answers; see `OneDaemon.confirm`."""
        made = self._inner.connections_made()
        same = made == self._confirmed_at
        self._one.confirm(self._inner, without_network=without_network, same_connections=same)
        self._confirmed_at = made

    @contextmanager
    def _counting(self, *answers: type[RuntimeManagerError], without_network: bool = False) -> Iterator[None]:
        """Let these errors, and any `FinalAnswer`, pass only from the daemon on record."""
        self.require_daemon()
        counted: tuple[type[RuntimeManagerError], ...] = (*answers, FinalAnswer)
        try:
            yield
        except counted:
            self.confirm(without_network=without_network)
            raise

    def _of_ours(self, view: ContainerView) -> ContainerView:
        if view.is_of_another(self._one.deployment):
            raise ContainerNotFound(f"container {view.container_id} belongs to another deployment")
        return view

    def _require_ours(self, container_id: str) -> None:
        """Raise `ContainerNotFound` for a container that is no game of this deployment.

        A copied database, or a row edited by hand, may name it.
        """
        if container_id in self._one.ours:
            return
        if not self._of_ours(self._inner.inspect(container_id)).is_game:
            raise ContainerNotFound(f"container {container_id} has no labels of a game, so it is left alone")

    @contextmanager
    def _launching(self, spec: ContainerSpec, name: str, *answers: type[RuntimeManagerError]) -> Iterator[None]:
        """Let failures of a create or a start, and these errors, pass only from the daemon on record.

        The network is not required here: the caller inspects the name next, which confirms with it.
        """
        with self._counting(NameTaken, LaunchFailed, *answers, without_network=True):
            try:
                yield
            except NameTaken:
                self._refuse_name_of_another(spec, name)
                raise

    def _confirming(self, confirm: Callable[[], None]) -> Callable[[], None]:
        """Extend `confirm` by the daemon's identity; a daemon without the network rejects the start by itself."""

        def both() -> None:
            confirm()
            self.confirm(without_network=True)

        return both

    def _discard(self, container_id: str) -> None:
        """Remove a container that was created and not confirmed; a failure must not hide why."""
        try:
            self._inner.remove(container_id)
        except RuntimeManagerError as error:
            extra = {"container_id": container_id, "error": str(error)}
            self._logger.warning("a container that was not started is left", extra=extra)

    def _refuse_name_of_another(self, spec: ContainerSpec, name: str) -> None:
        try:
            found = self._inner.inspect(name)
        except ContainerNotFound:
            return  # it is gone by now, and the name may be free
        if found.is_of_another(self._one.deployment):
            deployment = shown(found.labels[LABEL_DEPLOYMENT])
            raise LaunchFailed(
                f"the name {name} is taken by container {found.container_id[:12]} ({found.state}) of deployment "
                f"{deployment}, and this is deployment {self._one.deployment!r}: two databases must not use one daemon "
                "for games with the same id; remove that container, or use other game ids or another daemon"
            )


class _GuardedPull:
    """`ImagePull` whose failure counts only from the daemon on record."""

    def __init__(self, inner: ImagePull, runtime: GuardedRuntime) -> None:
        self._inner = inner
        self._runtime = runtime

    def when_ended(self, call: Callable[[], None]) -> None:
        """See the port."""
        self._inner.when_ended(call)

    def image(self) -> Image:
        """See the port."""
        try:
            return self._inner.image()
        except (ImageUnavailable, FinalAnswer):
            self._runtime.confirm(without_network=True)
            raise

    def leave(self) -> None:
        """See the port."""
        self._inner.leave()
