"""REST calls: operations whose caller waits for the result.

A call is queued like a job, so it survives this process. It does not queue behind another operation of its game. The
caller gets the result, or an error: the result is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from threading import Event

from rtmanager.domain.errors import Unavailable
from rtmanager.domain.operation import Request
from rtmanager.operations.completions import CompletionNotifier
from rtmanager.operations.wake import Wake
from rtmanager.ports.store import OperationQueue, OperationResult, StoreRejected, UnknownOperation

#: For an operation that another instance may hold: it is not lost. If a dependency is away, that instance ends it with
#: a failure, as it does for a caller of its own.
_SEE_OPERATIONS = "how it ends is not known here, its game's operations tell"
#: How often the store is queried for the result of another instance.
POLL_S = 0.5


class SyncRequests:
    """Runs requests to their end for waiting callers; thread-safe."""

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
        """Queue the request and wait for its result, however long it takes.

        Raises `GameBusy` when the game has an unfinished operation. Raises `Unavailable` when the request was not
        queued, may not have been queued, or was deferred, and when its result cannot be read. The same holds when the
        store was set back and has lost it.
        """
        if self._refusing.is_set():
            raise Unavailable("rtmanager", "this instance is stopping; ask again, another or the next one answers")
        self._require()
        operation_id = self._submit(request)
        self._wake.set()
        while True:
            # Checked before the result is read, so that a result in between is found.
            left_alone = self._live is not None and operation_id not in self._live()
            verdict = self._completions.wait(operation_id, POLL_S) or self._verdict(operation_id, request.source_ref)
            if verdict is not None:
                return verdict
            if left_alone:
                left = f"this instance stops and leaves operation {operation_id} to the next one; {_SEE_OPERATIONS}"
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
            # The commit was sent, and its answer was lost.
            doubt = f"{error}; whether the request was accepted is not known, and if it was, {_SEE_OPERATIONS}"
            raise Unavailable(error.dependency, doubt) from error

    def _verdict(self, operation_id: int, source_ref: str) -> OperationResult | None:
        try:
            return self._queue.verdict(operation_id, source_ref)
        except UnknownOperation as error:
            raise Unavailable(error.dependency, f"{error}; look at the game, then ask again") from error
        except StoreRejected as error:
            kept = f"{error}; operation {operation_id} was accepted; {_SEE_OPERATIONS}"
            raise StoreRejected(kept, sqlstate=error.sqlstate) from error
        except Unavailable as error:
            left = f"{error}; operation {operation_id} was accepted; {_SEE_OPERATIONS}"
            raise Unavailable(error.dependency, left) from error

    def refuse(self) -> None:
        """Reject new requests; callers that already wait continue to wait."""
        self._refusing.set()

    def wait_only_for(self, live: Callable[[], Collection[int]]) -> None:
        """Release the callers whose operation is not live in this instance, now or later.

        They get an error with the note that their operation is not lost.
        """
        self._live = live

    def close(self) -> None:
        """Release all callers."""
        self.wait_only_for(tuple)
