"""An operation: one wish about one game, from the moment it is accepted to its end.

`Operation` is the durable row that the executor claims; `Completion` is all that its end changes, to be written in
one transaction: record, log, health snapshot, outgoing messages. Code that runs an operation builds an
`Completion` and writes nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.health import HealthEvent
from rtmanager.domain.messages import Message
from rtmanager.domain.outage import LastExit
from rtmanager.domain.record import RecordChange, RuntimeRecord


class OpKind(StrEnum):
    """The kinds of the operation log; the last two are written by the reconciler and never queued."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    PATCH = "patch"
    CLEANUP = "cleanup_container"
    RECONCILE_ADOPT = "reconcile_adopt"
    RECONCILE_DISPOSE = "reconcile_dispose"


#: The kinds that are queued.
QUEUED = frozenset({OpKind.START, OpKind.STOP, OpKind.RESTART, OpKind.PATCH, OpKind.CLEANUP})


class OpSource(StrEnum):
    """Who asked."""

    LOBBY_STREAM = "lobby_stream"
    GM_REST = "gm_rest"
    ADMIN_REST = "admin_rest"
    AUTO_TTL = "auto_ttl"
    AUTO_RECONCILE = "auto_reconcile"


class Outcome(StrEnum):
    """How an operation ended; a replay is a success."""

    SUCCESS = "success"
    FAILURE = "failure"


class StopReason(StrEnum):
    """Why a game is stopped; RTM records it and treats all alike."""

    ORPHAN_CLEANUP = "orphan_cleanup"
    CANCELLED = "cancelled"
    FINISHED = "finished"
    ADMIN_REQUEST = "admin_request"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked, before it is a durable operation.

    `source_ref` names the request for people and for idempotency: `<stream>:<entry id>` for a job,
    `rest:<request id>` for a call. `problem` is set when the request is refused whatever the state of the game: it is
    still queued, so that its answer keeps its place among the game's other answers.
    """

    game_id: str
    kind: OpKind
    source: OpSource
    source_ref: str
    image_ref: str = ""
    reason: str = ""
    problem: tuple[ErrorCode, str] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """A claimed operation. `generation` grows with each claim: what an earlier holder writes is refused."""

    operation_id: int
    request: Request
    generation: int
    accepted_at: datetime
    #: How often it was put off because a dependency did not answer.
    deferrals: int = 0
    #: The temporary answer by which it was put off last (`TemporaryAnswer.answer`; empty after silence), and for how
    #: many seconds it has met temporary answers, whichever they are, by the store's clock. See `OperationQueue.defer`.
    answer: str = ""
    answer_s: float = 0.0
    #: How many tries ended by a defect of this service.
    defects: int = 0

    @property
    def game_id(self) -> str:
        return self.request.game_id

    @property
    def from_stream(self) -> bool:
        """Whether the asker waits for an entry on the results stream."""
        return self.request.source is OpSource.LOBBY_STREAM

    @property
    def awaited(self) -> bool:
        """Whether a caller waits for its end: he is told to come again, where others just wait their turn."""
        return self.request.source in (OpSource.GM_REST, OpSource.ADMIN_REST)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One row of `operation_log`."""

    game_id: str
    kind: OpKind
    source: OpSource
    source_ref: str
    outcome: Outcome
    started_at: datetime
    finished_at: datetime
    image_ref: str | None = None
    container_id: str | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """Everything that the end of an operation changes, at once or not at all."""

    outcome: Outcome
    error_code: ErrorCode | None = None
    error_message: str = ""
    change: RecordChange | None = None
    #: The record that an ending without a change was decided on, if there was one: it has to be that one still.
    rests_on: RuntimeRecord | None = None
    log: tuple[LogEntry, ...] = ()
    health: tuple[HealthEvent, ...] = ()
    messages: tuple[Message, ...] = ()
    #: How the container ended that the operation stopped, as far as that could be read.
    last_exit: LastExit | None = None
    #: The container that this operation started: it must go again if the ending cannot be written.
    launched: str | None = None
