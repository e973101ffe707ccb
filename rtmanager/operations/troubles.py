"""Operations that go on and on: what an operator should see to, for readiness and metrics.

A half-done restart that meets temporary answers for too long is not given up, and an end that the store refuses is
tried again. Both are retried every few seconds, so a trouble that is not met again for a while is over, or another
instance has it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from rtmanager.domain.operation import Operation

#: Seconds after which a trouble that was not met again is over here; more than the longest pause between two tries.
FORGOTTEN_AFTER_S = 180.0

#: Seconds between two lines of the log about one trouble.
TOLD_EVERY_S = 300.0


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
    """Those that this instance has met lately; safe for any number of threads."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._met: dict[int, tuple[float, Trouble]] = {}
        self._told: dict[int, float] = {}

    def meet(self, operation: Operation, kind: Kind, why: str) -> bool:
        """An operation is in trouble, still or again; whether that should be told now."""
        request, now = operation.request, self._now()
        trouble = Trouble(request.game_id, operation.operation_id, request.kind.value, kind, why)
        with self._lock:
            self._met[operation.operation_id] = (now, trouble)
            told = self._told.get(operation.operation_id)
            if told is not None and now - told < TOLD_EVERY_S:
                return False
            self._told[operation.operation_id] = now
            return True

    def over(self, operation: Operation) -> None:
        """It has ended."""
        with self._lock:
            self._met.pop(operation.operation_id, None)
            self._told.pop(operation.operation_id, None)

    def now(self) -> Mapping[int, Trouble]:
        """By operation id."""
        oldest = self._now() - FORGOTTEN_AFTER_S
        with self._lock:
            self._met = {key: value for key, value in self._met.items() if value[0] >= oldest}
            self._told = {key: told for key, told in self._told.items() if key in self._met}
            return {key: trouble for key, (_, trouble) in self._met.items()}
