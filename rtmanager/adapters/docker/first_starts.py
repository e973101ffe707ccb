"""Watches the first container of each image for a moment, to detect a process that ends at once.

A game runs under an init process, so Docker reports every start as a success. A missing or failing program
shows only afterwards, as an exit. An image whose process survived the watch is not watched again.
"""

from __future__ import annotations

import threading
from signal import SIGKILL
from time import monotonic

from docker import APIClient
from docker.errors import APIError

from rtmanager.adapters.docker import decode
from rtmanager.adapters.docker.answers import AnswerKind, kind_of, words
from rtmanager.adapters.docker.daemon_client import DaemonClient
from rtmanager.domain.container import LABEL_MEMORY, LABEL_PIDS_LIMIT, ContainerSpec, ContainerView
from rtmanager.domain.errors import FinalAnswer, Unavailable
from rtmanager.ports.runtime import ContainerNotFound

#: Poll interval in seconds.
POLL_S = 0.025

#: Images remembered as good; above this number the set is cleared, and images are watched again.
MOST_LIVING = 10_000

#: The part of the container's log that a message quotes.
LOG_LINES = 5
LOG_CHARACTERS = 600

#: Exit code of a killed process.
KILLED = 128 + SIGKILL
#: The system's error text (lower case) at the process limit.
NO_PROCESS = "resource temporarily unavailable"


class FirstStartCheck:
    """Remembers which images start well: their process survived `watch_s` seconds. Thread-safe.

    A process that fails at once has ended after some 70 ms, on two busy cores.
    """

    def __init__(self, engine: DaemonClient, watch_s: float) -> None:
        self._engine = engine
        self._watch_s = watch_s
        self._lock = threading.Lock()
        self._living: set[str] = set()

    def why_ended(self, container_id: str, image_id: str | None, spec: ContainerSpec) -> str | None:
        """Return why the process of a container just started has ended, and the remedy; None when it lives.

        `image_id` skips the watch for an image that is known as good.
        Raises `Unavailable`, `TemporaryAnswer` or `FinalAnswer`.
        """
        with self._lock:
            if image_id and image_id in self._living:
                return None
        until = monotonic() + self._watch_s
        while True:
            found = self._inspect(container_id)
            if found is None:
                return "it was removed while it started"
            view, of = found
            if view.ended:
                return self._describe(view, spec)
            if monotonic() >= until:
                break
            self._engine.pause(POLL_S)
        with self._lock:
            if len(self._living) >= MOST_LIVING:
                self._living.clear()
            self._living.add(of)
        return None

    def _inspect(self, container_id: str) -> tuple[ContainerView, str] | None:
        """Return the container and the id of its image; None when it does not exist."""

        def read(client: APIClient) -> tuple[ContainerView, str]:
            found = client.inspect_container(container_id)
            return decode.inspected(found, container_id), decode.image_run_by(found)

        try:
            return self._engine.call("first_start", self._engine.deadlines.query_s, read)
        except ContainerNotFound:
            return None
        except APIError as error:
            if kind_of("first_start", error) is AnswerKind.ABSENT:
                return None
            raise self._engine.refused("first_start", error) from error

    def _describe(self, ended: ContainerView, spec: ContainerSpec) -> str:
        """Describe why it ended; an unreadable log does not hide the reason."""
        log, limits = self._log_of(ended.container_id), spec.limits
        remedy = f"check the image: docker run --rm {spec.image_ref}"
        # The kernel may kill a child of the init process; Docker then does not report OOM.
        if ended.oom_killed or ended.exit_code == KILLED:
            ran = "it ran" if ended.oom_killed else "it was killed: perhaps it ran"
            memory = f"{limits.memory_bytes / (1 << 20):g} MB"
            remedy = f"{ran} out of its {memory}: raise the image's label `{LABEL_MEMORY}`, or RTMANAGER_DEFAULT_MEMORY"
        elif NO_PROCESS in log.lower():
            remedy = (
                f"perhaps it reached its process limit of {limits.pids}: raise the image's label "
                f"`{LABEL_PIDS_LIMIT}`, or RTMANAGER_DEFAULT_PIDS_LIMIT; or {remedy}"
            )
        return f"its process ended at once with exit code {ended.exit_code}; {log}; {remedy}"

    def _log_of(self, container_id: str) -> str:
        try:
            log = self._engine.call(
                "logs",
                self._engine.deadlines.log_s,
                lambda client: bytes(client.logs(container_id, tail=LOG_LINES)),
            )
        except APIError as error:
            return f"its log cannot be read: {words(error)}"
        except (Unavailable, FinalAnswer, ContainerNotFound) as error:
            return f"its log cannot be read: {error}"
        last_lines = " ".join(decode.log(log, LOG_CHARACTERS).split())
        return f"its log: {last_lines}" if last_lines else "its log is empty"
