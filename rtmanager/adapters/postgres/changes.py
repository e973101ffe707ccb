"""Writes what an end or a finding changes in one statement: record, log, snapshot, last exit, messages, plan.

The ends of a batch are one statement and one transaction, as JSON. Two dozen ends cost as much as a few, and one end
takes a single round trip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.queries import SQL, dropped, values_of, write_kept
from rtmanager.domain.findings import AlarmKind, Finding, RestartCause
from rtmanager.domain.health import HealthEvent
from rtmanager.domain.messages import Message, health_message
from rtmanager.domain.operation import Changes, Completion, Operation
from rtmanager.domain.record import RuntimeRecord
from rtmanager.domain.restarts import keeps_plan, next_try
from rtmanager.ports.store import ClaimLost, RecordConflict, StoreRejected

#: An operation and its completion.
Ended = tuple[Operation, Completion]


def write_ending(database: Database, operation: Operation, completion: Completion) -> None:
    """End a claimed operation.

    Raises `ClaimLost` when another claim has it, `RecordConflict` when the record is not the one that the completion
    was decided on, and `StoreRejected` for what PostgreSQL will never accept. Nothing is written then.
    """
    written = _write_endings(database, [(operation, completion)])
    if operation.operation_id not in written:
        raise ClaimLost(f"operation {operation.operation_id} was taken over by another claim")
    if not written[operation.operation_id]:
        if completion.new is not None:
            rows = database.read("record", SQL["get_record"], {"game_id": operation.game_id})
            _require_changed(rows, operation.game_id, completion.seen)
        raise RecordConflict(f"the record of game {operation.game_id} changed while it was worked on")


def write_endings(database: Database, endings: Sequence[Ended]) -> set[int]:
    """End the claimed operations for which `write_ending` would not raise; returns their ids.

    Raises `StoreRejected` when PostgreSQL will never accept one of them. Nothing is written then.
    """
    return {operation_id for operation_id, written in _write_endings(database, endings).items() if written}


def _write_endings(database: Database, endings: Sequence[Ended]) -> Mapping[int, bool]:
    """Return, by id of the operations still claimed, whether it has ended; False means a record conflict."""
    ids = [operation.operation_id for operation, _ in endings]
    values = {"rows": as_json([_end(*each) for each in endings]), "ids": ids}
    try:
        return {row["id"]: row["written"] for row in database.write("finish", SQL["end_operations"], values)}
    except StoreRejected as error:
        which = ", ".join(map(str, ids))
        raise StoreRejected(f"operation {which} cannot be ended: {error}", sqlstate=error.sqlstate) from error


def write_finding(connection: Connection, finding: Finding) -> bool:
    """Write a finding; False when the record is not the one that it was decided on. Raises `StoreRejected`."""
    [row] = connection.execute(SQL["write_finding"], {"rows": as_json([_finding(finding)])}).fetchall()
    if not row["written"] and finding.new is not None:
        rows = connection.execute(SQL["get_record"], {"game_id": finding.game_id}).fetchall()
        _require_changed(rows, finding.game_id, finding.seen)
    return bool(row["written"])


def _require_changed(rows: Sequence[Mapping[str, Any]], game_id: str, seen: RuntimeRecord | None) -> None:
    """Raise `StoreRejected` if the record is the one that was decided on, by the fields that the write compares."""
    if [(row["status"], row["current_container_id"]) for row in rows] == (
        [(seen.status, seen.current_container_id)] if seen else []
    ):
        raise dropped(f"runtime_records: 0 of 1, of game {game_id}")


def _end(operation: Operation, completion: Completion) -> Mapping[str, object]:
    following = next_try(operation.request, completion)
    return _row(operation.game_id, completion) | {
        "id": operation.operation_id,
        "generation": operation.generation,
        "source_ref": operation.request.source_ref,
        "outcome": completion.outcome,
        "error_code": completion.error_code,
        "error_message": completion.error_message,
        "keeps_plan": keeps_plan(operation.request, completion),
        "plan": following and {**values_of(following), "cause": RestartCause.OUTAGE},
    }


def _finding(finding: Finding) -> Mapping[str, object]:
    plan = None
    if finding.restart_at is not None and finding.seen is not None:
        container_id = finding.seen.current_container_id
        plan = {
            "container_id": container_id,
            "due_at": finding.restart_at,
            "cause": finding.restart_cause,
            "tries": 0,
        }
    # A record change without a restart, or a good probe, cancels an earlier plan.
    cancels = finding.new is not None or finding.calms is AlarmKind.PROBE
    return _row(finding.game_id, finding) | {"keeps_plan": not cancels, "plan": plan}


def _row(game_id: str, changes: Changes) -> dict[str, object]:
    messages = [*(health_message(event) for event in changes.health if event.published), *changes.messages]
    return {
        "game_id": game_id,
        "seen": changes.seen and values_of(changes.seen),
        "record": changes.new and values_of(changes.new),
        "snapshot": _snapshot(changes.health[-1]) if changes.health else None,
        "log": [values_of(entry) for entry in changes.log],
        "messages": [_message(message) for message in messages],
        "last_exit": changes.last_exit and {"game_id": game_id, **values_of(changes.last_exit)},
    }


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Encode rows for a statement with json_to_recordset; moments take their ISO form."""
    return json.dumps(rows, default=str)


def _snapshot(event: HealthEvent) -> Mapping[str, object]:
    return {
        "game_id": event.game_id,
        "container_id": event.container_id,
        "status": event.status,
        "source": event.source,
        "details": dict(event.details),
        "observed_at": event.occurred_at,
    }


def add_messages(connection: Connection, messages: Sequence[Message]) -> None:
    """Add messages to the outbox; the relay publishes them after the commit."""
    if messages:
        rows = as_json([_message(message) for message in messages])
        write_kept(connection, "outbox", "add_messages", {"rows": rows}, len(messages))


def _message(message: Message) -> Mapping[str, object]:
    return {"stream": message.stream, "fields": dict(message.fields)}
