"""Calls: an operation that somebody waits for.

A call is queued like a job, so that it survives this process, but it does not queue behind another operation
of its game. The caller waits for its end and gets that, or hears that it cannot be known now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from threading import Event

from rtmanager.domain.errors import Unavailable
from rtmanager.domain.operation import Request
from rtmanager.operations.completions import CompletionNotifier
from rtmanager.operations.wake import Wake
from rtmanager.ports.store import OperationQueue, OperationResult, StoreRejected, UnknownOperation

#: Of an operation that another instance may have by now: it is not lost, but if its dependencies are away, that one
#: gives it up, as for a caller that it would tell.
_LOG_TELLS = "how it ends is not known here, its game's operations tell"
#: How often the store is asked for an end that another instance may have brought.
POLL_S = 0.5


class SyncRequests:
    """Runs requests to their end on behalf of waiting callers; safe for any number of threads."""

    def __init__(
        self, queue: OperationQueue, completions: CompletionNotifier, *, wake: Wake, require: Callable[[], object]
    ) -> None:
        self._queue = queue
        self._completions = completions
        self._wake = wake
        self._require = require
        self._refusing = Event()
        self._live: Callable[[], Collection[int]] | None = None

    def perform(self, request: Request) -> OperationResult:
        """Queue the request and wait for its end, however long it takes.

        Raises `GameBusy` when the game has a live operation; `Unavailable` when the request could not be
        queued, or was put off, or its end cannot be read, or it is not known whether it was queued; or the store,
        which was set back, has forgotten it.
        """
        if self._refusing.is_set():
            raise Unavailable("rtmanager", "this instance is stopping; ask again, another or the next one answers")
        self._require()
        operation_id = self._submit(request)
        self._wake.set()
        while True:
            # Asked before looking: what ends in between is found.
            left_alone = self._live is not None and operation_id not in self._live()
            verdict = self._completions.wait(operation_id, POLL_S) or self._ask(operation_id, request.source_ref)
            if verdict is not None:
                return verdict
            if left_alone:
                left = f"this instance stops and leaves operation {operation_id} to the next one; {_LOG_TELLS}"
                raise Unavailable("rtmanager", left)

    def require_room(self, request: Request) -> None:
        """See `OperationQueue.require_room`."""
        self._queue.require_room(request)

    def _submit(self, request: Request) -> int:
        try:
            return self._queue.submit(request)
        except Unavailable as error:
            if error.untouched:
                raise
            # The commit was asked for, and its answer was lost.
            doubt = f"{error}; whether the request was accepted is not known, and if it was, {_LOG_TELLS}"
            raise Unavailable(error.dependency, doubt) from error

    def _ask(self, operation_id: int, source_ref: str) -> OperationResult | None:
        try:
            return self._queue.verdict(operation_id, source_ref)
        except UnknownOperation as error:
            raise Unavailable(error.dependency, f"{error}; look at the game, then ask again") from error
        except StoreRejected as error:
            kept = f"{error}; operation {operation_id} was accepted; {_LOG_TELLS}"
            raise StoreRejected(kept, sqlstate=error.sqlstate) from error
        except Unavailable as error:
            left = f"{error}; operation {operation_id} was accepted; {_LOG_TELLS}"
            raise Unavailable(error.dependency, left) from error

    def refuse(self) -> None:
        """Take no new requests; those that wait go on waiting."""
        self._refusing.set()

    def wait_only_for(self, live: Callable[[], Collection[int]]) -> None:
        """Let the callers go whose operation is not among those that this instance works on, now or later.

        They hear that their operation is not lost.
        """
        self._live = live

    def close(self) -> None:
        """Let all callers go."""
        self.wait_only_for(tuple)
