"""The end of operations in one transaction: records, log, snapshots, messages. All of it, or nothing.

Whatever ends together goes there by one statement, as JSON: two dozen endings cost what a few do. Where a record
changes it does so before, since findings, too, write the record first and what follows from it later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.queries import SQL, values_of
from rtmanager.adapters.postgres.records import write_change
from rtmanager.domain.health import HealthEvent
from rtmanager.domain.messages import Message, health_message
from rtmanager.domain.operation import Ending, LogEntry, Operation
from rtmanager.operations.store import OwnershipLost, RecordChanged, StoreRefused

#: An operation and its end.
Ended = tuple[Operation, Ending]


def write_ending(database: Database, operation: Operation, ending: Ending) -> None:
    """End a claimed operation.

    Raises `OwnershipLost` when another claim has it, `RecordChanged` when the record is not what the ending
    was decided on, `StoreRefused` for what PostgreSQL will never take; then nothing is written.
    """
    _check(operation, ours=bool(write_endings(database, [(operation, ending)])), as_decided=True)


def write_endings(database: Database, endings: Sequence[Ended]) -> set[int]:
    """End those of these claimed operations that no other claim has; their ids. Raises as `write_ending`.

    Of those that change what is true of their games all have to be ours, or nothing is written.
    """
    ids = [operation.operation_id for operation, _ in endings]
    values = {"rows": as_json([_end(*each) for each in endings]), "ids": ids}
    changing = [each for each in endings if each[1].change is not None or each[1].health]
    try:
        if not changing:
            return {row["id"] for row in database.write("finish", SQL["end_operations"], values)}
        with database.transaction("finish") as connection:
            changed = [_write_game(connection, ending) for _, ending in changing]
            ended = {row["id"] for row in connection.execute(SQL["end_operations"], values)}
            for (operation, _), as_decided in zip(changing, changed, strict=True):
                _check(operation, ours=operation.operation_id in ended, as_decided=as_decided)
    except psycopg.Error as error:
        raise StoreRefused(f"PostgreSQL refuses the end of operation {', '.join(map(str, ids))}: {error}") from error
    return ended


def _write_game(connection: Connection, ending: Ending) -> bool:
    """Write what is true of the game from now on; whether its record was what the ending was decided on."""
    as_decided = ending.change is None or write_change(connection, ending.change)
    for event in ending.health:
        write_event(connection, event)
    return as_decided


def _check(operation: Operation, *, ours: bool, as_decided: bool) -> None:
    if not ours:
        raise OwnershipLost(f"operation {operation.operation_id} was taken over by another claim")
    if not as_decided:
        raise RecordChanged(f"the record of game {operation.game_id} changed while it was worked on")


def _end(operation: Operation, ending: Ending) -> Mapping[str, object]:
    return {
        "id": operation.operation_id,
        "generation": operation.generation,
        "game_id": operation.game_id,
        "source_ref": operation.request.source_ref,
        "outcome": ending.outcome,
        "error_code": ending.error_code,
        "error_message": ending.error_message,
        "log": [values_of(entry) for entry in ending.log],
        "messages": [_message(message) for message in ending.messages],
    }


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows for a statement that reads them by json_to_recordset; moments become their ISO form."""
    return json.dumps(rows, default=str)


def write_log(connection: Connection, entries: Sequence[LogEntry]) -> None:
    """Add rows to the operation log."""
    if entries:
        connection.execute(SQL["insert_log_entries"], {"rows": as_json([values_of(entry) for entry in entries])})


def write_event(connection: Connection, event: HealthEvent) -> None:
    """Write the snapshot that an event leaves, and tell the neighbours if they are to hear of it."""
    _write_snapshot(connection, event)
    if event.told:
        add_messages(connection, [health_message(event)])


def _write_snapshot(connection: Connection, event: HealthEvent) -> None:
    connection.execute(
        SQL["upsert_snapshot"],
        {
            "game_id": event.game_id,
            "container_id": event.container_id,
            "status": event.status,
            "source": event.source,
            "details": json.dumps(event.details),
            "observed_at": event.occurred_at,
        },
    )


def add_messages(connection: Connection, messages: Sequence[Message]) -> None:
    """Put messages into the outbox; they leave when the transaction is committed."""
    if messages:
        connection.execute(SQL["add_messages"], {"rows": as_json([_message(message) for message in messages])})


def _message(message: Message) -> Mapping[str, object]:
    return {"stream": message.stream, "fields": dict(message.fields)}
