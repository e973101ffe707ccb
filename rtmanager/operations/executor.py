"""The executor: claims due operations and works on several games at once.

It holds the promise that nothing is lost between a claim and its end. PostgreSQL away: the end is offered
again until it is taken, or refused because another instance has the operation by now. Docker away: a job is
due again a little later; a call is answered, unless half of its work is done. A stop that takes too long: what
still runs is handed back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from time import monotonic

from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.operation import Ending, Operation, OpKind, Outcome
from rtmanager.logs import about
from rtmanager.operations.completions import Completions
from rtmanager.operations.operator import HalfDone, Operator, Sight, Waiting
from rtmanager.operations.store import OperationQueue, OwnershipLost, RecordChanged, StoreRefused, Verdict
from rtmanager.operations.waiting import Parked, WaitingOperations
from rtmanager.operations.wake import Wake

#: How soon a job is tried again that found a dependency away, and how many times that at most; short, since what
#: waits behind it waits too.
RETRY_DELAY_S = 1.0
MAX_RETRY_DELAYS = 5
#: Pause before the end of an operation is offered to PostgreSQL again.
STORE_PAUSE_S = 0.2


#: The share of the slots that may be taken by operations that need an image: when a registry is slow, these wait
#: for it by the dozen, and a stop must not wait behind them.
LAUNCHING_SHARE = 0.75
LAUNCHING = frozenset({OpKind.START, OpKind.RESTART, OpKind.PATCH})
QUICK = frozenset({OpKind.STOP, OpKind.CLEANUP})

#: As many operations may wait for pulls here; each takes some kilobytes, and makes claims and heartbeats slower. One
#: more is due again after so many seconds.
WAITING_LIMIT = 2000
WAITING_DELAY_S = 60.0

#: How long `join` waits for a thread that nothing holds any more; one in a hung file system may never end.
JOIN_S = 5.0


def about_operation(operation: Operation) -> AbstractContextManager[None]:
    """What every line of the log about an operation says of it."""
    request = operation.request
    return about(game_id=request.game_id, operation_id=operation.operation_id, op_source=request.source.value)


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
        told: Wake,
        logger: logging.Logger,
    ) -> None:
        self._queue = queue
        self._operator = operator
        self._completions = completions
        self._slots = slots
        self._launching_slots = max(1, int(slots * LAUNCHING_SHARE))
        self._wake = wake
        self._told = told
        self._logger = logger
        # By thread and not by operation: one that was lost and claimed again here is worked on twice for a moment.
        self._live: dict[threading.Thread, Operation] = {}
        self._idle = threading.Condition()
        self._waiting = WaitingOperations(self._some_are_ready)
        self._stopping = threading.Event()

    def step(self) -> bool:
        """Claim what fits; whether there may be more."""
        if self._stopping.is_set():
            return False
        self.resume()
        free, free_for_launching = self._free_slots()
        if free_for_launching > 0:
            return self._claim(free_for_launching, LAUNCHING | QUICK)
        return free > 0 and self._claim(free, QUICK)

    def live(self) -> Sequence[Operation]:
        """What is claimed here right now: worked on, or waiting for a pull."""
        with self._idle:
            return [*self._live.values(), *self._waiting.operations()]

    def waiting(self) -> Sequence[Operation]:
        """What of that waits for a pull."""
        return self._waiting.operations()

    def _free_slots(self) -> tuple[int, int]:
        """Free slots, and how many of them an operation that needs an image may have."""
        with self._idle:
            kinds = [operation.request.kind for operation in self._live.values()]
        free = self._slots - len(kinds)
        return free, min(free, self._launching_slots - sum(kind in LAUNCHING for kind in kinds))

    def resume(self) -> None:
        """Go on with what waited for a pull that has ended; before anything new, and in slots like that."""
        while self._free_slots()[1] > 0 and (parked := self._waiting.next_ready()) is not None:
            self._begin(parked.operation, parked.sight, again=parked.again)

    def _some_are_ready(self) -> None:
        self._wake.set()
        with self._idle:
            self._idle.notify_all()

    def works_on(self, game_id: str) -> bool:
        """Whether one of them is about this game."""
        return any(operation.game_id == game_id for operation in self.live())

    def live_ids(self) -> Collection[int]:
        """Their ids."""
        return {operation.operation_id for operation in self.live()}

    def stop(self, timeout_s: float) -> None:
        """Claim nothing more, and let what runs, or waits for a pull, end within `timeout_s`."""
        self._stopping.set()
        until = monotonic() + timeout_s
        with self._idle:
            while self._live or len(self._waiting):
                self.resume()
                if not self._idle.wait(max(0.0, until - monotonic())):
                    break
        for operation in self._waiting.close():
            with about_operation(operation):
                self._report_handed_back(operation)

    def join(self) -> None:
        """Wait for the threads, which nothing should hold by now, then hand back to the queue what is left."""
        with self._idle:
            self._idle.wait_for(lambda: not self._live, JOIN_S)
            threads = list(self._live)
        for thread in threads:
            self._logger.error("operation does not end, its thread is left", extra={"left": thread.name})
        try:
            handed_back = self._queue.hand_back()
        except Unavailable as error:
            # The end of our session gives them back instead.
            self._logger.warning("operations could not be handed back", extra={"error": str(error)})
            return
        if handed_back:
            self._logger.warning("operations handed back", extra={"operation_ids": list(handed_back)})

    def _claim(self, limit: int, kinds: Collection[OpKind]) -> bool:
        """Whether there may be more: beyond the limit, or behind what ended at sight in the queue of its game."""
        claimed = self._queue.claim(limit, kinds)
        try:
            sights = self._operator.look(claimed)
            ended = self._end_at_sight(claimed, sights)
        except (Unavailable, StoreRefused) as error:
            # On a thread of its own each waits for the store, or is told what the store has against it.
            self._logger.debug("operations could not be ended together", extra={"error": str(error)})
            sights, ended = {}, set()
        for operation in claimed:
            if operation.operation_id not in ended:
                self._begin(operation, sights.get(operation.operation_id))
        return len(claimed) == limit or bool(ended)

    def _end_at_sight(self, claimed: Sequence[Operation], sights: Mapping[int, Sight]) -> Collection[int]:
        """End all that need no container, in one transaction; the ids of those that were."""
        seen = ((operation, sights[operation.operation_id].ending) for operation in claimed)
        endings = [(operation, ending) for operation, ending in seen if ending is not None]
        ended = self._queue.finish_together(endings) if endings else set()
        for operation, ending in endings:
            with about_operation(operation):
                if operation.operation_id in ended:
                    self._report(operation, ending)
        return ended

    def _begin(self, operation: Operation, sight: Sight | None, *, again: bool = False) -> None:
        name = f"rtm-operation-{operation.operation_id}"
        thread = threading.Thread(target=self._work, args=(operation, sight, again), name=name, daemon=True)
        with self._idle:
            self._live[thread] = operation
        thread.start()

    def _work(self, operation: Operation, sight: Sight | None, again: bool) -> None:
        with about_operation(operation):
            try:
                self._logger.info("operation begins", extra={"op_kind": operation.request.kind.value})
                self._run_to_end(operation, sight, again=again)
            except OwnershipLost:
                self._logger.warning("operation was taken over, it ends here")
            except HandedBack:
                self._report_handed_back(operation)
            except Exception:  # a defect; it is claimed and not worked on, so the lease brings it back
                self._logger.exception("operation could not be ended")
            finally:
                with self._idle:
                    del self._live[threading.current_thread()]
                    self._idle.notify_all()
                self._wake.set()

    def _report_handed_back(self, operation: Operation) -> None:
        self._logger.info("operation goes on elsewhere or later")
        left = f"this instance stops; operation {operation.operation_id} goes on with the next one"
        self._completions.announce(operation.operation_id, Unavailable("rtmanager", left))

    def _run_to_end(self, operation: Operation, sight: Sight | None = None, *, again: bool = False) -> None:
        # What an earlier try did may be half of it; that has to be finished, whatever this one finds.
        again = again or operation.generation > 1
        while True:
            try:
                ending = self._decide(operation, sight, again=again)
                if ending is not None:
                    self._write(operation, ending)
                return
            except Waiting as waiting:
                self._put_aside(operation, waiting, again=again)
                return
            except RecordChanged as error:
                self._logger.info("record changed, deciding again", extra={"error": str(error)})
                again, sight = True, None
                self._pause(error)
            except Unavailable as error:
                if error.dependency != "postgres":  # a container could not be taken back: it has to be, some time
                    self._put_off(operation, error)
                    return
                again, sight = again or isinstance(error, HalfDone), None
                self._pause(error)

    def _decide(self, operation: Operation, sight: Sight | None, *, again: bool) -> Ending | None:
        """The ending; None when the operation was put off. Raises `Unavailable` for PostgreSQL only."""
        try:
            return self._operator.run(operation, sight, may_wait=True)
        except Unavailable as error:
            if self._stopping.is_set():
                raise HandedBack from error
            if error.dependency == "postgres":
                raise
            if not operation.awaited or again or isinstance(error, HalfDone):
                self._put_off(operation, error)
                return None
            return self._operator.gave_up(operation, ErrorCode.SERVICE_UNAVAILABLE, str(error))

    def _put_aside(self, operation: Operation, waiting: Waiting, *, again: bool) -> None:
        """Let it wait for a pull without a thread. Raises `HandedBack`."""
        if len(self._waiting) >= WAITING_LIMIT:
            waiting.pull.leave()
            why = f"{WAITING_LIMIT} operations wait for pulls already"
            self._until_stored(lambda: self._queue.defer(operation, delay_s=WAITING_DELAY_S, why=why))
            left = f"{why}; operation {operation.operation_id} goes on by itself later"
            self._completions.announce(operation.operation_id, Unavailable("docker", left))
            return
        self._logger.info("operation waits for a pull")
        if not self._waiting.add(Parked(operation, waiting.sight, waiting.pull, again)):
            waiting.pull.leave()
            raise HandedBack

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

    def _offer(self, operation: Operation, ending: Ending) -> None:
        self._until_stored(lambda: self._queue.finish(operation, ending))

    def _until_stored(self, write: Callable[[], None]) -> None:
        """Try until PostgreSQL answers."""
        while True:
            try:
                return write()
            except Unavailable as error:
                self._pause(error)

    def _report(self, operation: Operation, ending: Ending) -> None:
        level = logging.INFO if ending.outcome is Outcome.SUCCESS else logging.WARNING
        extra = {"op_kind": operation.request.kind.value, "outcome": ending.outcome.value}
        if ending.error_code:
            extra |= {"error_code": ending.error_code.value, "error": ending.error_message}
        self._logger.log(level, "operation ended", extra=extra)
        verdict = Verdict(ending.outcome, ending.error_code, ending.error_message)
        self._completions.announce(operation.operation_id, verdict)
        if ending.messages or ending.health:
            self._told.set()

    def _put_off(self, operation: Operation, error: Unavailable) -> None:
        # Less and less often, not only once: what it waits for now may be another thing than at first.
        level = logging.DEBUG if operation.deferrals & (operation.deferrals - 1) else logging.WARNING
        self._logger.log(level, "operation waits for a dependency", extra={"error": str(error)})
        delay_s = RETRY_DELAY_S * (1 + min(operation.deferrals, MAX_RETRY_DELAYS - 1))
        self._until_stored(lambda: self._queue.defer(operation, delay_s=delay_s, why=str(error)))
        left = f"{error}; operation {operation.operation_id} goes on by itself when {error.dependency} answers"
        self._completions.announce(operation.operation_id, Unavailable(error.dependency, left))

    def _pause(self, cause: Exception) -> None:
        if self._stopping.wait(STORE_PAUSE_S):
            raise HandedBack from cause
