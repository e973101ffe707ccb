"""Operations that wait for a pull: claimed and kept alive by heartbeats, but without a thread or a slot."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rtmanager.domain.operation import Operation
from rtmanager.operations.runner import Triage
from rtmanager.ports.runtime import ImagePull


@dataclass(frozen=True, slots=True, eq=False)
class Parked:
    """One operation: its triage, its pull, and whether an earlier try may have done half of its work."""

    operation: Operation
    triage: Triage
    pull: ImagePull
    again: bool


class WaitingOperations:
    """Operations that wait, and operations whose pull has ended; `ready` is called for each of the latter."""

    def __init__(self, ready: Callable[[], None]) -> None:
        self._on_ready = ready
        self._lock = threading.Lock()
        self._parked: dict[Parked, None] = {}
        self._ready: deque[Parked] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._parked)

    def operations(self) -> Sequence[Operation]:
        """Return all of them, in both states."""
        with self._lock:
            return [parked.operation for parked in self._parked]

    def add(self, parked: Parked) -> bool:
        """Add one; False after `close`."""
        with self._lock:
            if self._closed:
                return False
            self._parked[parked] = None
        parked.pull.when_ended(partial(self._ended, parked))
        return True

    def next_ready(self) -> Parked | None:
        """Remove and return the operation whose pull ended first; None when there is none."""
        with self._lock:
            if self._closed or not self._ready:
                return None
            parked = self._ready.popleft()
            del self._parked[parked]
            return parked

    def close(self) -> Sequence[Operation]:
        """Leave all pulls. The operations stay listed, because they are still claimed."""
        with self._lock:
            self._closed = True
            left = list(self._parked)
        for parked in left:
            parked.pull.leave()
        return [parked.operation for parked in left]

    def _ended(self, parked: Parked) -> None:
        with self._lock:
            self._ready.append(parked)
        self._on_ready()
