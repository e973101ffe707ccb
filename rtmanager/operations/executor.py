"""The executor: claims due operations and works on several games at once.

It loses no operation between its claim and its end:

- PostgreSQL is away: the completion is written again until it is accepted, or rejected because another instance holds
  the operation.
- Docker is away: a job is deferred for a little; a REST call gets an error, unless half of its work is done.
- Docker gives a temporary answer: the same, until such answers have lasted too long.
- A defect of the manager: the operation is retried a few times.
- The store rejects a completion: a plainer one is written.
- A shutdown takes too long: the operations that still run are handed back.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from time import monotonic

from rtmanager.domain.errors import ErrorCode, FinalAnswer, RuntimeManagerError, TemporaryAnswer, Unavailable
from rtmanager.domain.operation import KINDS, QUEUED, Completion, Operation, OpKind, Outcome
from rtmanager.domain.restarts import is_outage_start
from rtmanager.logs import about
from rtmanager.operations.completions import CompletionNotifier
from rtmanager.operations.runner import DEFECT_TRIES, OperationRunner, PartiallyApplied, Triage, Waiting, unforeseen
from rtmanager.operations.troubles import WAITS_FORGOTTEN_AFTER_S, Kind, StoreWaits, Troubles
from rtmanager.operations.waiting import Parked, WaitingOperations
from rtmanager.operations.wake import Wake
from rtmanager.ports.runtime import ImagePull
from rtmanager.ports.store import ClaimLost, OperationQueue, OperationResult, RecordConflict, StoreRejected
from rtmanager.resources import lacking, out_of
from rtmanager.threads import Thread

#: Delay before the retry of a job whose dependency was away, times the number of deferrals up to a limit. It is short,
#: because the game's other operations wait for this one.
RETRY_DELAY_S = 1.0
MAX_RETRY_DELAYS = 5
#: Pause before a completion is written to PostgreSQL again.
STORE_PAUSE_S = 0.2
#: Delay before the retry after a defect, times the number of such tries.
DEFECT_DELAY_S = 0.5
#: Delay before the retry of an operation whose every completion the store rejects: the first, times the number of
#: tries.
REFUSED_DELAY_S = 5.0
LONGEST_REFUSED_DELAY_S = 60.0
#: Number of images kept as having started successfully.
GOOD_IMAGES = 256
#: Limits on claiming operations for these images first: the shortest and the longest pause between two such claims, and
#: their share of the time. That query steps through every waiting game; on a busy machine most of its time is waiting.
CLAIM_FIRST_PAUSE_S = 0.05
CLAIM_FIRST_LONGEST_PAUSE_S = 0.2
CLAIM_FIRST_SHARE = 0.1
#: Default for how long temporary answers are retried.
DEFERRAL_LIMIT_S = 900.0

#: Share of the slots for operations that need an image. They may wait for a slow registry in great number, and a stop
#: must not wait behind them.
LAUNCHING_SHARE = 0.75
LAUNCHING = frozenset(kind for kind, rules in KINDS.items() if rules.launches)
QUICK = QUEUED - LAUNCHING

#: Number of operations that may wait for pulls here; each takes some kilobytes, and slows claims and heartbeats. One
#: more is deferred by the delay below.
WAITING_LIMIT = 2000
WAITING_DELAY_S = 60.0

#: Why an operation that waits for a pull is not under way.
PULL_AWAITED = "its image is pulled"

#: How long `join` waits for threads that should have ended; one in a hung file system may never end.
JOIN_S = 5.0


def about_operation(operation: Operation) -> AbstractContextManager[None]:
    """The context of every log line about an operation."""
    request = operation.request
    return about(game_id=request.game_id, operation_id=operation.operation_id, op_source=request.source.value)


def _named(operation: Operation) -> str:
    return f"operation {operation.operation_id}"


class HandedBack(Exception):
    """The executor stops, and this instance leaves the operation to another one."""


class Executor:
    """`step` claims operations and runs each on a thread; `live` lists the claimed ones."""

    def __init__(
        self,
        queue: OperationQueue,
        operator: OperationRunner,
        completions: CompletionNotifier,
        *,
        slots: int,
        wake: Wake,
        messages_due: Wake,
        logger: logging.Logger,
        defect: Callable[[BaseException], object] = lambda _: None,
        refused: Callable[[str, StoreRejected], object] = lambda *_: None,
        taken: Callable[[], object] = lambda: None,
        deferral_limit_s: float = DEFERRAL_LIMIT_S,
        silence_s: float = 0.0,
    ) -> None:
        """`defect` is called for each failure by a defect; `silence_s` is the longest call of `queue`.

        `refused` is called with the game when the store rejects a completion as it was decided, `taken` when it accepts
        one.
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
        self._messages_due = messages_due
        self._logger = logger
        # By thread, not by operation: one that was lost and claimed again here runs twice for a moment.
        self._live: dict[threading.Thread, Operation] = {}
        #: The operations of the last claim, until each has ended or has its thread.
        self._claimed: Mapping[int, Operation] = {}
        self._idle = threading.Condition()
        self._waiting = WaitingOperations(self._some_are_ready)
        self._stopping = threading.Event()
        #: Whether the last claim left operations due.
        self._backlog = False
        #: Whether a claim of this backlog began an operation on an image that has not started here. A backlog without
        #: one is claimed in greater numbers: what ends at sight needs no slot.
        self._began_unknown = False
        #: References of images that have started successfully here, the latest last.
        self._good_images: OrderedDict[str, None] = OrderedDict()
        self._claim_first_at = 0.0

    def step(self) -> bool:
        """Claim as many operations as there are free slots; return whether more may be due."""
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
        """Return the operations that are claimed here: just claimed, running, or waiting for a pull."""
        with self._idle:
            live = (*self._claimed.values(), *self._live.values(), *self._waiting.operations())
        return list(dict.fromkeys(live))

    def waiting(self) -> Sequence[Operation]:
        """Return the live operations that wait for a pull."""
        return self._waiting.operations()

    def _free_slots(self) -> tuple[int, int]:
        """Return the free slots, and how many of them an operation that needs an image may take."""
        with self._idle:
            kinds = [operation.request.kind for operation in self._live.values()]
        free = self._slots - len(kinds)
        return free, min(free, self._launching_slots - sum(kind in LAUNCHING for kind in kinds))

    def resume(self) -> None:
        """Resume operations whose pull has ended, before new claims and within the same slots."""
        while self._free_slots()[1] > 0 and (parked := self._waiting.next_ready()) is not None:
            self._begin(parked.operation, parked.triage, again=parked.again)

    def _some_are_ready(self) -> None:
        self._wake.set()
        with self._idle:
            self._idle.notify_all()

    def works_on(self, game_id: str) -> bool:
        """Return whether a live operation is about this game."""
        return any(operation.game_id == game_id for operation in self.live())

    def live_ids(self) -> Collection[int]:
        """Return the ids of the live operations."""
        return {operation.operation_id for operation in self.live()}

    def stop(self, timeout_s: float) -> None:
        """Claim nothing more, and let live operations end within `timeout_s`."""
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
        """Wait for the threads, which should have ended by now, then hand back the operations that are left."""
        with self._idle:
            self._idle.wait_for(lambda: not self._live, JOIN_S)
            threads = list(self._live)
        for thread in threads:
            self._logger.error("operation does not end, its thread is left", extra={"left": thread.name})
        try:
            handed_back = self._queue.hand_back()
        except Unavailable as error:
            # The end of this instance's session releases them instead.
            self._logger.warning("operations could not be handed back", extra={"error": str(error)})
            return
        if handed_back:
            self._logger.warning("operations handed back", extra={"operation_ids": list(handed_back)})

    def _free_for_unknown(self) -> int:
        """Return the slots for operations on images that have not started here yet, once another image has.

        Half of the slots; a quarter while such operations are due, and one beside an operation on a good image. That
        operation then finds a free slot at once, and few threads compete with it and with ingest. An image counts as
        good after its first start, so this delays no series of starts.
        """
        if not self._good_images:
            return self._launching_slots
        with self._idle:
            unknown = [self._is_unknown(operation) for operation in self._live.values() if operation.request.image_ref]
        limit = self._launching_slots // 2
        if self._backlog and self._began_unknown:
            limit = 1 if not all(unknown) else self._launching_slots // 4
        return max(0, max(1, limit) - sum(unknown))

    def _is_unknown(self, operation: Operation) -> bool:
        image_ref = operation.request.image_ref
        return bool(image_ref) and image_ref not in self._good_images

    def _claim_first(self, limit: int) -> int:
        """Claim operations for images that have started here, if more is due than there are slots; return their number.

        Otherwise a thousand jobs that Docker is going to reject would delay a good one.
        """
        if not self._backlog or not self._good_images or monotonic() < self._claim_first_at:
            return 0
        began = monotonic()
        claimed = self._queue.claim(limit, LAUNCHING, images=self._images_to_prefer())
        pause_s = max(CLAIM_FIRST_PAUSE_S, (monotonic() - began) / CLAIM_FIRST_SHARE)
        self._claim_first_at = monotonic() + min(CLAIM_FIRST_LONGEST_PAUSE_S, pause_s)
        self._settle_at_sight(claimed)
        return len(claimed)

    def _claim(self, limit: int, kinds: Collection[OpKind]) -> bool:
        """Claim and begin operations; return whether more may be due: beyond the limit, or next in a game's queue."""
        claimed = self._queue.claim(limit, kinds)
        ended = self._settle_at_sight(claimed)
        begun = (operation for operation in claimed if operation.operation_id not in ended)
        self._began_unknown = (self._backlog and self._began_unknown) or any(map(self._is_unknown, begun))
        return len(claimed) == limit or bool(ended)

    def _settle_at_sight(self, claimed: Sequence[Operation]) -> Collection[int]:
        """End the operations that the records decide, and begin the rest; return the ids of those that ended."""
        # A lock may delay their ends for longer than an unattended claim is kept.
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
            sights = self._operator.triage(claimed)
            ended = self._end_at_sight(claimed, sights)
        except (Unavailable, StoreRejected) as error:
            # On a thread of its own each waits for the store, or gets the store's reason.
            self._logger.debug("operations could not be ended together", extra={"error": str(error)})
            sights, ended = {}, set()
        except Exception as error:  # a defect: on a thread of its own, the operation that meets it delays no other
            self._logger.exception("operations could not be checked together")
            self._defect(error)
            sights, ended = {}, set()
        for operation in claimed:
            if operation.operation_id not in ended:
                self._begin(operation, sights.get(operation.operation_id))
        return ended

    def _end_at_sight(self, claimed: Sequence[Operation], sights: Mapping[int, Triage]) -> Collection[int]:
        """End all operations that need no container, in one transaction; return their ids."""
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
        except RuntimeError as error:  # the system has no thread left: what is claimed and not live is soon due again
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
            except Exception as error:  # noqa: BLE001 - a defect, a lack of resources, or an unreadable record
                self._survive(operation, error)
            finally:
                self.store_waits.over(_named(operation))

    def _report_handed_back(self, operation: Operation) -> None:
        self._logger.info("operation goes on elsewhere or later")
        left = f"this instance stops; operation {operation.operation_id} goes on with the next one"
        self._completions.announce(operation.operation_id, Unavailable("rtmanager", left))

    def _run_to_end(self, operation: Operation, triage: Triage | None = None, *, again: bool = False) -> None:
        # An earlier try may have done half of the work; that must be finished, whatever this try finds.
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
                if error.dependency != "postgres":  # a container could not be removed again, and must be
                    self._put_off(operation, error)
                    return
                again, triage = again or isinstance(error, PartiallyApplied), None
                self._pause(operation, error)

    def _decide(self, operation: Operation, triage: Triage | None, *, again: bool) -> Completion | None:
        """Return the completion; None when the operation was deferred. Raises `Unavailable` for PostgreSQL only."""
        began = monotonic()

        def expired(error: TemporaryAnswer | PartiallyApplied) -> bool:
            for_s = operation.answer_s + monotonic() - began
            return error.answer != "" and operation.answer_s > 0 and for_s >= self._deferral_limit_s

        try:
            return self._operator.run(operation, triage, may_wait=True, expired=expired)
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
        """Let the operation wait for a pull without a thread. Raises `HandedBack`."""
        if len(self._waiting) >= WAITING_LIMIT:
            waiting.pull.leave()
            why = f"{WAITING_LIMIT} operations wait for pulls already"
            self._until_stored(operation, lambda: self._queue.defer(operation, delay_s=WAITING_DELAY_S, why=why))
            left = f"{why}; operation {operation.operation_id} goes on by itself later"
            self._completions.announce(operation.operation_id, Unavailable("docker", left))
            return
        self._logger.info("operation waits for a pull")
        if is_outage_start(operation.request):
            self._note_wait(operation, waiting.pull)
        if not self._waiting.add(Parked(operation, waiting.triage, waiting.pull, again)):
            waiting.pull.leave()
            raise HandedBack

    def _note_wait(self, operation: Operation, pull: ImagePull) -> None:
        """Note in the store that a start after an outage waits, so that another game's start may take its place.

        Raises `HandedBack`.
        """
        try:
            self._until_stored(operation, lambda: self._queue.park(operation, why=PULL_AWAITED))
        except Exception:
            pull.leave()
            raise

    def _write(self, operation: Operation, completion: Completion) -> None:
        """Write the completion, or a plainer one. Raises `ClaimLost`, `RecordConflict` or `StoreRejected`."""
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
        """Yield the completion, and a plainer one each time the store has rejected the last."""
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
        """Handle an unforeseen error: retry a few times, then end the operation; if that fails, retry later."""
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
        except Exception as worse:  # the operation is claimed and not live, so its lease makes it due again
            self._logger.exception("operation could not be ended")
            self._sound_alarm(operation, Kind.STORE_REFUSES, worse)

    def _end_plainly(self, operation: Operation, error: Exception) -> bool:
        """Write a plain completion; return whether the store has accepted one."""
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
        """Report an operation that needs a person: in the log now and then, in metrics and readiness while it lasts."""
        if self.troubles.meet(operation, kind, str(error)):
            extra = {"trouble": kind.value, "op_kind": operation.request.kind.value, "error": str(error)}
            self._logger.error("operation needs a person: it is retried, and gets no further", extra=extra)

    def _offer(self, operation: Operation, completion: Completion) -> None:
        def finish() -> None:
            try:
                self._queue.finish(operation, completion)
            except RuntimeManagerError:
                raise
            except Exception as error:  # a defect on the way to the store: another completion may pass
                if lack := lacking(error):
                    raise out_of(lack) from error
                raise StoreRejected(f"unforeseen {type(error).__name__} while an end was written") from error

        self._until_stored(operation, finish)

    def _until_stored(self, operation: Operation, write: Callable[[], None]) -> None:
        """Repeat the call until PostgreSQL answers."""
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
            self._messages_due.set()

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
        # Warn with growing gaps, and not only once: the dependency that is away may be another one by now.
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
