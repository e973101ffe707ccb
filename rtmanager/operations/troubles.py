"""Operations that are retried without progress and need a person: for readiness and metrics.

A half-done restart is not given up when temporary answers last too long. An end that the store rejects is retried. Both
are retried every few seconds. A trouble that does not recur for a while is therefore over, or another instance has it.

`StoreWaits` is about work that repeats a call to PostgreSQL until PostgreSQL answers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from rtmanager.domain.errors import with_remedy
from rtmanager.domain.operation import Operation

#: Seconds after which a trouble that did not recur is over here; more than the longest pause between two tries.
FORGOTTEN_AFTER_S = 180.0

#: Seconds between two log lines about one trouble.
LOGGED_EVERY_S = 300.0

#: Seconds after which work that waits for PostgreSQL is reported; a session that ended costs less.
WAITS_REPORTED_AFTER_S = 3.0
#: Seconds after its last failed call in which an operation still counts as waiting. One call and its pause may take as
#: long, unless the silence timeout is longer.
WAITS_FORGOTTEN_AFTER_S = 20.0


class Kind(StrEnum):
    """What is wrong with an operation."""

    HALF_DONE = "half_done"
    STORE_REFUSES = "store_refuses"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One operation that needs a person."""

    game_id: str
    operation_id: int
    op_kind: str
    kind: Kind
    why: str


class Troubles:
    """The recent troubles of this instance; thread-safe."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._met: dict[int, tuple[float, Trouble]] = {}
        self._logged_at: dict[int, float] = {}

    def meet(self, operation: Operation, kind: Kind, why: str) -> bool:
        """Note that an operation is in trouble; return whether to log it now."""
        request, now = operation.request, self._now()
        trouble = Trouble(request.game_id, operation.operation_id, request.kind.value, kind, why)
        with self._lock:
            self._met[operation.operation_id] = (now, trouble)
            logged_at = self._logged_at.get(operation.operation_id)
            if logged_at is not None and now - logged_at < LOGGED_EVERY_S:
                return False
            self._logged_at[operation.operation_id] = now
            return True

    def over(self, operation: Operation) -> None:
        """Note that the operation has ended."""
        with self._lock:
            self._met.pop(operation.operation_id, None)
            self._logged_at.pop(operation.operation_id, None)

    def now(self) -> Mapping[int, Trouble]:
        """Return the present troubles by operation id."""
        oldest = self._now() - FORGOTTEN_AFTER_S
        with self._lock:
            self._met = {key: value for key, value in self._met.items() if value[0] >= oldest}
            self._logged_at = {key: logged_at for key, logged_at in self._logged_at.items() if key in self._met}
            return {key: trouble for key, (_, trouble) in self._met.items()}


@dataclass(slots=True)
class _Wait:
    """From the first failure in a row to the last."""

    since: float
    last: float
    error: Exception


class StoreWaits:
    """Items of a worker whose calls to PostgreSQL fail repeatedly; thread-safe.

    Logs once for all items that they wait, and once that none waits any more. `items` is their name in the log.
    """

    def __init__(
        self,
        logger: logging.Logger,
        items: str,
        *,
        forgotten_after_s: float = WAITS_FORGOTTEN_AFTER_S,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._logger = logger
        self._items = items
        self._forgotten_after_s = forgotten_after_s
        self._now = now
        self._lock = threading.Lock()
        self._waits: dict[str, _Wait] = {}
        self._reported = False

    def failed(self, item: str, error: Exception) -> None:
        """Note that a call for the item failed and is about to be repeated."""
        now = self._now()
        with self._lock:
            wait = self._waits.get(item)
            if wait is None or now - wait.last > self._forgotten_after_s:
                self._waits[item] = _Wait(now, now, error)
                return
            wait.last, wait.error = now, error
            if self._reported or not self._lasts(wait, now):
                return
            self._reported = True
        self._logger.warning(f"{self._items} wait for postgres", extra={"error": with_remedy(error)})

    def over(self, item: str) -> None:
        """Note that PostgreSQL accepted the call, or that the item is not worked on here any more."""
        if not self._waits:
            return
        with self._lock:
            if self._waits.pop(item, None) is None or self._waits or not self._reported:
                return
            self._reported = False
        self._logger.info(f"{self._items} wait for postgres no more")

    def problem(self) -> str:
        """Return which item has waited longest, and why; empty while none has waited for long."""
        now = self._now()
        with self._lock:
            waits = [(wait.since, key, wait.error) for key, wait in self._waits.items() if self._lasts(wait, now)]
        if not waits:
            return ""
        since, item, error = min(waits, key=lambda wait: wait[:2])
        return f"{item} has waited for {now - since:.0f} s: {with_remedy(error)}"

    def _lasts(self, wait: _Wait, now: float) -> bool:
        # Counted from failure to failure: after the last one the item may be at slow work.
        return wait.last - wait.since >= WAITS_REPORTED_AFTER_S and now - wait.last <= self._forgotten_after_s
