"""From a claimed operation to its ending: read the record, do the work, put the outcome into words.

Running an operation twice is the same as running it once: each step is bound to a container id or finds what
an earlier try left. So whoever claims an operation after a crash just runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rtmanager.domain.errors import ErrorCode, OperationFailed, Unavailable
from rtmanager.domain.operation import Ending, Operation, OpKind
from rtmanager.domain.record import Status
from rtmanager.operations.cleanup import cleanup
from rtmanager.operations.ports import ContainerNotFound
from rtmanager.operations.progress import Progress
from rtmanager.operations.recreate import patch, restart
from rtmanager.operations.start import start
from rtmanager.operations.stop import stop
from rtmanager.operations.store import OwnershipLost, Records
from rtmanager.operations.tools import Tools

_WORK: Mapping[OpKind, Callable[[Progress, Tools], Ending]] = {
    OpKind.START: start,
    OpKind.STOP: stop,
    OpKind.RESTART: restart,
    OpKind.PATCH: patch,
    OpKind.CLEANUP: cleanup,
}


class HalfDone(Unavailable):
    """A dependency went away when a part of the operation was done already: it has to be finished some time."""


class Operator:
    """Does the work of operations; writes nothing to the store itself."""

    def __init__(self, records: Records, tools: Tools) -> None:
        self._records = records
        self._tools = tools

    def run(self, operation: Operation) -> Ending:
        """Do what the operation asks. Raises `OwnershipLost`, `Unavailable` or `HalfDone`."""
        progress = self._progress(operation)
        request = operation.request
        try:
            if request.problem is not None:
                raise OperationFailed(*request.problem)
            return _WORK[request.kind](progress, self._tools)
        except OperationFailed as error:
            return progress.failed(error.code, error.message)
        except Unavailable as error:
            if progress.record is progress.seen and (error.untouched or not progress.committed):
                raise
            raise HalfDone(error.dependency, str(error)) from error
        except OwnershipLost:
            raise
        except Exception as error:  # a defect: the asker gets an answer, the log the traceback, what was done is kept
            self._tools.logger.exception("operation failed in an unforeseen way")
            said = f"unforeseen {type(error).__name__}; operation {operation.operation_id} in the log has more"
            return progress.failed(ErrorCode.INTERNAL_ERROR, said)

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

    def _progress(self, operation: Operation) -> Progress:
        return Progress(operation, self._records.get(operation.game_id), self._tools.clock)
