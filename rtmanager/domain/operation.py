"""An operation: one request about one game, from its acceptance to its end.

`Operation` is the durable row that the executor claims. `Completion` is everything that its end changes, written in one
transaction: record, log, health snapshot, outgoing messages. Code that runs an operation builds a `Completion` and
writes nothing itself.
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
    """The kinds of the operation log; the reconciler writes the last two, which are never queued."""

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
    """Where a request came from."""

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
    """Why a game is stopped; recorded only, all are handled alike."""

    ORPHAN_CLEANUP = "orphan_cleanup"
    CANCELLED = "cancelled"
    FINISHED = "finished"
    ADMIN_REQUEST = "admin_request"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Request:
    """A request, before it is a durable operation.

    `source_ref` identifies the request for people and for idempotency: `<stream>:<entry id>` for a job, `rest:<request
    id>` for a call. `problem` is set when the request fails whatever the state of the game. Such a request is still
    queued, so that its result keeps its place among the game's other results.
    """

    game_id: str
    kind: OpKind
    source: OpSource
    source_ref: str
    image_ref: str = ""
    reason: str = ""
    problem: tuple[ErrorCode, str] | None = None
    #: The name of the REST caller; empty where there is none.
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """A claimed operation; each claim raises `generation`, and the store rejects writes of an earlier one."""

    operation_id: int
    request: Request
    generation: int
    accepted_at: datetime
    #: How often it was deferred because a dependency did not answer.
    deferrals: int = 0
    #: The temporary answer of the last deferral (`TemporaryAnswer.answer`; empty after silence). `answer_s`: for how
    #: many seconds, by the store's clock, it has met temporary answers of any kind. See `OperationQueue.defer`.
    answer: str = ""
    answer_s: float = 0.0
    #: How many tries ended by a defect of the manager.
    defects: int = 0

    @property
    def game_id(self) -> str:
        return self.request.game_id

    @property
    def from_stream(self) -> bool:
        """Whether the requester expects an entry on the results stream."""
        return self.request.source is OpSource.LOBBY_STREAM

    @property
    def awaited(self) -> bool:
        """Whether a REST caller waits for the result.

        It gets a retryable error where other operations are deferred.
        """
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
    """Everything that the end of an operation changes, in one transaction."""

    outcome: Outcome
    error_code: ErrorCode | None = None
    error_message: str = ""
    change: RecordChange | None = None
    #: The record that a completion without a change rests on, if there was one: it must be unchanged.
    rests_on: RuntimeRecord | None = None
    log: tuple[LogEntry, ...] = ()
    health: tuple[HealthEvent, ...] = ()
    messages: tuple[Message, ...] = ()
    #: How the container ended that the operation stopped, if that could be read.
    last_exit: LastExit | None = None
    #: The container that this operation started: it is removed if the completion cannot be written.
    launched: str | None = None
