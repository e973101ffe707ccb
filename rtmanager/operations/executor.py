"""The executor: claims due operations and works on several games at once.

It holds the promise that nothing is lost between a claim and its end. PostgreSQL away: the end is offered
again until it is taken, or refused because another instance has the operation by now. Docker away: a job is
due again a little later; a call is answered, unless half of its work is done. A temporary answer of Docker: the same,
until such answers have come for too long. A defect of this service: tried again, a few times. An end that the store
refuses: a plainer one. A stop that takes too long: what still runs is handed back.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from time import monotonic

from rtmanager.domain.errors import ErrorCode, FinalAnswer, RuntimeManagerError, TemporaryAnswer, Unavailable
from rtmanager.domain.operation import Completion, Operation, OpKind, Outcome
from rtmanager.logs import about
from rtmanager.operations.completions import CompletionNotifier
from rtmanager.operations.runner import DEFECT_TRIES, OperationRunner, PartiallyApplied, Triage, Waiting, unforeseen
from rtmanager.operations.troubles import WAITS_FORGOTTEN_AFTER_S, Kind, StoreWaits, Troubles
from rtmanager.operations.waiting import Parked, WaitingOperations
from rtmanager.operations.wake import Wake
from rtmanager.ports.store import ClaimLost, OperationQueue, OperationResult, RecordConflict, StoreRejected
from rtmanager.resources import lacking, out_of
from rtmanager.threads import Thread

#: How soon a job is tried again that found a dependency away, and how many times that at most; short, since what
#: waits behind it waits too.
RETRY_DELAY_S = 1.0
MAX_RETRY_DELAYS = 5
#: Pause before the end of an operation is offered to PostgreSQL again.
STORE_PAUSE_S = 0.2
#: Pause before a try after one that ended by a defect, times their number.
DEFECT_DELAY_S = 0.5
#: Pauses before an operation whose every end the store refuses is tried again: the first, times the number of tries.
REFUSED_DELAY_S = 5.0
LONGEST_REFUSED_DELAY_S = 60.0
#: Images that are remembered as having started well.
GOOD_IMAGES = 64
#: How often, at most, what asks for one of these is claimed before all else, and the share of the time that looking for
#: it may take: it has to step through every game that waits.
CLAIM_FIRST_PAUSE_S = 0.05
CLAIM_FIRST_SHARE = 0.1
#: For how long temporary answers are taken for that, by default.
DEFERRAL_LIMIT_S = 900.0

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


def _named(operation: Operation) -> str:
    return f"operation {operation.operation_id}"


class HandedBack(Exception):
    """The executor stops and this operation is not ours to end any more."""


class Executor:
    """`step` claims and hands to threads; `live` is what they work on."""

    def __init__(
        self,
        queue: OperationQueue,
        operator: OperationRunner,
        completions: CompletionNotifier,
        *,
        slots: int,
        wake: Wake,
        told: Wake,
        logger: logging.Logger,
        defect: Callable[[BaseException], object] = lambda _: None,
        refused: Callable[[str, StoreRejected], object] = lambda *_: None,
        taken: Callable[[], object] = lambda: None,
        deferral_limit_s: float = DEFERRAL_LIMIT_S,
        silence_s: float = 0.0,
    ) -> None:
        """`defect` hears of each failure of an operation by a defect. `silence_s` bounds one call of `queue`.

        `refused` is called with the game for each end that the store refuses as it was decided, `taken` for others.
        """
        self._defect = defect
        self._refused = refused
        self._taken = taken
        self._deferral_limit_s = deferral_limit_s
        self.troubles = Troubles()
        self.store_waits = StoreWaits(
            logger, "operations", forgotten_after_s=max(WAITS_FORGOTTEN_AFTER_S, 2 * silence_s)
        )
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
        #: What the last claim brought, until each of it has ended or has its thread.
        self._claimed: Mapping[int, Operation] = {}
        self._idle = threading.Condition()
        self._waiting = WaitingOperations(self._some_are_ready)
        self._stopping = threading.Event()
        #: Whether the last claim left something due.
        self._backlog = False
        #: References of images that have started well here, the latest last.
        self._good_images: OrderedDict[str, None] = OrderedDict()
        self._claim_first_at = 0.0

    def step(self) -> bool:
        """Claim what fits; whether there may be more."""
        if self._stopping.is_set():
            return False
        self.resume()
        free, free_for_launching = self._free_slots()
        if free_for_launching > 0:
            taken = self._claim_first(free_for_launching)
            free -= taken
            free_for_launching = min(free_for_launching - taken, self._free_for_unknown())
        if free_for_launching > 0:
            self._backlog = self._claim(free_for_launching, LAUNCHING | QUICK)
            return self._backlog
        return free > 0 and self._claim(free, QUICK)

    def live(self) -> Sequence[Operation]:
        """What is claimed here right now: just claimed, worked on, or waiting for a pull."""
        with self._idle:
            live = (*self._claimed.values(), *self._live.values(), *self._waiting.operations())
        return list(dict.fromkeys(live))

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
            self._begin(parked.operation, parked.triage, again=parked.again)

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

    def _free_for_unknown(self) -> int:
        """Slots for operations on images that have not started here yet: not all, while many are due.

        So a good one finds a free slot at once, and not as many threads beside it.
        """
        good = set(self._images_to_prefer())
        if not self._backlog or not good:
            return self._launching_slots
        with self._idle:
            requests = [operation.request for operation in self._live.values()]
        wanted = (request.image_ref for request in requests if request.kind in LAUNCHING)
        unknown = sum(bool(image_ref) and image_ref not in good for image_ref in wanted)
        return max(0, self._launching_slots // 2 - unknown)

    def _claim_first(self, limit: int) -> int:
        """Claim what asks for an image that has started well here, while more is due than there are slots.

        A thousand jobs that Docker is going to refuse would else keep a good one waiting. How many were claimed.
        """
        if not self._backlog or not self._good_images or monotonic() < self._claim_first_at:
            return 0
        began = monotonic()
        claimed = self._queue.claim(limit, LAUNCHING, images=self._images_to_prefer())
        self._claim_first_at = monotonic() + max(CLAIM_FIRST_PAUSE_S, (monotonic() - began) / CLAIM_FIRST_SHARE)
        self._settle_at_sight(claimed)
        return len(claimed)

    def _claim(self, limit: int, kinds: Collection[OpKind]) -> bool:
        """Whether there may be more: beyond the limit, or behind what ended at sight in the queue of its game."""
        claimed = self._queue.claim(limit, kinds)
        ended = self._settle_at_sight(claimed)
        return len(claimed) == limit or bool(ended)

    def _settle_at_sight(self, claimed: Sequence[Operation]) -> Collection[int]:
        """End what the records decide, and begin the rest; the ids of what has ended."""
        # A lock may hold up the ends for longer than the grace time of claims that nobody works on.
        self._keep_claimed(claimed)
        try:
            return self._end_or_begin(claimed)
        finally:
            self._keep_claimed(())

    def _keep_claimed(self, claimed: Iterable[Operation]) -> None:
        with self._idle:
            self._claimed = {operation.operation_id: operation for operation in claimed}

    def _end_or_begin(self, claimed: Sequence[Operation]) -> Collection[int]:
        try:
            sights = self._operator.look(claimed)
            ended = self._end_at_sight(claimed, sights)
        except (Unavailable, StoreRejected) as error:
            # On a thread of its own each waits for the store, or is told what the store has against it.
            self._logger.debug("operations could not be ended together", extra={"error": str(error)})
            sights, ended = {}, set()
        except Exception as error:  # a defect that one of them may have met: on its own thread it keeps nobody else
            self._logger.exception("operations could not be looked at together")
            self._defect(error)
            sights, ended = {}, set()
        for operation in claimed:
            if operation.operation_id not in ended:
                self._begin(operation, sights.get(operation.operation_id))
        return ended

    def _end_at_sight(self, claimed: Sequence[Operation], sights: Mapping[int, Triage]) -> Collection[int]:
        """End all that need no container, in one transaction; the ids of those that were."""
        seen = ((operation, sights[operation.operation_id].completion) for operation in claimed)
        endings = [(operation, completion) for operation, completion in seen if completion is not None]
        ended = self._queue.finish_together(endings) if endings else set()
        if ended:
            self._taken()
        self._keep_claimed(operation for operation in claimed if operation.operation_id not in ended)
        for operation, completion in endings:
            with about_operation(operation):
                if operation.operation_id in ended:
                    self._report(operation, completion)
        return ended

    def _begin(self, operation: Operation, triage: Triage | None, *, again: bool = False) -> None:
        name = f"rtm-operation-{operation.operation_id}"
        thread = Thread(self._work, name, (operation, triage, again))
        with self._idle:
            self._live[thread] = operation
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left: what is claimed and not live is due again soon
            self._logger.exception("operation cannot begin", extra={"operation_id": operation.operation_id})
            self._defect(error)
            with self._idle:
                del self._live[thread]

    def _work(self, operation: Operation, triage: Triage | None, again: bool) -> None:
        try:
            self._work_about(operation, triage, again)
        finally:
            with self._idle:
                del self._live[threading.current_thread()]
                self._idle.notify_all()
            self._wake.set()

    def _work_about(self, operation: Operation, triage: Triage | None, again: bool) -> None:
        with about_operation(operation):
            try:
                self._logger.info("operation begins", extra={"op_kind": operation.request.kind.value})
                self._run_to_end(operation, triage, again=again)
            except ClaimLost:
                self._logger.warning("operation was taken over, it ends here")
            except HandedBack:
                self._report_handed_back(operation)
            except Exception as error:  # noqa: BLE001 - a defect, a lack of this host, or a record that cannot be read
                self._survive(operation, error)
            finally:
                self.store_waits.over(_named(operation))

    def _report_handed_back(self, operation: Operation) -> None:
        self._logger.info("operation goes on elsewhere or later")
        left = f"this instance stops; operation {operation.operation_id} goes on with the next one"
        self._completions.announce(operation.operation_id, Unavailable("rtmanager", left))

    def _run_to_end(self, operation: Operation, triage: Triage | None = None, *, again: bool = False) -> None:
        # What an earlier try did may be half of it; that has to be finished, whatever this one finds.
        again = again or operation.generation > 1
        while True:
            try:
                completion = self._decide(operation, triage, again=again)
                if completion is not None:
                    self._write(operation, completion)
                return
            except Waiting as waiting:
                self._put_aside(operation, waiting, again=again)
                return
            except RecordConflict as error:
                self._logger.info("record changed, deciding again", extra={"error": str(error)})
                again, triage = True, None
                self._pause(operation, error)
            except Unavailable as error:
                if error.dependency != "postgres":  # a container could not be taken back: it has to be, some time
                    self._put_off(operation, error)
                    return
                again, triage = again or isinstance(error, PartiallyApplied), None
                self._pause(operation, error)

    def _decide(self, operation: Operation, triage: Triage | None, *, again: bool) -> Completion | None:
        """The ending; None when the operation was put off. Raises `Unavailable` for PostgreSQL only."""
        began = monotonic()

        def expired(error: TemporaryAnswer | PartiallyApplied) -> bool:
            for_s = operation.answer_s + monotonic() - began
            return error.answer != "" and operation.answer_s > 0 and for_s >= self._deferral_limit_s

        try:
            return self._operator.run(operation, triage, again=again, may_wait=True, expired=expired)
        except Unavailable as error:
            if self._stopping.is_set():
                raise HandedBack from error
            if error.dependency == "postgres":
                raise
            if isinstance(error, PartiallyApplied) and expired(error):
                self._sound_alarm(operation, Kind.HALF_DONE, error)
            if not operation.awaited or again or isinstance(error, PartiallyApplied):
                self._put_off(operation, error)
                return None
            return self._operator.gave_up(operation, ErrorCode.SERVICE_UNAVAILABLE, str(error))

    def _put_aside(self, operation: Operation, waiting: Waiting, *, again: bool) -> None:
        """Let it wait for a pull without a thread. Raises `HandedBack`."""
        if len(self._waiting) >= WAITING_LIMIT:
            waiting.pull.leave()
            why = f"{WAITING_LIMIT} operations wait for pulls already"
            self._until_stored(operation, lambda: self._queue.defer(operation, delay_s=WAITING_DELAY_S, why=why))
            left = f"{why}; operation {operation.operation_id} goes on by itself later"
            self._completions.announce(operation.operation_id, Unavailable("docker", left))
            return
        self._logger.info("operation waits for a pull")
        if not self._waiting.add(Parked(operation, waiting.triage, waiting.pull, again)):
            waiting.pull.leave()
            raise HandedBack

    def _write(self, operation: Operation, completion: Completion) -> None:
        """Write the ending, or a plainer one. Raises `ClaimLost`, `RecordConflict` or `StoreRejected`."""
        refusals: list[StoreRejected] = []
        for offered in self._plainer_and_plainer(operation, completion, refusals):
            try:
                self._offer(operation, offered)
            except StoreRejected as error:
                if refusals:
                    self._logger.warning("the store refuses a plainer end, too", extra={"error": str(error)})
                else:
                    self._logger.exception("the store refuses the end of the operation")
                    self._refused(operation.game_id, error)
                refusals.append(error)
            else:
                if not refusals:
                    self._taken()
                self._report(operation, offered)
                return
        raise refusals[0]

    def _plainer_and_plainer(
        self, operation: Operation, completion: Completion, refusals: Sequence[StoreRejected]
    ) -> Iterator[Completion]:
        """The end that is to be written, and what says less of it when the store refuses that."""
        yield completion
        code = ErrorCode.INTERNAL_ERROR
        try:
            if completion.launched is not None:
                code = ErrorCode.CONTAINER_START_FAILED
                yield self._operator.take_back(operation, completion.launched, str(refusals[-1]))
            else:
                yield self._operator.gave_up(operation, code, str(refusals[-1]))
        except FinalAnswer as error:
            self._logger.warning("the record cannot be read for another end", extra={"error": str(error)})
        yield from self._operator.end_plainly(
            operation, code, f"the store refused how it ended; operation {operation.operation_id} in the log has more"
        )

    def _survive(self, operation: Operation, error: Exception) -> None:
        """After what nobody foresaw: try again, a few times, then end it; and again later if not even that can be."""
        lack = lacking(error)
        if lack is None:
            extra = {"defects": operation.defects + 1}
            self._logger.error("operation failed in an unforeseen way", exc_info=error, extra=extra)
            self._defect(error)
        try:
            if lack is not None:
                self._put_off(operation, out_of(lack))
            elif operation.defects + 1 < DEFECT_TRIES:
                self._give_back(operation, error, DEFECT_DELAY_S * (operation.defects + 1))
            elif not self._end_plainly(operation, error):
                delay_s = min(REFUSED_DELAY_S * (operation.deferrals + 1), LONGEST_REFUSED_DELAY_S)
                self._give_back(operation, error, delay_s)
                left = f"operation {operation.operation_id} cannot be ended now ({error}); it is tried again"
                self._completions.announce(operation.operation_id, Unavailable("postgres", left))
        except ClaimLost:
            self._logger.warning("operation was taken over, it ends here")
        except HandedBack:
            self._report_handed_back(operation)
        except Exception as worse:  # it is claimed and not worked on, so the lease brings it back
            self._logger.exception("operation could not be ended")
            self._sound_alarm(operation, Kind.STORE_REFUSES, worse)

    def _end_plainly(self, operation: Operation, error: Exception) -> bool:
        """Whether the store has taken one of the plain ends."""
        for completion in self._operator.end_plainly(operation, ErrorCode.INTERNAL_ERROR, unforeseen(operation, error)):
            try:
                self._offer(operation, completion)
            except StoreRejected as refusal:
                self._logger.error("the store refuses a plain end of the operation", extra={"error": str(refusal)})
                self._sound_alarm(operation, Kind.STORE_REFUSES, refusal)
                continue
            self._report(operation, completion)
            return True
        return False

    def _give_back(self, operation: Operation, error: Exception, delay_s: float) -> None:
        why = f"it failed: {type(error).__name__}: {error}"
        self._until_stored(operation, lambda: self._queue.defer(operation, delay_s=delay_s, why=why, by_defect=True))

    def _sound_alarm(self, operation: Operation, kind: Kind, error: Exception) -> None:
        """Let a person see it: in the log now and then, in the metrics and in readiness for as long as it lasts."""
        if self.troubles.meet(operation, kind, str(error)):
            extra = {"trouble": kind.value, "op_kind": operation.request.kind.value, "error": str(error)}
            self._logger.error("operation needs a person: it is retried, and gets no further", extra=extra)

    def _offer(self, operation: Operation, completion: Completion) -> None:
        def finish() -> None:
            try:
                self._queue.finish(operation, completion)
            except RuntimeManagerError:
                raise
            except Exception as error:  # a defect on the way to the store: another end may go through
                if lack := lacking(error):
                    raise out_of(lack) from error
                raise StoreRejected(f"unforeseen {type(error).__name__} while an end was written") from error

        self._until_stored(operation, finish)

    def _until_stored(self, operation: Operation, write: Callable[[], None]) -> None:
        """Try until PostgreSQL answers."""
        while True:
            try:
                write()
            except Unavailable as error:
                self._pause(operation, error)
            else:
                self.store_waits.over(_named(operation))
                return

    def _report(self, operation: Operation, completion: Completion) -> None:
        self.troubles.over(operation)
        if completion.launched is not None and completion.outcome is Outcome.SUCCESS and operation.request.image_ref:
            self._remember_image(operation.request.image_ref)
        level = logging.INFO if completion.outcome is Outcome.SUCCESS else logging.WARNING
        extra = {"op_kind": operation.request.kind.value, "outcome": completion.outcome.value}
        if completion.error_code:
            extra |= {"error_code": completion.error_code.value, "error": completion.error_message}
        self._logger.log(level, "operation ended", extra=extra)
        verdict = OperationResult(completion.outcome, completion.error_code, completion.error_message)
        self._completions.announce(operation.operation_id, verdict)
        if completion.messages or completion.health:
            self._told.set()

    def _images_to_prefer(self) -> Sequence[str]:
        with self._idle:
            return list(self._good_images)

    def _remember_image(self, image_ref: str) -> None:
        with self._idle:
            self._good_images[image_ref] = None
            self._good_images.move_to_end(image_ref)
            while len(self._good_images) > GOOD_IMAGES:
                self._good_images.popitem(last=False)

    def _put_off(self, operation: Operation, error: Unavailable) -> None:
        # Less and less often, not only once: what it waits for now may be another thing than at first.
        level = logging.DEBUG if operation.deferrals & (operation.deferrals - 1) else logging.WARNING
        self._logger.log(level, "operation waits for a dependency", extra={"error": str(error)})
        delay_s = RETRY_DELAY_S * (1 + min(operation.deferrals, MAX_RETRY_DELAYS - 1))
        answer = error.answer if isinstance(error, (TemporaryAnswer, PartiallyApplied)) else ""
        self._until_stored(
            operation, lambda: self._queue.defer(operation, delay_s=delay_s, why=str(error), answer=answer)
        )
        left = f"{error}; operation {operation.operation_id} goes on by itself when {error.dependency} answers"
        self._completions.announce(operation.operation_id, Unavailable(error.dependency, left))

    def _pause(self, operation: Operation, cause: Exception) -> None:
        self.store_waits.failed(_named(operation), cause)
        if self._stopping.wait(STORE_PAUSE_S):
            raise HandedBack from cause
