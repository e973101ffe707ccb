"""The first container of an image is watched for a moment: does its process live?

A game runs under an init process, and with one Docker calls every start good: that the image's program does
not exist, or ends at once, shows only afterwards, as an exit. So the first container of each image is looked
at a little longer; an image whose process has lived is not watched again, and its starts cost nothing more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from docker import APIClient
from docker.errors import APIError, NotFound

from rtmanager.adapters.docker import decode
from rtmanager.adapters.docker.engine import Engine
from rtmanager.adapters.docker.errors import words
from rtmanager.domain.container import ContainerView

T = TypeVar("T")

#: Seconds between two looks.
LOOK_AGAIN_S = 0.025

#: As much of the container's log as says why it ended.
LOG_LINES = 5
LOG_CHARACTERS = 600


class FirstStarts:
    """Which images are known to live: their process did for `watch_s` seconds. Safe for many threads.

    What fails at once is gone after some 70 ms, on two busy cores.
    """

    def __init__(self, engine: Engine, watch_s: float) -> None:
        self._engine = engine
        self._watch_s = watch_s
        self._lock = threading.Lock()
        self._living: set[str] = set()

    def why_ended(self, container_id: str, image_id: str | None) -> str | None:
        """Why the process of a container that was just started has ended; None when it lives.

        `image_id` tells which image it is of; without it the container is asked. Raises `Unavailable`.
        """
        with self._lock:
            if image_id and image_id in self._living:
                return None
        until = monotonic() + self._watch_s
        while True:
            found = self._ask("first_start", lambda client: client.inspect_container(container_id))
            if found is None:
                return "it was removed while it started"
            view = decode.inspected(found, container_id)
            if view.ended:
                return self._describe(view)
            if monotonic() >= until:
                break
            self._engine.pause(LOOK_AGAIN_S)
        with self._lock:
            self._living.add(decode.image_run_by(found))
        return None

    def _describe(self, ended: ContainerView) -> str:
        log = self._ask("logs", lambda client: client.logs(ended.container_id, tail=LOG_LINES))
        said = " ".join(decode.log(log, LOG_CHARACTERS).split())
        return f"its process ended at once with exit code {ended.exit_code}" + (f"; its log: {said}" if said else "")

    def _ask(self, name: str, question: Callable[[APIClient], T]) -> T | None:
        """An answer about a container; None when it does not exist."""
        try:
            return self._engine.ask(name, self._engine.deadlines.query_s, question)
        except NotFound:
            return None
        except APIError as error:
            raise self._engine.unavailable(f"asked for a container it says {words(error)}") from error
