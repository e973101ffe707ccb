"""Notes what an operation has done so far, and builds its completion from that.

An operation can fail half way. A restart that stopped the old container and cannot start the new one leaves a stopped
game and three log rows, not the state from before. Every step therefore notes its result here, and the completion,
success or failure, is built from these notes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rtmanager.domain.errors import ErrorCode, OperationFailed
from rtmanager.domain.health import HealthEvent
from rtmanager.domain.messages import INTENT_OF, Message, Stream, intent, job_result
from rtmanager.domain.operation import KINDS, Completion, LogEntry, Operation, OpKind, Outcome
from rtmanager.domain.outage import LastExit
from rtmanager.domain.record import RuntimeRecord
from rtmanager.domain.restarts import is_notified
from rtmanager.ports.clock import Clock
from rtmanager.ports.runtime import ImagePull

#: Longest message in log, stream and mail, in characters.
LONGEST_MESSAGE = 4000


class Progress:
    """The notes of one operation on one game, whose record was `seen` at its beginning."""

    def __init__(self, operation: Operation, seen: RuntimeRecord | None, clock: Clock) -> None:
        self.operation = operation
        self.seen = seen
        #: The record as changed so far.
        self.record = seen
        #: The image of the operation; a failure is reported with it.
        self.image_ref = operation.request.image_ref or (seen.current_image_ref if seen else None) or ""
        #: The container that this operation started: it is removed if its record cannot be written.
        self.launched: str | None = None
        #: Whether the operation may be put aside during a pull, and the pull that it waited for.
        self.may_wait = False
        self.pull: ImagePull | None = None
        #: Whether a container may have been changed: from then on the operation must be finished.
        self.committed = False
        #: How the container ended that the operation stopped.
        self.last_exit: LastExit | None = None
        self._clock = clock
        self._started_at = clock()
        self._log: list[LogEntry] = []
        self._health: list[HealthEvent] = []
        self._warnings: list[str] = []

    def now(self) -> datetime:
        """Return the present time, in UTC."""
        return self._clock()

    def set_record(self, record: RuntimeRecord) -> None:
        """Note a new state of the record."""
        self.record = record

    def observe(self, event: HealthEvent) -> None:
        """Note a health event."""
        self._health.append(event)

    def warn(self, warning: str) -> None:
        """Note a warning for a person, whatever the outcome: it appears in the operation's row, but in no message."""
        if warning not in self._warnings:
            self._warnings.append(warning)

    @contextmanager
    def part(self, kind: OpKind) -> Iterator[None]:
        """Run a part of a composed operation and give it a log row: success, or the failure that ends it."""
        started_at = self.now()
        try:
            yield
        except OperationFailed as error:
            self._note(kind, started_at, Outcome.FAILURE, error.code, storable(error.message))
            raise
        self._note(kind, started_at, Outcome.SUCCESS, None, None)

    def note_part(self, kind: OpKind, code: ErrorCode | None = None) -> None:
        """Note a part that needed no work: an earlier try did it, or there was nothing to do."""
        self._note(kind, self.now(), Outcome.SUCCESS, code, None)

    @property
    def known(self) -> RuntimeRecord:
        """The record at the beginning. Raises `OperationFailed` if there is none."""
        if self.seen is None:
            game_id = self.operation.game_id
            raise OperationFailed(ErrorCode.NOT_FOUND, f"game {game_id} has no runtime record; start it first")
        return self.seen

    def succeeded(self) -> Completion:
        """The completion of an operation that succeeded."""
        return self._end(Outcome.SUCCESS, None, "")

    def replayed(self, why: str) -> Completion:
        """The completion of an operation that found its work already done."""
        return self._end(Outcome.SUCCESS, ErrorCode.REPLAY_NO_OP, why)

    def failed(self, code: ErrorCode, message: str) -> Completion:
        """The completion of an operation that was refused or failed."""
        return self._end(Outcome.FAILURE, code, storable(message))

    def failed_barely(self, code: ErrorCode, message: str) -> Completion:
        """As `failed`, with nothing but the result of the job: for a store that rejects everything else."""
        completion = self.failed(code, message)
        results = tuple(each for each in completion.messages if each.stream is Stream.JOB_RESULTS)
        return Completion(Outcome.FAILURE, code, completion.error_message, messages=results)

    def _end(self, outcome: Outcome, code: ErrorCode | None, message: str) -> Completion:
        text = "; ".join([*([message] if message else []), *self._warnings])
        self._note(self.operation.request.kind, self._started_at, outcome, code, text or None)
        return Completion(
            outcome=outcome,
            error_code=code,
            error_message=text,
            seen=self.seen,
            new=self.record if self.record is not self.seen else None,
            log=tuple(self._log),
            health=tuple(self._health),
            messages=tuple(self._messages(outcome, code, message)),
            last_exit=self.last_exit,
            launched=self.launched,
        )

    def _messages(self, outcome: Outcome, code: ErrorCode | None, message: str) -> Iterator[Message]:
        game_id, failed = self.operation.game_id, outcome is Outcome.FAILURE
        if self.operation.from_stream:
            record = None if failed else self.record
            yield job_result(
                game_id,
                container_id=record.current_container_id if record else None,
                endpoint=record.engine_endpoint if record else "",
                code=code,
                message=message,
            )
        if failed and code is not None and code in INTENT_OF and is_notified(self.operation.request):
            yield intent(
                code,
                game_id=game_id,
                image_ref=self.image_ref,
                message=message,
                source_ref=self.operation.request.source_ref,
                attempted_at=self._started_at,
                now=self.now(),
            )

    def _image_of(self, kind: OpKind) -> str | None:
        if KINDS[kind].ends_container and self.seen is not None:
            return self.seen.current_image_ref  # that of the container that was ended, also in a patch
        return self.image_ref or None

    def _container_of(self, kind: OpKind) -> str | None:
        """Return the container of a log row: for a part that ends one, the container from the beginning."""
        of = self.seen if KINDS[kind].ends_container else self.record
        return of.current_container_id if of else None

    def _note(
        self,
        kind: OpKind,
        started_at: datetime,
        outcome: Outcome,
        code: ErrorCode | None,
        message: str | None,
    ) -> None:
        request = self.operation.request
        self._log.append(
            LogEntry(
                game_id=request.game_id,
                kind=kind,
                source=request.source,
                source_ref=request.source_ref,
                image_ref=self._image_of(kind),
                container_id=self._container_of(kind),
                outcome=outcome,
                error_code=code,
                error_message=message,
                started_at=started_at,
                finished_at=self.now(),
            )
        )


def storable(text: str) -> str:
    """Convert external text for PostgreSQL and mail: no NUL, valid Unicode, bounded length."""
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[:LONGEST_MESSAGE]}… ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
