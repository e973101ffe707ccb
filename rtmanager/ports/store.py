"""Ports to the store: records, histories and the durable queue of operations.

The store is the only authority over requests and records. Every method may raise `Unavailable("postgres", …)`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rtmanager.domain.daemon import Daemon
from rtmanager.domain.errors import ErrorCode, FinalAnswer, RuntimeManagerError, Unavailable
from rtmanager.domain.findings import HealthReport
from rtmanager.domain.operation import QUEUED, Completion, LogEntry, Operation, OpKind, Outcome, Request
from rtmanager.domain.record import RuntimeRecord, Status

#: Longest deferral in seconds; an operation that is due later was deferred by a clock that was ahead.
LONGEST_DELAY_S = 120.0
#: Game and origin of a trial operation that is rolled back, and its image.
PROBE = "rtmanager-probe"
PROBE_IMAGE = "rtmanager/probe:1.0.0"


class ClaimLost(RuntimeManagerError):
    """Another claim holds the operation by now; further writes of this one are rejected."""


class RecordConflict(RuntimeManagerError):
    """The record is not the one that the operation rests on; nothing was written, decide again."""


class UnknownOperation(Unavailable):
    """The store has lost an operation that it had accepted: a failover or a restore set it back."""


class StoreRejected(FinalAnswer):
    """The store rejects a write, or cannot return what it holds, however often that is retried.

    `sqlstate` is PostgreSQL's error code, if there is one.
    """

    def __init__(self, message: str, *, sqlstate: str = "") -> None:
        super().__init__("postgres", message)
        self.sqlstate = sqlstate


class GameBusy(RuntimeManagerError):
    """The game has an unfinished operation; a REST call does not queue behind it."""


@dataclass(frozen=True, slots=True)
class Namesake:
    """A game with the same name but for the case: by its record, or by a start under way (no status)."""

    game_id: str
    status: Status | None


@dataclass(frozen=True, slots=True)
class OperationResult:
    """How an operation ended, for its requester."""

    outcome: Outcome
    error_code: ErrorCode | None
    error_message: str


@dataclass(frozen=True, slots=True)
class OrphanedClaim:
    """A claimed operation that no instance worked on; `ours` if this instance held the claim."""

    operation_id: int
    game_id: str
    kind: OpKind
    ours: bool = False


class DaemonRecords(Protocol):
    """The daemon that the records belong to."""

    def recorded(self) -> Daemon | None:
        """Return the daemon on record; None before a first start."""
        ...

    def record(self, daemon: Daemon) -> Daemon:
        """Record a daemon unless there is one; return the one on record."""
        ...

    def accept(self, daemon: Daemon, *, new_deployment: bool = False) -> None:
        """Replace the daemon on record; with `new_deployment`, give the store a new id."""
        ...

    def deployment_id(self) -> str:
        """Return the id of this store among those that share a Redis or a daemon; a copy of a store has the same."""
        ...


class Records(Protocol):
    """The records of the games."""

    def get(self, game_id: str) -> RuntimeRecord | None:
        """Return one game's record, or None."""
        ...

    def of(self, game_ids: Collection[str]) -> Mapping[str, RuntimeRecord]:
        """Return the records of these games; games without one are left out."""
        ...

    def page(self, *, status: Status | None, after: str | None, limit: int) -> Sequence[RuntimeRecord]:
        """Return up to `limit` records in the order of their game ids, those after `after`."""
        ...

    def get_as_json(self, game_id: str) -> bytes | None:
        """As `get`, in the JSON form of the contract ("REST"), in UTF-8: for callers that only pass it on."""
        ...

    def page_as_json(self, *, status: Status | None, after: str | None, limit: int) -> Sequence[bytes]:
        """As `page`, each in the same form."""
        ...


class Histories(Protocol):
    """The history of each game."""

    def health(self, game_id: str) -> HealthReport:
        """Return a game's health; empty for an unknown game."""
        ...

    def log(self, game_id: str, *, before: int | None, limit: int) -> Sequence[tuple[int, LogEntry]]:
        """Return up to `limit` rows of its operation log with their ids, newest first; only ids below `before`."""
        ...


