"""Writes the end of operations in one step: record, log, snapshot, last exit, messages.

One statement writes all ends of a batch, as JSON, in a transaction of its own. Two dozen ends cost as much as a few,
and one end takes a single round trip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.queries import SQL, dropped, values_of, write_kept
from rtmanager.domain.findings import RestartCause
from rtmanager.domain.health import HealthEvent
from rtmanager.domain.messages import Message, health_message
from rtmanager.domain.operation import Completion, LogEntry, Operation
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
    ended = _write(database, [(operation, completion)])
    if operation.operation_id not in ended:
        raise ClaimLost(f"operation {operation.operation_id} was taken over by another claim")
    if not ended[operation.operation_id]:
        if completion.change is not None and _still_there(database, operation.game_id, completion.change.seen):
            raise dropped(f"runtime_records: 0 of 1, of game {operation.game_id}")
        raise RecordConflict(f"the record of game {operation.game_id} changed while it was worked on")


def _still_there(database: Database, game_id: str, seen: RuntimeRecord | None) -> bool:
    """Return whether the record is the one that the end was decided on, by the fields that the write compares."""
    rows = database.read("record", SQL["get_record"], {"game_id": game_id})
    found = [(row["status"], row["current_container_id"]) for row in rows]
    return found == ([(seen.status, seen.current_container_id)] if seen else [])


def write_endings(database: Database, endings: Sequence[Ended]) -> set[int]:
    """End the claimed operations for which `write_ending` would not raise; returns their ids.

    Raises `StoreRejected` when PostgreSQL will never accept one of them. Nothing is written then.
    """
    return {operation_id for operation_id, ended in _write(database, endings).items() if ended}


def _write(database: Database, endings: Sequence[Ended]) -> Mapping[int, bool]:
    """Return, by id of the operations still claimed, whether it has ended; False means a record conflict."""
    ids = [operation.operation_id for operation, _ in endings]
    values = {"rows": as_json([_end(*each) for each in endings]), "ids": ids, "outage": RestartCause.OUTAGE}
    try:
        return {row["id"]: row["ended"] for row in database.write("finish", SQL["end_operations"], values)}
    except StoreRejected as error:
        which = ", ".join(map(str, ids))
        raise StoreRejected(f"operation {which} cannot be ended: {error}", sqlstate=error.sqlstate) from error


def _end(operation: Operation, completion: Completion) -> Mapping[str, object]:
    seen, record = (completion.change.seen, completion.change.new) if completion.change else (completion.rests_on, None)
    messages = [*(health_message(event) for event in completion.health if event.published), *completion.messages]
    following = next_try(operation.request, completion)
    return {
        "id": operation.operation_id,
        "generation": operation.generation,
        "game_id": operation.game_id,
        "source_ref": operation.request.source_ref,
        "outcome": completion.outcome,
        "error_code": completion.error_code,
        "error_message": completion.error_message,
        "seen": seen and values_of(seen),
        "record": record and values_of(record),
        "snapshot": _snapshot(completion.health[-1]) if completion.health else None,
        "log": [values_of(entry) for entry in completion.log],
        "messages": [_message(message) for message in messages],
        "last_exit": completion.last_exit and {"game_id": operation.game_id, **values_of(completion.last_exit)},
        "keeps_plan": keeps_plan(operation.request, completion),
        "next_try": following and values_of(following),
    }


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Encode rows for a statement with json_to_recordset; moments take their ISO form."""
    return json.dumps(rows, default=str)


def write_log(connection: Connection, entries: Sequence[LogEntry]) -> None:
    """Add rows to the operation log."""
    if entries:
        rows = as_json([values_of(entry) for entry in entries])
        write_kept(connection, "operation_log", "insert_log_entries", {"rows": rows}, len(entries))


def write_event(connection: Connection, event: HealthEvent) -> None:
    """Write an event's snapshot, and queue its message when the event is to be published."""
    _write_snapshot(connection, event)
    if event.published:
        add_messages(connection, [health_message(event)])


def _write_snapshot(connection: Connection, event: HealthEvent) -> None:
    snapshot = _snapshot(event)
    values = {**snapshot, "details": json.dumps(snapshot["details"])}
    write_kept(connection, "health_snapshots", "upsert_snapshot", values)


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
