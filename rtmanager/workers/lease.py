"""The lease keeper: shows that this instance is alive, and reclaims the operations of instances that are not.

It writes a heartbeat to each claimed operation and holds a session lock. A frozen process writes no heartbeat; a killed
process loses its session lock at once. So a kill is detected within seconds and a freeze within the lease.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from time import monotonic

from rtmanager.domain.operation import Operation
from rtmanager.ports.store import OperationQueue, SessionLock

#: Seconds between two heartbeats.
PERIOD_S = 1.0
#: Fraction of the lease between two heartbeats of an operation that waits for a pull; there may be thousands of them.
WAITING_SHARE = 0.2
#: Seconds that this instance holds its session lock before it treats an instance without one as gone.
SETTLED_S = 3.0

TAKEN_OVER = "took over an operation of an instance that is gone"
TAKEN_BACK = "took back an operation of this instance: nothing here works on it, or its heartbeats came too late"


class LeaseKeeper:
    """One step writes the heartbeats and reclaims orphans; operations of `waiting` get heartbeats less often."""

    def __init__(
        self,
        queue: OperationQueue,
        session_lock: SessionLock,
        *,
        live: Callable[[], Sequence[Operation]],
        waiting: Callable[[], Collection[Operation]] = tuple,
        lease_s: float = 0.0,
        now: Callable[[], float] = monotonic,
        found: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._queue = queue
        self._session_lock = session_lock
        self._live = live
        self._waiting = waiting
        self._waiting_every_s = lease_s * WAITING_SHARE
        self._waiting_beat_at = -math.inf
        self._now = now
        self._found = found
        self._logger = logger

    def step(self) -> bool:
        """Return False: once a period is enough."""
        waiting = set(self._waiting())  # before `live`: an operation that resumes in between is in `live`
        live = self._live()
        began = self._now()
        all_of_them = began - self._waiting_beat_at >= self._waiting_every_s
        beating = live if all_of_them else [each for each in live if each not in waiting]
        if beating:
            self._report_lost(beating, self._queue.heartbeat(beating, skip_locked=True))
        if all_of_them:
            self._waiting_beat_at = began
        # After an outage every instance has to take its session lock again. An instance that has only just done so
        # gives the others the same time.
        by_presence = self._session_lock.show() > SETTLED_S
        # Read again: operations may have been claimed while a heartbeat waited for a lock.
        live_ids = [operation.operation_id for operation in self._live()]
        orphans = self._queue.reclaim_orphans(live_ids, by_presence=by_presence)
        for orphan in orphans:
            self._logger.warning(
                TAKEN_BACK if orphan.ours else TAKEN_OVER,
                extra={
                    "operation_id": orphan.operation_id,
                    "game_id": orphan.game_id,
                    "op_kind": orphan.kind.value,
                },
            )
        if orphans:
            self._found()
        return False

    def _report_lost(self, live: Sequence[Operation], ours: set[int]) -> None:
        still_working = set(self._live())  # the others have ended in the meantime, as they should
        for operation in still_working.intersection(live):
            if operation.operation_id not in ours:
                self._logger.warning(
                    "operation was taken over while it was worked on here",
                    extra={"operation_id": operation.operation_id, "game_id": operation.game_id},
                )