class OperationQueue(Protocol):
    """Operations from acceptance to end; at most one per game is claimed at a time."""

    def submit(self, request: Request, *, last_op_at: datetime | None = None) -> int:
        """Accept a REST call; return the operation's id.

        Raises `GameBusy`, also if the record's `last_op_at` is not the one given.
        """
        ...

    def require_room(self, request: Request) -> None:
        """Raise `StoreRejected` unless the store would accept such a call for another game; changes nothing."""
        ...

    def claim(
        self, limit: int, kinds: Collection[OpKind] = QUEUED, *, images: Collection[str] | None = None
    ) -> Sequence[Operation]:
        """Claim up to `limit` due operations of these kinds, each the first of its game, fairly among games.

        With `images`, only operations that name one of these references. That query may be slow, and does not count for
        fairness.
        """
        ...

    def heartbeat(self, claimed: Sequence[Operation], *, skip_locked: bool = False) -> set[int]:
        """Renew claims; return the ids of those that this claim still holds.

        With `skip_locked`, a row that another session has locked is skipped: it is not renewed, and its id is returned
        although its claim may be about to be lost. Without it, the call waits for the lock.
        """
        ...

    def reclaim_orphans(self, live: Collection[int] = (), *, by_presence: bool = True) -> Sequence[OrphanedClaim]:
        """Make due again what is claimed and not worked on; return it.

        These are operations that were silent for a lease, and this instance's own that are not in `live` (operation
        ids). With `by_presence`, also those of an instance whose session lock has ended.
        """
        ...

    def defer(
        self, operation: Operation, *, delay_s: float, why: str, answer: str = "", by_defect: bool = False
    ) -> None:
        """Release a claim; the operation is due again after `delay_s`.

        `answer` is the temporary answer that it met. The store keeps for how long the operation has met such answers,
        of any kind. Time without an answer does not count, except for the first try without one after an answer.
        `by_defect` counts one more try that ended by a defect.
        """
        ...

    def park(self, operation: Operation, *, why: str) -> None:
        """Note that a claimed operation waits, and why; it stays claimed. See `Findings.queue_restart`."""
        ...

    def claim_name(self, operation: Operation) -> Namesake | None:
        """Claim the game's name, without regard to case, until the operation ends; return the game that has it already.

        For the start of a game without a record, or with a removed one. Raises `ClaimLost`.
        """
        ...

    def note_end(self, operation: Operation, container_id: str | None) -> str | None:
        """Note the container that the operation is about to stop; return the note before. `None` withdraws it.

        The note outlives the claim: after a crash it marks the end that the operation requested. Renews
        the claim. Raises `ClaimLost`.
        """
        ...

    def noted_end(self, operation: Operation) -> str | None:
        """Return the container that this claim of the operation, or an earlier one, has noted last."""
        ...

    def finish(self, operation: Operation, completion: Completion) -> None:
        """Write the completion in one transaction. Raises `ClaimLost`, `RecordConflict` or `StoreRejected`."""
        ...

    def finish_together(self, endings: Sequence[tuple[Operation, Completion]]) -> set[int]:
        """Write the completions for which `finish` would not raise, in one transaction; return their ids.

        Raises `StoreRejected` when the store will never accept one of them; then none is written.
        """
        ...

    def hand_back(self) -> Sequence[int]:
        """Make due again everything that this instance has claimed; return the ids."""
        ...

    def verdict(self, operation_id: int, source_ref: str | None = None) -> OperationResult | None:
        """Return how an operation ended; None while it has not. `source_ref`, if given, must be its origin.

        Raises `UnknownOperation`.
        """
        ...


class SessionLock(Protocol):
    """A lock that ends with the session, so with the process. Raises `Unavailable`."""

    def show(self) -> float:
        """Hold the lock; return for how many seconds it has been held without a break."""
        ...
