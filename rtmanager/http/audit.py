"""Logs who changed something, or was refused: one line each, with the key `audit`.

`allowed` means that the caller may send the request; `status` says what came of it.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from rtmanager.http.access import Caller
from rtmanager.http.messages import Request
from rtmanager.http.table import peer_of

#: Requests that are logged however many there are.
CHANGES = frozenset({"POST", "DELETE"})
#: Statuses of a caller that was refused, rather than its request.
_REFUSED = frozenset({401, 403, 421})
#: Seconds between two lines about refused reads of one client.
PERIOD_S = 1.0
#: Clients whose last line is remembered.
_REMEMBERED = 1024


class Audit:
    """Logs changes and refusals. Thread-safe."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        #: By client: when its last refused read was logged, and how many were not since then.
        self._reads: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, request: Request, status: int, caller: Caller | None, request_id: str) -> None:
        """Log an answered request, if it is a change or was refused; `caller` is None where it is not known."""
        is_refused = status in _REFUSED
        if request.method in CHANGES:
            left_out = 0
        elif not is_refused or (counted := self._refused_read(request.address)) is None:
            return
        else:
            left_out = counted
        extra: dict[str, object] = {
            "audit": "refused" if is_refused else "allowed",
            "caller": caller.name if caller and caller.name else None,
            "role": caller.role.value if caller and caller.role else None,
            "address": request.address,
            "request_id": request_id,
            "method": request.method,
            "path": request.path,
            "status": status,
        }
        if left_out:
            extra["left_out"] = left_out
        self._logger.log(logging.WARNING if is_refused else logging.INFO, "audit", extra=extra)

    def _refused_read(self, address: str) -> int | None:
        """Return how many refused reads of this client were not logged before this one; None: nor is this one."""
        now, peer = self._clock(), peer_of(address)
        with self._lock:
            logged_at, left_out = self._reads.pop(peer, (float("-inf"), 0))
            is_due = now - logged_at >= PERIOD_S
            self._reads[peer] = (now, 0) if is_due else (logged_at, left_out + 1)
            if len(self._reads) > _REMEMBERED:
                self._reads.popitem(last=False)
        return left_out if is_due else None
