"""Containers that disagree with the records: logged and counted in a metric, never touched."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping

from rtmanager.domain.findings import Stray

#: Strays that are kept; of more, one error is logged.
MOST = 1000


class StrayRegistry:
    """Logs each stray once, and again when it changes; thread-safe."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._known: dict[str, Stray] = {}
        self._full = False

    def report(self, stray: Stray) -> None:
        """Add a container that disagrees."""
        with self._lock:
            if self._known.get(stray.container_id) == stray:
                return
            if len(self._known) >= MOST and stray.container_id not in self._known:
                self._too_many()
                return
            self._known[stray.container_id] = stray
        self._logger.warning(
            "container disagrees with the records and is left alone",
            extra={
                "game_id": stray.game_id,
                "container_id": stray.container_id,
                "container": stray.name,
                "reason": stray.reason,
            },
        )

    def _too_many(self) -> None:
        if not self._full:
            self._full = True
            self._logger.error("more containers disagree with the records than are listed", extra={"listed": MOST})

    def keep_only(self, container_ids: Collection[str]) -> None:
        """Remove all other strays: they agree by now, or are gone."""
        with self._lock:
            gone = [stray for container_id, stray in self._known.items() if container_id not in container_ids]
            for stray in gone:
                del self._known[stray.container_id]
            self._full = self._full and len(self._known) >= MOST
        for stray in gone:
            self._logger.info(
                "container agrees again or is gone",
                extra={"game_id": stray.game_id, "container_id": stray.container_id},
            )

    @property
    def known(self) -> Mapping[str, Stray]:
        """The present strays by container id."""
        with self._lock:
            return dict(self._known)
