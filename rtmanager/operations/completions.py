"""Who waits for the end of an operation hears of it here, when it ended in this process.

A hint, not a record: an operation that another instance ended is found in the store instead.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from rtmanager.domain.errors import Unavailable
from rtmanager.ports.store import OperationResult

#: An end may be announced before its waiter looks; so many are kept for that.
KEPT = 1024


class CompletionNotifier:
    """Ends of operations by id; safe for any number of threads."""

    def __init__(self) -> None:
        self._ended: OrderedDict[int, OperationResult | Unavailable] = OrderedDict()
        self._changed = threading.Condition()

    def announce(self, operation_id: int, end: OperationResult | Unavailable) -> None:
        """An operation ended, or was put off because a dependency does not answer."""
        with self._changed:
            self._ended[operation_id] = end
            while len(self._ended) > KEPT:
                self._ended.popitem(last=False)
            self._changed.notify_all()

    def wait(self, operation_id: int, timeout_s: float) -> OperationResult | None:
        """The end, once it is announced; None after the timeout. Raises the `Unavailable` that was announced."""
        with self._changed:
            self._changed.wait_for(lambda: operation_id in self._ended, timeout_s)
            end = self._ended.pop(operation_id, None)
        if isinstance(end, Unavailable):
            raise end
        return end
