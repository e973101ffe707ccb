"""The lease: says that this instance lives, and takes over what instances left that do not.

Two signs of life: a heartbeat on each claimed operation, which a frozen process cannot give, and a presence
(a lock of a session), which a killed process loses at once. So a kill is noticed within seconds and a freeze
within the lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from rtmanager.domain.operation import Operation
from rtmanager.operations.store import OperationQueue

#: Seconds between two signs of life.
PERIOD_S = 1.0


class Presence(Protocol):
    """A sign of life that ends with the process. Raises `Unavailable`."""

    def show(self) -> None:
        """Make sure that it is there."""
        ...


class LeaseKeeper:
    """One step gives the signs of life and looks for orphans."""

    def __init__(
        self,
        queue: OperationQueue,
        presence: Presence,
        *,
        live: Callable[[], Sequence[Operation]],
        found: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._queue = queue
        self._presence = presence
        self._live = live
        self._found = found
        self._logger = logger

    def step(self) -> bool:
        """Always False: once a period is enough."""
        self._presence.show()
        live = self._live()
        if live:
            self._queue.heartbeat(live)
        orphans = self._queue.reclaim_orphans()
        for orphan in orphans:
            self._logger.warning(
                "took over an operation of an instance that is gone",
                extra={
                    "operation_id": orphan.operation_id,
                    "game_id": orphan.game_id,
                    "op_kind": orphan.kind.value,
                },
            )
        if orphans:
            self._found()
        return False
