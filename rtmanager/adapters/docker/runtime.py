"""`ContainerRuntime` on one Docker daemon.

The tables of `answers` map Docker's answers to values and errors of the port; silence is `Unavailable`. A final answer
without an error of its own is `FinalAnswer`.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import quote

import docker
from docker.errors import APIError
from requests import Response

from rtmanager.adapters.docker import addresses, decode, skim, survey
from rtmanager.adapters.docker.answers import REMOVING, AnswerKind, Unreadable, answered, checked, kind_of, words
from rtmanager.adapters.docker.daemon_client import DaemonClient, Deadlines
from rtmanager.adapters.docker.errors import launch_refused, name_of_nobody
from rtmanager.adapters.docker.first_starts import FirstStartCheck
from rtmanager.adapters.docker.hardening import create_request
from rtmanager.adapters.docker.images import Images, full_reference
from rtmanager.adapters.docker.shared_pulls import PullLimits
from rtmanager.adapters.docker.tls import TlsFiles
from rtmanager.adapters.docker.transport import answer_about, arriving_entries, get
from rtmanager.adapters.docker.versions import Agreement
from rtmanager.domain.container import (
    KIND,
    LABEL_KIND,
    LABEL_OWNER,
    OWNER,
    ContainerSpec,
    ContainerView,
    TrialSpec,
)
from rtmanager.domain.daemon import SeenDaemon
from rtmanager.domain.errors import ErrorCode, FinalAnswer, RuntimeManagerError, TemporaryAnswer
from rtmanager.domain.outage import RuntimeRun
from rtmanager.domain.text import bounded
from rtmanager.ports.peers import NetworkAddresses
from rtmanager.ports.runtime import (
    ContainerNotFound,
    Image,
    ImagePull,
    LaunchFailed,
    LaunchInvalid,
    NameTaken,
    NetworkAmbiguous,
    PullPolicy,
    StillRunning,
    unconditionally,
)

#: A container's id or name, as Docker restricts it.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")

T = TypeVar("T")

#: Interval between two polls of an operation in progress, in seconds.
POLL_S = 0.05

#: Largest list of containers: its entries, and the characters of what is read. A larger list is unreadable.
MOST_LISTED, MOST_LISTED_TEXT = 30_000, 32_000_000

#: The part of an engine's log that is kept with its exit.
LOG_LINES = 20
LOG_CHARACTERS = 4000

#: Seconds for which a name may be taken without a container: a removal frees it last, a create reserves it first.
#: After a crash inside either, dockerd keeps the name until it is restarted.
PHANTOM_NAME_S = 15.0
#: The longest pause between two creates in that time; each is a line in the daemon's log.
PHANTOM_PAUSE_S = 1.0


class DockerRuntime:
    """The containers of one Docker host (`unix:///path` or `tcp://host:port`). Thread-safe.

    It connects at the first call and reconnects by itself. `pull_total_s` and `pull_no_progress_s` limit each pull,
    `pulls_per_registry` limits concurrent pulls. Clients of one host may share an `agreement` on the API version.
    """

    def __init__(
        self,
        host: str,
        *,
        tls: TlsFiles | None = None,
        pull_total_s: float = 600.0,
        pull_no_progress_s: float = 60.0,
        pulls_per_registry: int = 8,
        first_start_watch_s: float = 0.25,
        deadlines: Deadlines | None = None,
        agreement: Agreement | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._logger = logger or logging.getLogger("rtmanager.docker")
        self._deadlines = deadlines or Deadlines()
        self._engine = DaemonClient(host, self._deadlines, tls, agreement)
        #: For `present_run`: holds no open connections, since its calls send `Connection: close`.
        self._runs = DaemonClient(host, self._deadlines, tls, agreement)
        self._first_starts = FirstStartCheck(self._engine, first_start_watch_s)
        #: Unreadable entries of the last list.
        self._unreadable = 0
        limits = PullLimits(pull_total_s, pull_no_progress_s, pulls_per_registry)
        self._images = Images(self._engine, limits, self._logger)

    def ping(self) -> str:
        """Return the versions of the daemon and of its API."""
        found = self._engine.version()
        return f"Docker {found.get('Version')} (API {found.get('ApiVersion')})"

    def local_root(self) -> str | None:
        """Return Docker's root directory; None for a daemon of another host, or when it is not visible here."""
        if not self._engine.host.startswith("unix:"):
            return None
        root = self._engine.answer("info", self._deadlines.query_s, lambda client: decode.root_directory(client.info()))
        return root if os.path.isdir(root) else None

    def runtime_id(self) -> str:
        """See the port."""
        daemon_id, _ = self._daemon()
        return daemon_id

    def remove_image(self, image_ref: str, image_id: str) -> bool:
        """See the port."""
        return self._images.remove(image_ref, image_id)

    def network_exists(self, name: str) -> bool:
        """See the port. Docker's filter treats the name as a pattern, so its result is compared again."""
        return self._engine.answer(
            "network",
            self._deadlines.query_s,
            lambda client: _has_network(_list(client.networks(names=[name])), name),
        )

    def identify(self, network: str) -> SeenDaemon:
        """See the port; `domain.daemon` explains why Docker's own id is not enough."""
        daemon_id, name = self._daemon()
        return SeenDaemon(daemon_id, name, self.network_ids(network))

    def network_ids(self, name: str) -> frozenset[str]:
        """See the port. `GET /networks` takes 2 ms, `GET /info` 9 ms, since Docker counts its objects."""
        return self._engine.answer(
            "network",
            self._deadlines.query_s,
            lambda client: decode.networks_called(_list(client.networks(names=[name])), name),
        )

    def _daemon(self) -> tuple[str, str]:
        """Return the daemon's id and the name of its host."""
        return self._engine.answer("info", self._deadlines.query_s, _daemon)

    def connections_made(self) -> int:
        """See the port."""
        return self._engine.connections_made

    def ensure_image(self, image_ref: str, policy: PullPolicy) -> Image:
        """See the port."""
        return self._images.ensure(image_ref, policy)

    def request_image(self, image_ref: str, policy: PullPolicy) -> Image | ImagePull:
        """See the port."""
        return self._images.request(image_ref, policy)

    def launch(self, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> str:
        """See the port; `hardening` defines the container's isolation."""
        container_id = self._create(spec, _request(spec), spec.name)
        self._run(container_id, spec, confirm)
        return container_id

    def create_next(self, spec: ContainerSpec) -> str:
        """See the port."""
        return self._create(spec, _request(spec), spec.next_name)

    def promote(self, container_id: str, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> None:
        """See the port; Docker's DNS knows a container by its name at the start."""
        self._rename(container_id, spec)
        self._run(container_id, spec, confirm)

    def _run(self, container_id: str, spec: ContainerSpec, confirm: Callable[[], None]) -> None:
        """Start a created container after `confirm`, and watch the first start of an image."""
        try:
            confirm()
        except RuntimeManagerError:
            self._discard(container_id, "it may not be started any more")
            raise
        self._start(spec, container_id)
        image_id = self._images.known_id(full_reference(spec.image_ref))
        ended = self._first_starts.why_ended(container_id, image_id, spec)
        if ended is not None:
            confirm()  # another instance may have adopted the container and stopped it
            message = f"container {spec.name}: {ended}"
            self._discard(container_id, message)
            raise LaunchFailed(message)

    def _start(self, spec: ContainerSpec, container_id: str) -> None:
        """Start a created container; remove it when the start fails. Raises `ContainerNotFound` when it is gone."""
        try:
            self._engine.call(
                "start", self._deadlines.start_s, lambda client: _done(_post(client, container_id, "start"))
            )
        except APIError as error:
            if kind_of("start", error) is AnswerKind.ABSENT:
                raise ContainerNotFound(f"container {container_id} was removed before its start") from error
            message = launch_refused(spec, "start", error)
            self._discard(container_id, message)
            raise LaunchFailed(message) from error
        except TemporaryAnswer as error:
            self._discard(container_id, str(error))
            raise

    def stop(self, container_id: str, stop_grace_s: int) -> bool:
        """See the port; Docker unpauses a paused container so that it can end."""
        try:
            return self._of_container(
                "stop",
                container_id,
                stop_grace_s + self._deadlines.stop_margin_s,
                # `t` is the grace period's name in Docker's API.
                lambda client: _done(_post(client, container_id, "stop", {"t": str(stop_grace_s)})),
            )
        except (FinalAnswer, TemporaryAnswer):
            # Docker also refuses to stop a container whose exit it has not noticed yet ("no such process").
            if self.inspect(container_id).alive:
                raise
            return False

    def remove(self, container_id: str) -> None:
        """See the port; removes anonymous volumes with the container, and never kills a process."""
        _require_name(container_id)
        until = monotonic() + self._deadlines.remove_s
        refused = False
        while True:
            try:
                self._engine.call(
                    "remove",
                    max(POLL_S, until - monotonic()),
                    lambda client: _done(_delete(client, container_id)),
                )
            except APIError as error:
                if kind_of("remove", error) is AnswerKind.ABSENT:
                    if not refused:
                        raise ContainerNotFound(f"container {container_id} does not exist") from error
                    return
                if not self._is_removing(container_id, error, until):
                    return
                refused = True
            else:
                return

    def present_run(self) -> RuntimeRun:
        """See the port. Docker recreates its default bridge at each start, unless live-restore kept containers.

        When a proxy refuses these requests, the run is unknown.
        """
        try:
            return self._runs.call("run", self._deadlines.ping_s, _present_run)
        except APIError:
            return RuntimeRun()

    def inspect(self, id_or_name: str) -> ContainerView:
        """See the port."""
        return self._of_container(
            "inspect",
            id_or_name,
            self._deadlines.query_s,
            lambda client: decode.inspected(answer_about(client, id_or_name), id_or_name),
        )

    def list_games(self) -> Sequence[ContainerView]:
        """See the port; exit codes are unknown here, `inspect` returns them."""
        labels = [f"{LABEL_OWNER}={OWNER}", f"{LABEL_KIND}={KIND}"]
        query = {"all": "1", "filters": json.dumps({"label": labels})}
        entries = self._engine.answer(
            "list",
            self._deadlines.list_s,
            lambda client: _views(arriving_entries(client, "/containers/json", query)),
        )
        listed = [view for view in entries if view is not None]
        unreadable = len(entries) - len(listed)
        if unreadable != self._unreadable:
            self._unreadable = unreadable
            self._logger.warning("containers of the list cannot be read", extra={"containers": unreadable})
        return listed

    def log_tail(self, container_id: str) -> str:
        """See the port; for an unreadable log, returns the reason in brackets."""
        try:
            _require_name(container_id)
            raw = self._engine.call(
                "logs",
                self._deadlines.log_s,
                lambda client: bytes(client.logs(container_id, tail=LOG_LINES, timestamps=False)),
            )
        except APIError as error:
            return f"(the log cannot be read: {words(error)})"
        except (TemporaryAnswer, FinalAnswer, ContainerNotFound) as error:
            return f"(the log cannot be read: {error})"
        return decode.log(raw, LOG_CHARACTERS)

    def log_drivers(self) -> frozenset[str]:
        """Return the log drivers of Docker and of its plugins; see `survey`."""
        return survey.log_drivers(self._engine)

    def network_addresses(self, network: str) -> NetworkAddresses:
        """See `ports.peers`."""
        return addresses.of_network(self._engine, network)

    def has_address(self, container_id: str, address: str) -> bool:
        """See `ports.peers`."""
        return addresses.has(self._engine, container_id, address)

    def local_references(self) -> list[str]:
        """Return a reference of each image on the Docker host, the oldest first."""
        return survey.local_references(self._engine)

    def local_image(self, image_ref: str) -> Image | None:
        """Return the image if it is on the Docker host, else None. Raises `ImageUnavailable` when Docker refuses."""
        return self._images.local(image_ref)

    def try_create(self, spec: TrialSpec, *, any_command: bool) -> None:
        """Create a container and remove it without starting it. Raises as `launch`.

        With `any_command` the image may lack a command.
        """
        request = _request(spec) | ({"Cmd": ["true"]} if any_command else {})
        self._discard(self._create(spec, request, spec.name), f"container {spec.name} was created to try it")

    def remove_trials(self, network: str) -> None:
        """Remove the containers that a killed `try_create` left on this network."""
        for container_id in survey.trials(self._engine, network):
            with suppress(ContainerNotFound, StillRunning):  # another instance removed it; another client started it
                self.remove(container_id)

    def close(self) -> None:
        """See the port; may be called more than once."""
        self._engine.close()
        self._runs.close()
        self._images.close()

    def _of_container(
        self, name: str, container_id: str, seconds: float, question: Callable[[docker.APIClient], T]
    ) -> T:
        """Like `DaemonClient.answer`, for one container; raises `ContainerNotFound` when it does not exist."""
        _require_name(container_id)
        try:
            return self._engine.call(name, seconds, question)
        except APIError as error:
            if kind_of(name, error) is AnswerKind.ABSENT:
                raise ContainerNotFound(f"container {container_id} does not exist") from error
            raise self._engine.refused(name, error) from error

    def _create(self, spec: ContainerSpec, request: dict[str, Any], name: str) -> str:
        def create() -> tuple[str, Sequence[object]]:
            return self._engine.call("create", self._deadlines.create_s, lambda client: _create(client, request, name))

        try:
            container_id, warnings = self._naming("create", spec, name, create)
        except APIError as error:
            kind = LaunchInvalid if kind_of("create", error) is AnswerKind.MALFORMED else LaunchFailed
            raise kind(launch_refused(spec, "create", error)) from error
        for warning in warnings:
            self._logger.warning("container %s: Docker warns: %s", name, bounded(str(warning)))
        return container_id

    def _rename(self, container_id: str, spec: ContainerSpec) -> None:
        """Rename to the game's name. Raises `ContainerNotFound`, `NameTaken` or `LaunchFailed`."""

        def rename() -> None:
            self._engine.call(
                "rename",
                self._deadlines.query_s,
                lambda client: _done(_post(client, container_id, "rename", {"name": spec.name})),
            )

        try:
            self._naming("rename", spec, spec.name, rename)
        except APIError as error:
            if kind_of("rename", error) is AnswerKind.ABSENT:
                raise ContainerNotFound(f"container {container_id} does not exist") from error
            message = launch_refused(spec, "rename", error)
            self._discard(container_id, message)
            raise LaunchFailed(message) from error

    def _naming(self, call: str, spec: ContainerSpec, name: str, send: Callable[[], T]) -> T:
        """Run `send`, which reserves a name; raises `NameTaken` only when a container has the name.

        Retries for `PHANTOM_NAME_S` while no container has it, then raises `LaunchFailed`.
        Raises docker's `APIError` for any other final answer.
        """
        until, pause_s = monotonic() + PHANTOM_NAME_S, POLL_S
        while True:
            try:
                return send()
            except APIError as error:
                if kind_of(call, error) is not AnswerKind.NAME_TAKEN:
                    raise
                if self._exists(name):
                    raise NameTaken(f"container name {name} is taken: {words(error)}") from error
                if monotonic() >= until:
                    raise LaunchFailed(name_of_nobody(name, PHANTOM_NAME_S, error)) from error
                self._engine.pause(pause_s)
                pause_s = min(2 * pause_s, PHANTOM_PAUSE_S)

    def _discard(self, container_id: str, why: str) -> None:
        """Remove a container that could not be started, to free its name; `why` is for the error message."""
        try:
            self.remove(container_id)
        except ContainerNotFound:
            return  # another instance removed it; the name is free
        except StillRunning as error:
            raise self._engine.unavailable(f"a start was refused, yet the process lives: {error}") from error
        except (TemporaryAnswer, FinalAnswer) as error:
            # The next try finds the container by its name and removes it first.
            raise TemporaryAnswer(
                "docker",
                f"{why}; and what was created cannot be removed: {error}",
                answer=getattr(error, "answer", "remove: refused"),
                code=ErrorCode.CONTAINER_START_FAILED,
            ) from error

    def _is_removing(self, container_id: str, refusal: APIError, until: float) -> bool:
        """After a refused removal, return False when the container is gone, True after a pause while Docker removes it.

        Raises `StillRunning`, `FinalAnswer` or `TemporaryAnswer` otherwise.
        """
        try:
            state = self.inspect(container_id)
        except ContainerNotFound:
            return False
        if state.alive:
            raise StillRunning(f"container {container_id} is {state.state} and was not removed") from refusal
        if kind_of("remove", refusal) is not AnswerKind.BUSY_REMOVING:
            raise self._engine.refused("remove", refusal) from refusal
        if monotonic() + POLL_S >= until:
            raise self._engine.temporary("remove", REMOVING, answered("remove", refusal)) from refusal
        self._engine.pause(POLL_S)
        return True

    def _exists(self, id_or_name: str) -> bool:
        try:
            self.inspect(id_or_name)
        except ContainerNotFound:
            return False
        return True


def _request(spec: ContainerSpec) -> dict[str, Any]:
    return create_request(spec, full_reference(spec.image_ref))


def _present_run(client: docker.APIClient) -> RuntimeRun:
    bridges = {"filters": json.dumps({"name": ["bridge"]})}
    info, networks = (
        skim.loads(get(client, path, query, stream=False, headers={"Connection": "close"}).content)
        for path, query in (("/info", None), ("/networks", bridges))
    )
    return decode.present_run(info, networks)


def _require_name(id_or_name: str) -> None:
    """Raise `ContainerNotFound` for what can be no container's id or name, such as a row edited by hand may have.

    Docker takes it for another path, and redirects.
    """
    if not _NAME.fullmatch(id_or_name):
        raise ContainerNotFound(f"no container can be called {bounded(id_or_name, 100)!r}")


def _create(client: docker.APIClient, request: dict[str, Any], name: str) -> tuple[str, Sequence[object]]:
    """Create a container; returns its id and Docker's warnings."""
    found = client.create_container_from_config(request, name)  # type: ignore[no-untyped-call]
    container_id, warnings = found["Id"], found.get("Warnings") or ()
    if not isinstance(container_id, str) or not container_id or not isinstance(warnings, (list, tuple)):
        raise Unreadable(f"a container id {container_id!r}")
    return container_id, warnings


def _post(client: docker.APIClient, container_id: str, verb: str, params: dict[str, str] | None = None) -> Response:
    """Send a POST request. The SDK's own `start` and `stop` accept any page of a proxy as a success."""
    url = f"{client.base_url}/v{client.api_version}/containers/{quote(container_id, safe='')}/{verb}"
    return client.post(url, params=params)


def _delete(client: docker.APIClient, container_id: str) -> Response:
    url = f"{client.base_url}/v{client.api_version}/containers/{quote(container_id, safe='')}"
    return client.delete(url, params={"v": "true", "link": "false", "force": "false"})


def _done(response: Response) -> bool:
    """Return True for 204, done now, and False for 304, which changed nothing. Neither has a body."""
    checked(response)
    if response.status_code not in (204, 304):
        raise Unreadable(f"status {response.status_code} for what is answered by 204")
    return response.status_code == 204


def _views(entries: Iterable[object]) -> list[ContainerView | None]:
    """Decode a list that may be endless; None for an unreadable entry. Raises `Unreadable` above the limits."""
    views: list[ContainerView | None] = []
    characters = 0
    for view in map(decode.listed, entries):
        views.append(view)
        if view is not None:
            texts = (view.name, view.image_ref, view.made_for, *view.labels.values(), *view.networks)
            characters += sum(map(len, texts))
        if len(views) > MOST_LISTED or characters > MOST_LISTED_TEXT:
            raise Unreadable(f"a list of more than {MOST_LISTED} containers, or {MOST_LISTED_TEXT} characters")
    return views


def _has_network(found: Sequence[dict[str, Any]], name: str) -> bool:
    """Return whether the network is in the list. An unreadable entry must not count as "no"."""
    count = len(decode.networks_called(found, name))
    if count > 1:
        raise NetworkAmbiguous(name, count)
    if count:
        return True
    if any(not isinstance(each.get("Name"), str) for each in found):
        raise Unreadable("a network without a name")
    return False


def _daemon(client: docker.APIClient) -> tuple[str, str]:
    daemon_id, name = decode.daemon(client.info())
    if not daemon_id:
        raise Unreadable("no ID of the daemon")
    return daemon_id, name


def _list(found: object) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Unreadable(f"a {type(found).__name__} for a list of objects")
    return found
