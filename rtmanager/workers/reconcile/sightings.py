"""Remembers which containers ran in the runtime's present run, so that no clock has to be trusted.

The begin of a run is used as its name here, never compared with another time. The memory is one process's and is
emptied when the run changes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime

from rtmanager.domain.container import ContainerView
from rtmanager.domain.outage import RuntimeRun


class RunSightings:
    """The containers that were seen running in the present run, and the games that it ended; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run: datetime | None = None
        self._ran: set[str] = set()
        #: By game, the container that ended with the run before.
        self._ended: dict[str, str] = {}

    def saw(self, run: RuntimeRun, listed: Sequence[ContainerView]) -> None:
        """Note a list that was read after the run: what is alive in it runs in this run, or in a later one."""
        with self._lock:
            self._enter(run)
            there, alive = {view.container_id for view in listed}, {view.container_id for view in listed if view.alive}
            self._ran = (self._ran & there) | alive

    def ended_with_earlier(self, run: RuntimeRun, game_id: str, container_id: str) -> None:
        """Note that a game ended with the run before this one: each later container of it is of this run."""
        with self._lock:
            self._enter(run)
            self._ended[game_id] = container_id

    def ran_in(self, run: RuntimeRun, game_id: str, container_id: str) -> bool:
        """Return whether the game's container is known to have run in this run."""
        with self._lock:
            if run.began_at is None or run.began_at != self._run:
                return False
            return container_id in self._ran or self._ended.get(game_id, container_id) != container_id

    def _enter(self, run: RuntimeRun) -> None:
        if run.began_at != self._run:
            self._run, self._ran, self._ended = run.began_at, set(), {}
