"""The retention: queues an ordinary clean-up operation for each game that was stopped long ago."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from rtmanager.domain.operation import OpKind, OpSource, Request
from rtmanager.ports.store import GameBusy, OperationQueue
from rtmanager.ports.watching import Findings, Leases
from rtmanager.workers.failures import GameFailures

#: Clean-ups that one step queues; more follow with the next.
BATCH = 1000
WORK = "retention"


class Retention:
    """One step queues the clean-ups that are due."""

    def __init__(
        self,
        *,
        findings: Findings,
        leases: Leases,
        queue: OperationQueue,
        queued: Callable[[], None],
        keep: timedelta,
        period_s: float,
        logger: logging.Logger,
        steady: Callable[[], bool] = lambda: True,
        failures: GameFailures | None = None,
    ) -> None:
        """`steady`: whether the store's clock can be believed; nothing is queued while it cannot."""
        self._findings = findings
        self._leases = leases
        self._queue = queue
        self._queued = queued
        self._keep = keep
        self._period_s = period_s
        self._logger = logger
        self._steady = steady
        self._failures = failures or GameFailures(logger)

    def step(self) -> bool:
        """Return False: once a period is enough. Raises `Unavailable`."""
        if not self._steady() or not self._leases.mine(WORK, self._period_s):
            return False
        self._findings.forget_old_alarms()
        queued = 0
        # By the store's clock, like `last_op_at`: an instance's clock may be days ahead.
        for record in self._findings.stopped_before(self._findings.now() - self._keep, BATCH):
            source_ref = f"retention:{record.last_op_at:%Y-%m-%dT%H:%M:%SZ}"
            request = Request(record.game_id, OpKind.CLEANUP, OpSource.AUTO_TTL, source_ref)
            queued += bool(
                self._failures.guarded(WORK, record.game_id, partial(self._submit, request, record.last_op_at))
            )
        if queued:
            self._logger.info("retention queued clean-ups", extra={"games": queued})
            self._queued()
        return False

    def _submit(self, request: Request, last_op_at: datetime) -> bool:
        """Queue it; False when another operation of the game is under way or has ended since."""
        try:
            self._queue.submit(request, last_op_at=last_op_at)
        except GameBusy:
            return False
        return True
