"""`ContainerRuntime` on one Docker engine: the port's calls in the port's words.

What Docker answers becomes a value or an error of the port; what it does not answer is `Unavailable`. A
refusal that fits no error of a method says nothing about the container, so it is `Unavailable` as well.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, TypeVar

import docker
from docker.errors import APIError, NotFound

from rtmanager.adapters.docker import decode
from rtmanager.adapters.docker.engine import Deadlines, Engine
from rtmanager.adapters.docker.errors import launch_refused, words
from rtmanager.adapters.docker.first_starts import FirstStarts
from rtmanager.adapters.docker.hardening import create_request
from rtmanager.adapters.docker.images import Images, full_reference
from rtmanager.adapters.docker.transport import answer_about, arriving_entries
from rtmanager.domain.container import (
    KIND,
    LABEL_KIND,
    LABEL_OWNER,
    OWNER,
    ContainerSpec,
    ContainerView,
)
from rtmanager.domain.errors import RuntimeManagerError
from rtmanager.operations.ports import (
    ContainerNotFound,
    Image,
    LaunchFailed,
    NameTaken,
    PullPolicy,
    StillRunning,
    unconditionally,
)

T = TypeVar("T")

#: Seconds between two looks at something that Docker is still doing.
LOOK_AGAIN_S = 0.05

#: As much of an engine's log as is kept of how it ended.
LOG_LINES = 20
LOG_CHARACTERS = 4000

#: Seconds that a name may stay taken by nobody: a removal frees it last, a create takes it first.
PHANTOM_NAME_S = 3.0


class DockerRuntime:
    """The containers of one Docker host (`unix:///path` or `tcp://host:port`); safe for many threads.

    Connects at the first call, and again by itself. `pull_total_s` and `pull_no_progress_s` limit each pull.
    """

    def __init__(
        self,
        host: str,
        *,
        pull_total_s: float = 600.0,
        pull_no_progress_s: float = 60.0,
        first_start_watch_s: float = 0.25,
        deadlines: Deadlines | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._logger = logger or logging.getLogger("rtmanager.docker")
        self._deadlines = deadlines or Deadlines()
        self._engine = Engine(host, self._deadlines)
        self._first_starts = FirstStarts(self._engine, first_start_watch_s)
        #: Entries of the last list that could not be read.
        self._unreadable = 0
        self._images = Images(self._engine, pull_total_s, pull_no_progress_s, self._logger)

    def ping(self) -> str:
        """The engine's and its API's version."""
        found = self._engine.version()
        return f"Docker {found.get('Version')} (API {found.get('ApiVersion')})"

    def network_exists(self, name: str) -> bool:
        """Docker's own filter takes the name as a pattern, so what it found is compared again."""
        found: object = self._answer(
            "network", self._deadlines.query_s, f"network {name}", lambda client: client.networks(names=[name])
        )
        return decode.has_network(found, name)

    def ensure_image(self, image_ref: str, policy: PullPolicy) -> Image:
        """See the port."""
        return self._images.ensure(image_ref, policy)

    def launch(self, spec: ContainerSpec, confirm: Callable[[], None] = unconditionally) -> str:
        """See the port; how the container is walled in stands in `hardening`."""
        container_id = self._create(spec)
        try:
            confirm()
        except RuntimeManagerError:
            self._discard(container_id)
            raise
        try:
            self._engine.ask("start", self._deadlines.start_s, lambda client: client.start(container_id))
        except APIError as error:
            self._discard(container_id)
            raise LaunchFailed(launch_refused(spec.name, "start", error)) from error
        image_id = self._images.known_id(full_reference(spec.image_ref))
        ended = self._first_starts.why_ended(container_id, image_id)
        if ended is not None:
            confirm()  # somebody else may have taken the container for his own, and stopped it
            self._discard(container_id)
            raise LaunchFailed(f"container {spec.name}: {ended}; check the image: docker run --rm {spec.image_ref}")
        return container_id

    def stop(self, container_id: str, grace_seconds: int) -> None:
        """See the port; a paused container is continued by Docker so that it can end."""
        self._of_container(
            "stop",
            container_id,
            grace_seconds + self._deadlines.stop_margin_s,
            lambda client: client.stop(container_id, timeout=grace_seconds),
        )

    def remove(self, container_id: str) -> None:
        """See the port; anonymous volumes go with the container, a process never does."""
        until = monotonic() + self._deadlines.remove_s
        refused = False
        while True:
            try:
                self._engine.ask(
                    "remove",
                    max(LOOK_AGAIN_S, until - monotonic()),
                    lambda client: client.remove_container(container_id, v=True),
                )
            except NotFound as error:
                if not refused:
                    raise ContainerNotFound(f"container {container_id} does not exist") from error
                return
            except APIError as error:
                self._wait_to_remove(container_id, error, until)
                refused = True
            else:
                return

    def inspect(self, id_or_name: str) -> ContainerView:
        """See the port."""
        if not id_or_name:
            raise ContainerNotFound("a container without a name does not exist")
        found = self._of_container(
            "inspect", id_or_name, self._deadlines.query_s, lambda client: answer_about(client, id_or_name)
        )
        return decode.inspected(found, id_or_name)

    def list_games(self) -> Sequence[ContainerView]:
        """See the port; exit codes are not known here, `inspect` tells them."""
        labels = [f"{LABEL_OWNER}={OWNER}", f"{LABEL_KIND}={KIND}"]
        query = {"all": "1", "filters": json.dumps({"label": labels})}
        entries = self._answer(
            "list",
            self._deadlines.list_s,
            "the containers",
            lambda client: list(map(decode.listed, arriving_entries(client, "/containers/json", query))),
        )
        listed = [view for view in entries if view is not None]
        unreadable = len(entries) - len(listed)
        if unreadable != self._unreadable:
            self._unreadable = unreadable
            self._logger.warning("containers of the list cannot be read", extra={"containers": unreadable})
        return listed

    def log_tail(self, container_id: str) -> str:
        """See the port; a log driver that cannot be read from keeps none."""
        try:
            raw = self._engine.ask(
                "logs",
                self._deadlines.log_s,
                lambda client: client.logs(container_id, tail=LOG_LINES, timestamps=False),
            )
        except APIError:
            return ""
        return decode.log(raw, LOG_CHARACTERS)

    def close(self) -> None:
        """See the port; may be called more than once."""
        self._engine.close()
        self._images.close()

    def _answer(self, name: str, seconds: float, subject: str, question: Callable[[docker.APIClient], T]) -> T:
        """An answer that can only be given: a refusal is no answer to what was asked."""
        try:
            return self._engine.ask(name, seconds, question)
        except APIError as error:
            raise self._engine.unavailable(f"asked for {subject} it says {words(error)}") from error

    def _of_container(
        self, name: str, container_id: str, seconds: float, question: Callable[[docker.APIClient], T]
    ) -> T:
        """As `_answer`, about one container, which may not exist."""
        try:
            return self._engine.ask(name, seconds, question)
        except NotFound as error:
            raise ContainerNotFound(f"container {container_id} does not exist") from error
        except APIError as error:
            raise self._engine.unavailable(f"asked for container {container_id} it says {words(error)}") from error

    def _create(self, spec: ContainerSpec) -> str:
        """Create; `NameTaken` only for a name behind which a container is, see `PHANTOM_NAME_S`."""
        request = create_request(spec, full_reference(spec.image_ref))
        until = monotonic() + PHANTOM_NAME_S
        while True:
            try:
                created = self._engine.ask(
                    "create", self._deadlines.create_s, lambda client: _create(client, request, spec.name)
                )
            except APIError as error:
                if error.status_code != 409:
                    raise LaunchFailed(launch_refused(spec.name, "create", error)) from error
                if self._exists(spec.name) or monotonic() >= until:
                    raise NameTaken(f"container name {spec.name} is taken: {words(error)}") from error
                self._engine.pause(LOOK_AGAIN_S)
            else:
                for warning in created.get("Warnings") or ():
                    self._logger.warning("container %s: Docker warns: %s", spec.name, warning)
                return str(created["Id"])

    def _discard(self, container_id: str) -> None:
        """Take away what could not be started, so that its name is free again."""
        try:
            self.remove(container_id)
        except ContainerNotFound:
            return  # somebody else was faster; the name is free either way
        except StillRunning as error:
            raise self._engine.unavailable(f"a start was refused, yet the process lives: {error}") from error

    def _wait_to_remove(self, container_id: str, refusal: APIError, until: float) -> None:
        """After a refused removal: wait while Docker removes, else say what stands against it."""
        try:
            state = self.inspect(container_id)
        except ContainerNotFound:
            return
        if state.alive:
            raise StillRunning(f"container {container_id} is {state.state} and was not removed") from refusal
        if refusal.status_code != 409 or monotonic() + LOOK_AGAIN_S >= until:
            raise self._engine.unavailable(f"container {container_id} cannot be removed: {words(refusal)}") from refusal
        self._engine.pause(LOOK_AGAIN_S)

    def _exists(self, id_or_name: str) -> bool:
        try:
            self.inspect(id_or_name)
        except ContainerNotFound:
            return False
        return True


def _create(client: docker.APIClient, request: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.create_container_from_config(request, name)  # type: ignore[no-untyped-call]
    return found
