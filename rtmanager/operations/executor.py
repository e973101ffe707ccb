"""The executor: claims due operations and works on several games at once.

It holds the promise that nothing is lost between a claim and its end. PostgreSQL away: the end is offered
again until it is taken, or refused because another instance has the operation by now. Docker away: a job is
due again a little later; a call is answered, unless half of its work is done. A stop that takes too long: what
still runs is handed back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.operation import Ending, Operation, Outcome
from rtmanager.logs import about
from rtmanager.operations.completions import Completions
from rtmanager.operations.operator import HalfDone, Operator
from rtmanager.operations.store import OperationQueue, OwnershipLost, RecordChanged, StoreRefused, Verdict
from rtmanager.operations.wake import Wake

#: How soon a job is tried again that found a dependency away; short, since what waits behind it waits too.
RETRY_DELAY_S = 1.0
#: Pause before the end of an operation is offered to PostgreSQL again.
STORE_PAUSE_S = 0.2


class HandedBack(Exception):
    """The executor stops and this operation is not ours to end any more."""


class Executor:
    """`step` claims and hands to threads; `live` is what they work on."""

    def __init__(
        self,
        queue: OperationQueue,
        operator: Operator,
        completions: Completions,
        *,
        slots: int,
        wake: Wake,
        ended: Wake,
        logger: logging.Logger,
    ) -> None:
        self._queue = queue
        self._operator = operator
        self._completions = completions
        self._slots = slots
        self._wake = wake
        self._ended = ended
        self._logger = logger
        self._live: dict[int, Operation] = {}
        self._idle = threading.Condition()
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="rtm-operation")

    def step(self) -> bool:
        """Claim what fits; whether there may be more."""
        with self._idle:
            free = self._slots - len(self._live)
        if free == 0 or self._stopping.is_set():
            return False
        claimed = self._queue.claim(free)
        with self._idle:
            self._live |= {operation.operation_id: operation for operation in claimed}
        for operation in claimed:
            self._threads.submit(self._work, operation)
        return len(claimed) == free

    def live(self) -> Sequence[Operation]:
        """What is worked on right now."""
        with self._idle:
            return list(self._live.values())

    def stop(self, timeout_s: float) -> None:
        """Claim nothing more; let what runs end within `timeout_s`, then hand the rest back to the queue."""
        self._stopping.set()
        with self._idle:
            self._idle.wait_for(lambda: not self._live, timeout_s)
        for operation in self.live():
            self._logger.warning("operation handed back", extra={"operation_id": operation.operation_id})
            self._hand_back(operation)

    def join(self) -> None:
        """Wait for the threads; by now nothing they wait for should hold them."""
        self._threads.shutdown(wait=True)

    def _work(self, operation: Operation) -> None:
        request = operation.request
        with about(game_id=request.game_id, operation_id=operation.operation_id, op_source=request.source.value):
            try:
                self._logger.info("operation begins", extra={"op_kind": request.kind.value})
                self._run_to_end(operation)
            except OwnershipLost:
                self._logger.warning("operation was taken over, it ends here")
            except HandedBack:
                self._logger.info("operation goes on elsewhere or later")
                self._hand_back(operation)
            except Exception:  # a defect; the lease brings the operation to somebody again
                self._logger.exception("operation could not be ended")
            finally:
                with self._idle:
                    del self._live[operation.operation_id]
                    self._idle.notify_all()
                self._wake.set()

    def _run_to_end(self, operation: Operation) -> None:
        while True:
            try:
                ending = self._decide(operation)
                if ending is None:
                    return None
                self._write(operation, ending)
                return None
            except RecordChanged as error:
                self._logger.info("record changed, deciding again", extra={"error": str(error)})
            except Unavailable as error:
                if error.dependency != "postgres":  # a container could not be taken back: it has to be, some time
                    return self._put_off(operation, error)
                self._pause(error)

    def _decide(self, operation: Operation) -> Ending | None:
        """The ending; None when the operation was put off. Raises `Unavailable` for PostgreSQL only."""
        try:
            return self._operator.run(operation)
        except Unavailable as error:
            if self._stopping.is_set():
                raise HandedBack from error
            if error.dependency == "postgres":
                raise
            if operation.from_stream or isinstance(error, HalfDone):
                self._put_off(operation, error)
                return None
            return self._operator.gave_up(operation, ErrorCode.SERVICE_UNAVAILABLE, str(error))
        except OwnershipLost:
            raise
        except Exception as error:  # a defect: the asker gets an answer, the log the traceback
            self._logger.exception("operation failed in an unforeseen way")
            message = f"unforeseen {type(error).__name__}; operation {operation.operation_id} in the log has more"
            return self._operator.gave_up(operation, ErrorCode.INTERNAL_ERROR, message)

    def _write(self, operation: Operation, ending: Ending) -> None:
        """Write the ending. Raises `OwnershipLost`, `RecordChanged` or `StoreRefused`."""
        try:
            self._offer(operation, ending)
        except StoreRefused as error:
            self._logger.exception("the store refuses the end of the operation")
            if ending.launched is not None:
                ending = self._operator.take_back(operation, ending.launched, str(error))
            else:
                ending = self._operator.gave_up(operation, ErrorCode.INTERNAL_ERROR, str(error))
            # Refused again, it stays claimed without a heartbeat, and the lease brings it back.
            self._offer(operation, ending)
        self._report(operation, ending)

    def _withdraw(self, operation: Operation, launched: str) -> None:
        """What was started on a claim that is lost must not live beside what the other claim made of the game."""
        while True:
            try:
                if not self._queue.is_busy(operation.game_id):
                    self._operator.withdraw(operation, launched)
                return
            except Unavailable as error:
                self._pause(error)

    def _offer(self, operation: Operation, ending: Ending) -> None:
        while True:
            try:
                return self._queue.finish(operation, ending)
            except Unavailable as error:
                self._pause(error)
            except OwnershipLost:
                if ending.launched is not None:
                    self._withdraw(operation, ending.launched)
                raise

    def _report(self, operation: Operation, ending: Ending) -> None:
        level = logging.INFO if ending.outcome is Outcome.SUCCESS else logging.WARNING
        extra = {"op_kind": operation.request.kind.value, "outcome": ending.outcome.value}
        if ending.error_code:
            extra |= {"error_code": ending.error_code.value, "error": ending.error_message}
        self._logger.log(level, "operation ended", extra=extra)
        verdict = Verdict(ending.outcome, ending.error_code, ending.error_message)
        self._completions.announce(operation.operation_id, verdict)
        self._ended.set()

    def _put_off(self, operation: Operation, error: Unavailable) -> None:
        self._logger.warning("operation waits for a dependency", extra={"error": str(error)})
        self._queue.defer(operation, delay_s=RETRY_DELAY_S, why=str(error))
        left = f"{error}; operation {operation.operation_id} goes on by itself when {error.dependency} answers"
        self._completions.announce(operation.operation_id, Unavailable(error.dependency, left))

    def _hand_back(self, operation: Operation) -> None:
        left = f"this instance stops; operation {operation.operation_id} goes on with the next one"
        self._completions.announce(operation.operation_id, Unavailable("rtmanager", left))
        try:
            self._queue.defer(operation, delay_s=0.0, why="its instance stopped")
        except Unavailable as error:
            # Its lease, or the end of our session, gives it back instead.
            self._logger.warning("operation could not be handed back", extra={"error": str(error)})

    def _pause(self, error: Unavailable) -> None:
        if self._stopping.wait(STORE_PAUSE_S):
            raise HandedBack from error
