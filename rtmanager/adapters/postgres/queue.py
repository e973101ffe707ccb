"""The durable queue of operations: accepted, claimed, kept alive by heartbeats, ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from rtmanager.adapters.postgres.changes import write_ending, write_endings
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.queries import SQL, dropped, require_kept
from rtmanager.adapters.postgres.session_lock import NAMES_CLASS, PRESENCE_CLASS
from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.operation import KINDS, QUEUED, Completion, Operation, OpKind, OpSource, Outcome, Request
from rtmanager.domain.record import Status
from rtmanager.ports.store import (
    LONGEST_DELAY_S,
    PROBE,
    ClaimLost,
    GameBusy,
    Namesake,
    OperationResult,
    OrphanedClaim,
    StoreRejected,
    UnknownOperation,
)

#: Seconds after the last heartbeat until an operation of an instance without a session is reclaimed. After a restart of
#: PostgreSQL, every instance needs a moment to take its session lock again.
ORPHAN_GRACE_S = 3.0
UNIQUE_VIOLATION = "23505"
#: Factor for the number of due operations that are claimed one by one when PostgreSQL rejects the common claim.
ONE_BY_ONE = 4
#: Tries to submit a call while the game's other operation ends in between.
SUBMIT_TRIES = 3
#: Tries to claim a name while its holder releases it in between.
CLAIM_NAME_TRIES = 3
#: Characters kept of the reason for a deferral.
LONGEST_WHY = 2000


class PostgresQueue:
    """The operations of every instance that shares the database; `owner` is this instance's number.

    Every method raises `Unavailable` while PostgreSQL does not answer. `refused` is called with the call's name for
    each operation that PostgreSQL rejects while it accepts the others.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: int,
        lease_s: float,
        refused: Callable[[str, StoreRejected], object] = lambda *_: None,
    ) -> None:
        self._database = database
        self._owner = owner
        self._lease_s = lease_s
        self._last_claimed = ""
        self._count_refusal = refused
        #: The rejection of the last claim and of the last reclaim, by the call's name.
        self.refused: dict[str, StoreRejected] = {}

    def submit(self, request: Request, *, last_op_at: datetime | None = None) -> int:
        """Accept a call; returns the operation's id. Raises `GameBusy`; see the port."""
        values = _request_values(request) | {"last_op_at": last_op_at}
        statement = "submit_call" if last_op_at is None else "submit_unless_changed"
        for _ in range(SUBMIT_TRIES):
            rows = self._database.write("submit", SQL[statement], values)
            if rows:
                return int(rows[0]["id"])
            if (
                last_op_at is not None
                and self._database.read("live_operation", SQL["is_changed"], values)[0]["changed"]
            ):
                raise GameBusy(f"something was done about game {request.game_id} meanwhile")
            live = self._database.read("live_operation", SQL["live_operation"], {"game_id": request.game_id})
            if live:
                raise GameBusy(_describe(request.game_id, live[0]))
        # Each time the obstacle ended between two statements, or there was none.
        raise dropped(f"operations: 0 of 1, of game {request.game_id}")

    def require_room(self, request: Request) -> None:
        """See the port."""
        values = _request_values(request) | {"game_id": PROBE}
        refusal = self._refusal_of(values)
        if refusal is not None:
            # A constraint on names accepts the game of an accepted operation.
            latest = self._database.read("live_operation", SQL["latest_idle_game"], {})
            if not latest or self._refusal_of(values | latest[0]):
                raise refusal
        with suppress(UnknownOperation):
            self.verdict(-1)

    def _refusal_of(self, values: Mapping[str, Any]) -> StoreRejected | None:
        try:
            with self._database.transaction("submit") as connection, connection.transaction(force_rollback=True):
                require_kept("operations", connection.execute(SQL["submit_call"], values).rowcount, 1)
                connection.execute(SQL["check_now"])
        except StoreRejected as error:
            return error
        return None

    def claim(
        self, limit: int, kinds: Collection[OpKind] = QUEUED, *, images: Collection[str] | None = None
    ) -> Sequence[Operation]:
        """Claim up to `limit` due operations of these kinds, each the first of its game; see the port.

        Round robin over the games: a claim continues after the last claimed game. Used by one thread.
        """
        values = {
            "owner": self._owner,
            "kinds": list(kinds),
            "limit": limit,
            "after": self._last_claimed,
            "longest_delay_s": LONGEST_DELAY_S,
            "images": None if images is None else list(images),
        }
        try:
            rows = self._database.write("claim", SQL["claim_due"], values)
            self.refused.pop("claim", None)
        except StoreRejected as error:
            # Two instances claimed a call and a job of one game that were accepted at the same moment. The unique index
            # let one through; the next claim finds the other waiting.
            rows = [] if error.sqlstate == UNIQUE_VIOLATION else self._claim_one_by_one(values)
        if rows and images is None:
            games = [row["game_id"] for row in rows]
            begun_again = [game_id for game_id in games if game_id <= self._last_claimed]
            self._last_claimed = max(begun_again or games)
        return [_operation(row) for row in rows]

    def _claim_one_by_one(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Claim what PostgreSQL accepts: a rule added from outside may reject one of the operations."""
        rows: list[dict[str, Any]] = []
        heads = self._database.read("claim", SQL["due_heads"], {**values, "limit": values["limit"] * ONE_BY_ONE})
        for head in heads:
            try:
                rows += self._database.write("claim", SQL["claim_one"], {"owner": self._owner, "id": head["id"]})
            except StoreRejected as error:
                if error.sqlstate != UNIQUE_VIOLATION:
                    self._refuse("claim", head["id"], error)
            if len(rows) == values["limit"]:
                break
        return rows

    def heartbeat(self, claimed: Sequence[Operation], *, skip_locked: bool = False) -> set[int]:
        """Renew the heartbeats of claimed operations; returns the ids still claimed by this instance. See the port."""
        statement = SQL["heartbeat_of_unlocked" if skip_locked else "heartbeat"]
        values = {
            "ids": [operation.operation_id for operation in claimed],
            "generations": [operation.generation for operation in claimed],
            "games": [operation.game_id for operation in claimed],
            "refs": [operation.request.source_ref for operation in claimed],
        }
        try:
            return {row["id"] for row in self._database.write("heartbeat", statement, values)}
        except StoreRejected:
            if len(claimed) == 1:
                raise
        # One rejected operation must not cost the others their claims.
        alive: set[int] = set()
        refusals: list[StoreRejected] = []
        for operation in claimed:
            try:
                alive |= self.heartbeat([operation], skip_locked=skip_locked)
            except StoreRejected as error:
                refusals.append(error)
        if len(refusals) == len(claimed) and refusals:  # it is not about one operation
            raise refusals[0]
        for refusal in refusals:
            self._count_refusal("heartbeat", refusal)
        return alive

    def reclaim_orphans(self, live: Collection[int] = (), *, by_presence: bool = True) -> Sequence[OrphanedClaim]:
        """Make claimed operations due again that no instance works on; `live` are those of this instance."""
        values = {
            "lease_s": self._lease_s,
            "grace_s": ORPHAN_GRACE_S,
            "presence_class": PRESENCE_CLASS,
            "owner": self._owner,
            "live": list(live),
            "by_presence": by_presence,
        }
        try:
            rows = self._database.write("reclaim_orphans", SQL["reclaim_orphans"], values | {"only": None})
            self.refused.pop("reclaim", None)
        except StoreRejected:
            rows = self._reclaim_one_by_one(values)
        return [OrphanedClaim(row["id"], row["game_id"], OpKind(row["kind"]), row["ours"]) for row in rows]

    def _reclaim_one_by_one(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Reclaim what PostgreSQL accepts. Raises `StoreRejected` when it rejects each, so that no row is the cause."""
        rows: list[dict[str, Any]] = []
        running = self._database.read("reclaim_orphans", SQL["running_ids"], {})
        refusals: dict[int, StoreRejected] = {}
        for each in running:
            try:
                only = {**values, "only": each["id"]}
                rows += self._database.write("reclaim_orphans", SQL["reclaim_orphans"], only)
            except StoreRejected as error:  # retried with the next pass
                refusals[each["id"]] = error
        if refusals and len(refusals) == len(running):
            raise next(iter(refusals.values()))
        if not refusals:
            self.refused.pop("reclaim", None)
        for operation_id, refusal in refusals.items():
            self._refuse("reclaim", operation_id, refusal)
        return rows

    def _refuse(self, call: str, operation_id: int, error: StoreRejected) -> None:
        refused = StoreRejected(f"operation {operation_id} cannot be {call}ed: {error}", sqlstate=error.sqlstate)
        self.refused[call] = refused
        self._count_refusal(call, refused)

    def defer(
        self, operation: Operation, *, delay_s: float, why: str, answer: str = "", by_defect: bool = False
    ) -> None:
        """See the port. Does nothing when the claim is lost."""
        values = _claim_values(operation) | {
            "delay_s": delay_s,
            "why": _storable(why),
            "answer": answer,
            "defects": int(by_defect),
        }
        self._database.write("defer", SQL["defer_operation"], values)

    def park(self, operation: Operation, *, why: str) -> None:
        """See the port. Does nothing when the claim is lost."""
        self._database.write("park", SQL["park_operation"], _claim_values(operation) | {"why": _storable(why)})

    def claim_name(self, operation: Operation) -> Namesake | None:
        """See the port."""
        values = _claim_values(operation) | {"names_class": NAMES_CLASS}
        for _ in range(CLAIM_NAME_TRIES):
            is_claimed = self._claim_name(values)
            # A separate statement, which sees what the previous holder of the name committed.
            for row in self._database.read("name_holder", SQL["name_holder"], values):
                return Namesake(row["game_id"], row["status"] and Status(row["status"]))
            if is_claimed:
                return None
        raise Unavailable("postgres", f"the name of game {operation.game_id} changes hands all the time")

    def _claim_name(self, values: Mapping[str, Any]) -> bool:
        """Claim the name; False while another operation claims it. Raises `ClaimLost`."""
        try:
            rows = self._database.write("claim_name", SQL["claim_name"], values)
        except StoreRejected as error:
            if error.sqlstate != UNIQUE_VIOLATION:
                raise
            return False
        if not rows:
            raise ClaimLost(f"operation {values['id']} was taken over by another claim")
        return True

    def note_end(self, operation: Operation, container_id: str | None) -> str | None:
        """See the port."""
        values = {
            "id": operation.operation_id,
            "generation": operation.generation,
            "game_id": operation.game_id,
            "source_ref": operation.request.source_ref,
            "container_id": container_id,
        }
        rows = self._database.write("note_end", SQL["note_end"], values)
        if not rows:
            raise ClaimLost(f"operation {operation.operation_id} was taken over by another claim")
        return _text_or_none(rows[0]["ends_container"])

    def noted_end(self, operation: Operation) -> str | None:
        """See the port."""
        values = {
            "id": operation.operation_id,
            "game_id": operation.game_id,
            "source_ref": operation.request.source_ref,
        }
        rows = self._database.read("noted_end", SQL["noted_end"], values)
        return _text_or_none(rows[0]["ends_container"]) if rows else None

    def finish(self, operation: Operation, completion: Completion) -> None:
        """Write the end of an operation; see `write_ending`."""
        write_ending(self._database, operation, completion)

    def finish_together(self, endings: Sequence[tuple[Operation, Completion]]) -> set[int]:
        """See `write_endings`."""
        return write_endings(self._database, endings)

    def hand_back(self) -> Sequence[int]:
        """Make all operations due again that this instance still holds; returns their ids."""
        return [row["id"] for row in self._database.write("hand_back", SQL["hand_back"], {"owner": self._owner})]

    def verdict(self, operation_id: int, source_ref: str | None = None) -> OperationResult | None:
        """Return an operation's result; None while it has not ended. Raises `UnknownOperation`."""
        rows = self._database.read("verdict", SQL["get_outcome"], {"id": operation_id})
        row = rows[0] if rows else None
        if row is None or source_ref not in (None, row["source_ref"]):
            raise UnknownOperation(
                "postgres", f"postgres was set back and knows nothing of operation {operation_id} any more"
            )
        if row["state"] != "done":
            return None
        code = ErrorCode(row["error_code"]) if row["error_code"] else None
        return OperationResult(Outcome(row["outcome"]), code, row["error_message"] or "")


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def _claim_values(operation: Operation) -> dict[str, Any]:
    """Return what identifies a claim: a database that was set back may reuse an id for another operation."""
    return {
        "id": operation.operation_id,
        "generation": operation.generation,
        "game_id": operation.game_id,
        "source_ref": operation.request.source_ref,
    }


def _storable(why: str) -> str:
    return why[:LONGEST_WHY].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _request_values(request: Request) -> dict[str, Any]:
    return {
        "game_id": request.game_id,
        "kind": request.kind,
        "source": request.source,
        "source_ref": request.source_ref,
        "image_ref": request.image_ref,
        "reason": request.reason,
        "caller": request.caller,
    }


def job_values(request: Request) -> dict[str, Any]:
    """Return a row for `accept_jobs`, without the columns of its entry."""
    code, message = request.problem or (None, None)
    return _request_values(request) | {"problem_code": code, "problem_message": message}


def _operation(row: Mapping[str, Any]) -> Operation:
    """Decode a claimed row; an unreadable one becomes an operation with a problem, rejected like a bad job."""
    try:
        return _readable(row)
    except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
        by_stream = row["stream"] is not None
        request = Request(
            game_id=str(row["game_id"]),
            kind=OpKind(row["kind"]) if row["kind"] in KINDS else OpKind.START,
            source=OpSource.LOBBY_STREAM if by_stream else OpSource.AUTO_RECONCILE,
            source_ref=str(row["source_ref"]),
            problem=(ErrorCode.INTERNAL_ERROR, f"its row in the table of operations cannot be read: {error}"),
        )
        return Operation(row["id"], request, row["generation"], datetime.fromtimestamp(0, UTC))


def _readable(row: Mapping[str, Any]) -> Operation:
    problem = (ErrorCode(row["problem_code"]), row["problem_message"]) if row["problem_code"] else None
    request = Request(
        game_id=row["game_id"],
        kind=OpKind(row["kind"]),
        source=OpSource(row["source"]),
        source_ref=row["source_ref"],
        image_ref=row["image_ref"],
        reason=row["reason"],
        problem=problem,
        caller=row["caller"] or "",
    )
    return Operation(
        row["id"],
        request,
        row["generation"],
        datetime.fromtimestamp(row["accepted_s"], UTC),
        row["deferrals"],
        answer=row["answer"] or "",
        answer_s=row["answer_s"],
        defects=row["defects"],
    )


def _describe(game_id: str, live: Mapping[str, Any]) -> str:
    waits = f", waiting because {live['deferred_why']}" if live["deferred_why"] else ""
    return (
        f"game {game_id} is busy with {live['kind']} (operation {live['id']} from {live['source']}, accepted "
        f"{live['accepted_at']:%Y-%m-%dT%H:%M:%SZ}{waits}); try again when it has ended"
    )
