"""Runs a claimed operation: reads the record, does the work, builds the completion.

Operations are idempotent: each step is bound to a container id, or finds what an earlier try left. An instance that
claims an operation after a crash just runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rtmanager.domain.errors import (
    DependencyError,
    ErrorCode,
    FinalAnswer,
    OperationFailed,
    TemporaryAnswer,
    Unavailable,
)
from rtmanager.domain.operation import KINDS, Completion, Operation, OpKind
from rtmanager.domain.record import Status
from rtmanager.operations.cleanup import cleanup
from rtmanager.operations.progress import Progress
from rtmanager.operations.recreate import left_half_done, patch, restart
from rtmanager.operations.start import nothing_to_start, start
from rtmanager.operations.stop import nothing_to_stop, stop
from rtmanager.operations.tools import Tools
from rtmanager.ports.runtime import ContainerNotFound, ImagePull, PullPending
from rtmanager.ports.store import ClaimLost, Records
from rtmanager.resources import lacking, out_of

#: Tries of one operation that may end by a defect of the manager; the last one ends it with `internal_error`.
DEFECT_TRIES = 3

E = TypeVar("E", bound="Completion | None")

_WORK: Mapping[OpKind, Callable[[Progress, Tools], Completion]] = {
    OpKind.START: start,
    OpKind.STOP: stop,
    OpKind.RESTART: restart,
    OpKind.PATCH: patch,
    OpKind.CLEANUP: cleanup,
}
#: Operations that the record alone may decide: the game already is in the requested state, or must not get there.
_AT_SIGHT: Mapping[OpKind, Callable[[Progress, Tools], Completion | None]] = {
    OpKind.START: nothing_to_start,
    OpKind.STOP: nothing_to_stop,
}


@dataclass(frozen=True, slots=True)
class Triage:
    """The result of the check of an operation against its record; `completion` is None if work is needed."""

    progress: Progress
    completion: Completion | None


class Waiting(Exception):
    """The operation continues from `triage` when `pull` has ended."""

    def __init__(self, triage: Triage, pull: ImagePull) -> None:
        super().__init__("waits for a pull")
        self.triage = triage
        self.pull = pull


class PartiallyApplied(Unavailable):
    """A dependency went away after a part of the operation was done: the operation must be finished.

    `answer` is that of the `TemporaryAnswer` that caused it, else empty.
    """

    def __init__(self, cause: Unavailable) -> None:
        super().__init__(cause.dependency, str(cause))
        self.answer = cause.answer if isinstance(cause, TemporaryAnswer) else ""


def _never(_: TemporaryAnswer) -> bool:
    return False


class OperationRunner:
    """Does the work of operations; writes nothing to the store itself."""

    def __init__(self, records: Records, tools: Tools) -> None:
        self._records = records
        self._tools = tools

    def run(
        self,
        operation: Operation,
        triage: Triage | None = None,
        *,
        may_wait: bool = False,
        expired: Callable[[TemporaryAnswer], bool] = _never,
    ) -> Completion:
        """Run the operation; `triage` is a fresh result of `at_sight`.

        A temporary answer that has `expired` ends the operation, unless it is a half-done restart or patch. Raises
        `ClaimLost`, `Unavailable` or `PartiallyApplied`, and any defect before the last try. With `may_wait` it raises
        `Waiting` where it would block on a pull.
        """
        triage = triage or self._triage(self._progress(operation))
        if triage.completion is not None:
            return triage.completion
        progress = triage.progress
        progress.may_wait = may_wait
        try:
            return self._in_words(progress, lambda: self._work(progress))
        except PullPending as pending:
            raise Waiting(triage, pending.pull) from pending
        except Unavailable as error:
            half_done = progress.record is not progress.seen or (progress.committed and not error.untouched)
            if isinstance(error, TemporaryAnswer) and expired(error):
                if not self._has_to_go_on(progress, half_done):
                    return progress.failed(error.code, f"{error}; such answers have come for too long to try again")
                half_done = True
            if half_done:
                raise PartiallyApplied(error) from error
            raise

    def triage(self, operations: Sequence[Operation]) -> Mapping[int, Triage]:
        """Triage operations by their records; return the results by operation id. Raises `Unavailable`."""
        if not operations:
            return {}
        records = self._records.of({operation.game_id for operation in operations})
        seen = (Progress(each, records.get(each.game_id), self._tools.clock) for each in operations)
        return {progress.operation.operation_id: self._triage(progress) for progress in seen}

    def _has_to_go_on(self, progress: Progress, half_done: bool) -> bool:
        """Return whether a failure now would leave a game without the container that it had."""
        if not KINDS[progress.operation.request.kind].replaces:
            return False
        try:
            return half_done or left_half_done(progress, self._tools)
        except DependencyError as error:
            self._tools.logger.debug("what is left cannot be seen", extra={"error": str(error)})
            return True

    def end_plainly(self, operation: Operation, code: ErrorCode, message: str) -> Sequence[Completion]:
        """Return completions that depend on no record and change none; each is plainer than the last."""
        plain = Progress(operation, None, self._tools.clock).failed(code, message)
        return plain, Progress(operation, None, self._tools.clock).failed_barely(code, message)

    def gave_up(self, operation: Operation, code: ErrorCode, message: str) -> Completion:
        """The completion of an operation that was not, or could not be, run."""
        return self._progress(operation).failed(code, message)

    def take_back(self, operation: Operation, launched: str, why: str) -> Completion:
        """Remove a started container whose record the store rejects for good; return the failure.

        A container must not run without a record. Raises `Unavailable`.
        """
        runtime = self._tools.runtime
        try:
            runtime.stop(launched, 0)
            runtime.remove(launched)
        except ContainerNotFound:
            self._tools.logger.info("container was gone already", extra={"container_id": launched})
        progress = self._progress(operation)
        record = progress.seen
        if record is not None and record.status is Status.RUNNING:
            progress.set_record(record.stopped_without_container(progress.now()))
        return progress.failed(
            ErrorCode.CONTAINER_START_FAILED, f"the container ran, but its record could not be written: {why}"
        )

    def _triage(self, progress: Progress) -> Triage:
        request = progress.operation.request

        def at_sight() -> Completion | None:
            if request.problem is not None:
                raise OperationFailed(*request.problem)
            decision_at_sight = _AT_SIGHT.get(request.kind)
            return decision_at_sight(progress, self._tools) if decision_at_sight else None

        return Triage(progress, self._in_words(progress, at_sight))

    def _work(self, progress: Progress) -> Completion:
        return _WORK[progress.operation.request.kind](progress, self._tools)

    def _in_words(self, progress: Progress, work: Callable[[], E]) -> E | Completion:
        """Return the result of `work`, or the completion that its failure means."""
        try:
            return work()
        except OperationFailed as error:
            return progress.failed(error.code, error.message)
        except FinalAnswer as error:
            return progress.failed(ErrorCode.INTERNAL_ERROR, str(error))
        except (Unavailable, ClaimLost, PullPending):
            raise
        except Exception as error:
            if lack := lacking(error):
                raise out_of(lack) from error
            # A defect: the requester gets an answer, the log the traceback, and what was done is kept.
            if progress.operation.defects + 1 < DEFECT_TRIES:
                raise
            self._tools.logger.exception("operation failed in an unforeseen way")
            return progress.failed(ErrorCode.INTERNAL_ERROR, unforeseen(progress.operation, error))

    def _progress(self, operation: Operation) -> Progress:
        return Progress(operation, self._records.get(operation.game_id), self._tools.clock)


def unforeseen(operation: Operation, error: BaseException) -> str:
    """The message of an operation that ends by a defect of the manager."""
    return f"unforeseen {type(error).__name__}; operation {operation.operation_id} in the log has more"
