"""In-process notification of operation completion.

It is only a hint: the store has the result of an operation that another instance ended.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from rtmanager.domain.errors import Unavailable
from rtmanager.ports.store import OperationResult

#: Results kept for waiters that come later than the result.
KEPT = 1024


class CompletionNotifier:
    """The results of operations by id; thread-safe."""

    def __init__(self) -> None:
        self._ended: OrderedDict[int, OperationResult | Unavailable] = OrderedDict()
        self._changed = threading.Condition()

    def announce(self, operation_id: int, end: OperationResult | Unavailable) -> None:
        """Notify waiters that an operation ended, or was deferred because a dependency does not answer."""
        with self._changed:
            self._ended[operation_id] = end
            while len(self._ended) > KEPT:
                self._ended.popitem(last=False)
            self._changed.notify_all()

    def wait(self, operation_id: int, timeout_s: float) -> OperationResult | None:
        """Wait for the result; None after the timeout. Raises the `Unavailable` that was announced."""
        with self._changed:
            self._changed.wait_for(lambda: operation_id in self._ended, timeout_s)
            end = self._ended.pop(operation_id, None)
        if isinstance(end, Unavailable):
            raise end
        return end
