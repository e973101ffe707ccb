"""From a claimed operation to its ending: read the record, do the work, put the outcome into words.

Running an operation twice is the same as running it once: each step is bound to a container id or finds what
an earlier try left. So whoever claims an operation after a crash just runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rtmanager.domain.errors import ErrorCode, OperationFailed, Unavailable
from rtmanager.domain.operation import Ending, Operation, OpKind
from rtmanager.domain.record import Status
from rtmanager.operations.cleanup import cleanup
from rtmanager.operations.ports import ContainerNotFound, ImagePull, PullPending
from rtmanager.operations.progress import Progress
from rtmanager.operations.recreate import patch, restart
from rtmanager.operations.start import nothing_to_start, start
from rtmanager.operations.stop import nothing_to_stop, stop
from rtmanager.operations.store import OwnershipLost, Records
from rtmanager.operations.tools import Tools

E = TypeVar("E", bound="Ending | None")

_WORK: Mapping[OpKind, Callable[[Progress, Tools], Ending]] = {
    OpKind.START: start,
    OpKind.STOP: stop,
    OpKind.RESTART: restart,
    OpKind.PATCH: patch,
    OpKind.CLEANUP: cleanup,
}
#: What the record alone may end: the game is what it is to become already, or must not become it.
_AT_SIGHT: Mapping[OpKind, Callable[[Progress], Ending | None]] = {
    OpKind.START: nothing_to_start,
    OpKind.STOP: nothing_to_stop,
}


@dataclass(frozen=True, slots=True)
class Sight:
    """What an operation looks like by its game's record: `ending` if that is all it needs, else the work begins."""

    progress: Progress
    ending: Ending | None


class Waiting(Exception):
    """The operation goes on from `sight` when `pull` has ended."""

    def __init__(self, sight: Sight, pull: ImagePull) -> None:
        super().__init__("waits for a pull")
        self.sight = sight
        self.pull = pull


class HalfDone(Unavailable):
    """A dependency went away when a part of the operation was done already: it has to be finished some time."""


class Operator:
    """Does the work of operations; writes nothing to the store itself."""

    def __init__(self, records: Records, tools: Tools) -> None:
        self._records = records
        self._tools = tools

    def run(self, operation: Operation, sight: Sight | None = None, *, may_wait: bool = False) -> Ending:
        """Do what the operation asks; `sight` if it was looked at just now.

        Raises `OwnershipLost`, `Unavailable` or `HalfDone`; with `may_wait` also `Waiting`, in place of a thread that
        waits for a pull.
        """
        sight = sight or self._sight(self._progress(operation))
        if sight.ending is not None:
            return sight.ending
        progress = sight.progress
        progress.may_wait = may_wait
        try:
            return self._in_words(progress, lambda: self._work(progress))
        except PullPending as pending:
            raise Waiting(sight, pending.pull) from pending
        except Unavailable as error:
            if progress.record is progress.seen and (error.untouched or not progress.committed):
                raise
            raise HalfDone(error.dependency, str(error)) from error

    def look(self, operations: Sequence[Operation]) -> Mapping[int, Sight]:
        """By id: a game that runs already, say, is not started. Raises `Unavailable`."""
        if not operations:
            return {}
        records = self._records.of({operation.game_id for operation in operations})
        seen = (Progress(each, records.get(each.game_id), self._tools.clock) for each in operations)
        return {progress.operation.operation_id: self._sight(progress) for progress in seen}

    def gave_up(self, operation: Operation, code: ErrorCode, message: str) -> Ending:
        """The end of an operation that was not, or could not be, worked on."""
        return self._progress(operation).failed(code, message)

    def take_back(self, operation: Operation, launched: str, why: str) -> Ending:
        """The end of a start whose record the store refuses for good: without a record no container may live.

        Raises `Unavailable` when a dependency does not answer.
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

    def _sight(self, progress: Progress) -> Sight:
        request = progress.operation.request

        def look() -> Ending | None:
            if request.problem is not None:
                raise OperationFailed(*request.problem)
            looked_at = _AT_SIGHT.get(request.kind)
            return looked_at(progress) if looked_at else None

        return Sight(progress, self._in_words(progress, look))

    def _work(self, progress: Progress) -> Ending:
        return _WORK[progress.operation.request.kind](progress, self._tools)

    def _in_words(self, progress: Progress, work: Callable[[], E]) -> E | Ending:
        """What `work` returns, or the ending that its failure is."""
        try:
            return work()
        except OperationFailed as error:
            return progress.failed(error.code, error.message)
        except (Unavailable, OwnershipLost, PullPending):
            raise
        except Exception as error:  # a defect: the asker gets an answer, the log the traceback, what was done is kept
            operation_id = progress.operation.operation_id
            self._tools.logger.exception("operation failed in an unforeseen way")
            said = f"unforeseen {type(error).__name__}; operation {operation_id} in the log has more"
            return progress.failed(ErrorCode.INTERNAL_ERROR, said)

    def _progress(self, operation: Operation) -> Progress:
        return Progress(operation, self._records.get(operation.game_id), self._tools.clock)
