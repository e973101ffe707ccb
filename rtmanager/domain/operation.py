"""An operation: one request about one game, from its acceptance to its end.

`Operation` is the durable row that the executor claims. `Changes` is what its end, or a finding, changes in one
transaction: record, log, health snapshot, outgoing messages. Code that runs an operation builds a `Completion` and
writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.health import HealthEvent
from rtmanager.domain.messages import Message
from rtmanager.domain.outage import LastExit
from rtmanager.domain.record import RuntimeRecord, check_transition


class OpKind(StrEnum):
    """The kinds of the operation log; the reconciler writes the last two, which are never queued."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    PATCH = "patch"
    CLEANUP = "cleanup_container"
    RECONCILE_ADOPT = "reconcile_adopt"
    RECONCILE_DISPOSE = "reconcile_dispose"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRules:
    """How the operations of a kind differ from others. No rule has a default, so that a new kind states each."""

    #: The field that the request needs beside the game: `image_ref`, `reason`, or none.
    takes: Literal["image_ref", "reason", ""]
    #: Whether a container is started: the operation needs an image, and may wait for a pull.
    launches: bool
    #: Whether the game's container is stopped or removed: the log row names the one that the game had at the beginning.
    ends_container: bool
    #: Whether a new container takes the place of the old one. Such an operation must be finished once it has begun. A
    #: refused one decides nothing about the game.
    replaces: bool


#: The one table of the kinds that are queued.
KINDS: Mapping[OpKind, KindRules] = {
    OpKind.START: KindRules(takes="image_ref", launches=True, ends_container=False, replaces=False),
    OpKind.STOP: KindRules(takes="reason", launches=False, ends_container=True, replaces=False),
    OpKind.RESTART: KindRules(takes="", launches=True, ends_container=False, replaces=True),
    OpKind.PATCH: KindRules(takes="image_ref", launches=True, ends_container=False, replaces=True),
    OpKind.CLEANUP: KindRules(takes="", launches=False, ends_container=True, replaces=False),
}
QUEUED = frozenset(KINDS)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is written about one game in one transaction, or not at all."""

    #: The record that was decided on. The stored one must still have its status and container. None: there was no
    #: record, which is compared only if `new` is written.
    seen: RuntimeRecord | None = None
    #: The record that is written, if it changes.
    new: RuntimeRecord | None = None
    log: tuple[LogEntry, ...] = ()
    #: Health events; the last one becomes the snapshot.
    health: tuple[HealthEvent, ...] = ()
    messages: tuple[Message, ...] = ()
    #: How a container ended, if that could be read.
    last_exit: LastExit | None = None

    def __post_init__(self) -> None:
        if self.new is not None:
            check_transition(self.seen, self.new)


@dataclass(frozen=True, slots=True)
class Completion(Changes):
    """How an operation ended, and everything that its end changes."""

    outcome: Outcome
    error_code: ErrorCode | None = None
    error_message: str = ""
    #: The container that this operation started: it is removed if the completion cannot be written.
    launched: str | None = None
