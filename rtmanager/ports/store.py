"""What the operations need from the store, as interfaces: records to read, a durable queue to work off.

The store is the only authority over what was asked and what is true. Every method may raise
`Unavailable("postgres", …)`.
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

#: No operation is deferred for longer, in seconds: one that is due later was deferred by a clock that was ahead.
LONGEST_DELAY_S = 120.0
#: The game and the origin of an operation that is tried and never kept, and its image.
PROBE = "rtmanager-probe"
PROBE_IMAGE = "rtmanager/probe:1.0.0"


class ClaimLost(RuntimeManagerError):
    """Another claim has the operation by now; whatever this one still wanted to write was refused."""


class RecordConflict(RuntimeManagerError):
    """The record is not what the operation decided on; nothing was written, decide again."""


class UnknownOperation(Unavailable):
    """The store knows nothing of an operation that it had accepted: it was set back, by a failover or a restore."""


class StoreRejected(FinalAnswer):
    """The store answers and will not take, or cannot give, what it was asked for, however often that is tried.

    `sqlstate` says why, where PostgreSQL gave one.
    """

    def __init__(self, message: str, *, sqlstate: str = "") -> None:
        super().__init__("postgres", message)
        self.sqlstate = sqlstate


class GameBusy(RuntimeManagerError):
    """The game has an operation that is not done; a call does not queue behind it."""


@dataclass(frozen=True, slots=True)
class Namesake:
    """A game that has another one's name but for the case: by its record, or by a start under way (no status)."""

    game_id: str
    status: Status | None


@dataclass(frozen=True, slots=True)
class OperationResult:
    """How an operation ended, for the one who asked."""

    outcome: Outcome
    error_code: ErrorCode | None
    error_message: str


@dataclass(frozen=True, slots=True)
class OrphanedClaim:
    """An operation that was claimed and that nobody worked on; `ours` if the claim was this instance's own."""

    operation_id: int
    game_id: str
    kind: OpKind
    ours: bool = False


class DaemonRecords(Protocol):
    """Whose containers the records are about."""

    def recorded(self) -> Daemon | None:
        """The daemon on record; None before a first start."""
        ...

    def record(self, daemon: Daemon) -> Daemon:
        """Put a daemon on record unless one is; returns the one on record."""
        ...

    def accept(self, daemon: Daemon, *, new_deployment: bool = False) -> None:
        """Put a daemon on record in place of the one that is; with a `new_deployment`, give the store another id."""
        ...

    def deployment_id(self) -> str:
        """Which store it is, among those that use the same Redis or the same daemon; a copy of a store has the same."""
        ...


class Records(Protocol):
    """What is known of each game."""

    def get(self, game_id: str) -> RuntimeRecord | None:
        """One game's record, or None."""
        ...

    def of(self, game_ids: Collection[str]) -> Mapping[str, RuntimeRecord]:
        """The records of these games, as far as there are any."""
        ...

    def page(self, *, status: Status | None, after: str | None, limit: int) -> Sequence[RuntimeRecord]:
        """Up to `limit` records in the order of their game ids, those after `after`."""
        ...

    def get_as_json(self, game_id: str) -> bytes | None:
        """As `get`, for one who only passes it on: the record as the contract has it ("REST"), in UTF-8."""
        ...

    def page_as_json(self, *, status: Status | None, after: str | None, limit: int) -> Sequence[bytes]:
        """As `page`, each in the same form."""
        ...


class Histories(Protocol):
    """What happened to each game."""

    def health(self, game_id: str) -> HealthReport:
        """What is known of a game's health; nothing of a game that is not known."""
        ...

    def log(self, game_id: str, *, before: int | None, limit: int) -> Sequence[tuple[int, LogEntry]]:
        """Up to `limit` rows of its operation log with their ids, newest first, those with ids below `before`."""
        ...


class OperationQueue(Protocol):
    """Operations from acceptance to end; at most one per game is claimed at a time."""

    def submit(self, request: Request, *, last_op_at: datetime | None = None) -> int:
        """Accept a call; returns the operation's id. Raises `GameBusy`, also if the record has another `last_op_at`."""
        ...

    def require_room(self, request: Request) -> None:
        """Raise `StoreRejected` unless a call like this would be taken for another game; changes nothing."""
        ...

    def claim(
        self, limit: int, kinds: Collection[OpKind] = QUEUED, *, images: Collection[str] | None = None
    ) -> Sequence[Operation]:
        """Up to `limit` due operations of these kinds, each the first of its game; every game gets its turn.

        With `images`, only those that ask for one of these by its reference; that may take long, and is nobody's turn.
        """
        ...

    def heartbeat(self, claimed: Sequence[Operation], *, skip_locked: bool = False) -> set[int]:
        """Keep claims alive; returns the ids of those that are still this claim's.

        With `skip_locked`, one that somebody else has locked is not waited for: it is not renewed, and is among the ids
        though it may be about to be lost. Without, all wait for it.
        """
        ...

    def reclaim_orphans(self, live: Collection[int] = (), *, by_presence: bool = True) -> Sequence[OrphanedClaim]:
        """Make due again what is claimed and worked on by nobody; returns what that was.

        That is: what was silent for a lease; what is our own and not in `live` (ids of operations); and, with
        `by_presence`, what belongs to an instance whose presence has ended.
        """
        ...

    def defer(
        self, operation: Operation, *, delay_s: float, why: str, answer: str = "", by_defect: bool = False
    ) -> None:
        """Give a claim back, due again after `delay_s`.

        `answer` is the temporary answer that it met. The store keeps for how long it has met such answers, whichever
        they are. Time without an answer does not count, but for the first try without one after an answer.
        `by_defect` counts one more try that ended by a defect.
        """
        ...

    def claim_name(self, operation: Operation) -> Namesake | None:
        """Claim the game's name, but for the case, until the operation has ended; the game that has it already.

        For a start of a game that has no record, or a removed one. Raises `ClaimLost`.
        """
        ...

    def finish(self, operation: Operation, completion: Completion) -> None:
        """Write the end, in one transaction. Raises `ClaimLost`, `RecordConflict` or `StoreRejected`."""
        ...

    def finish_together(self, endings: Sequence[tuple[Operation, Completion]]) -> set[int]:
        """Write the ends of those for which `finish` would not raise, in one transaction; their ids.

        Raises `StoreRejected` when one of them will never be taken; then none is written.
        """
        ...

    def hand_back(self) -> Sequence[int]:
        """Make due again all that this instance still holds; returns the ids."""
        ...

    def verdict(self, operation_id: int, source_ref: str | None = None) -> OperationResult | None:
        """How an operation ended, which came from `source_ref` if given; None while it has not.

        Raises `UnknownOperation`.
        """
        ...


class SessionLock(Protocol):
    """A sign of life that ends with the process. Raises `Unavailable`."""

    def show(self) -> float:
        """Make sure that it is there; for how many seconds it has been without a break."""
        ...
