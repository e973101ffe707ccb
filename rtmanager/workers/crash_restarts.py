"""Restarts of crashed games, when they are due: each is queued as an ordinary operation."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rtmanager.operations.tools import Clock
from rtmanager.workers.watching import Findings


class CrashRestarts:
    """One step queues what is due; several instances may do so at once."""

    def __init__(self, findings: Findings, *, clock: Clock, queued: Callable[[], None], logger: logging.Logger) -> None:
        self._findings = findings
        self._clock = clock
        self._queued = queued
        self._logger = logger

    def step(self) -> bool:
        """Always False. Raises `Unavailable`."""
        requests = self._findings.queue_restart(self._clock())
        for request in requests:
            self._logger.warning(
                "crashed game is started again", extra={"game_id": request.game_id, "source_ref": request.source_ref}
            )
        if requests:
            self._queued()
        return False
