"""The end of operations in one transaction: records, log, snapshots, messages. All of it, or nothing.

Rows of one table go there by one statement, as JSON: a hundred endings cost what a few do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import psycopg

from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.queries import SQL
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
    if not write_endings(database, [(operation, ending)]):
        raise OwnershipLost(f"operation {operation.operation_id} was taken over by another claim")


def write_endings(database: Database, endings: Sequence[Ended]) -> set[int]:
    """End those of these claimed operations that no other claim has; their ids. Raises as `write_ending`."""
    try:
        with database.transaction("finish") as connection:
            rows = connection.execute(SQL["end_operations"], {"rows": as_json([_end(*each) for each in endings])})
            ended = {row["id"] for row in rows}
            ours = [each for each in endings if each[0].operation_id in ended]
            for operation, ending in ours:
                _write_game(connection, operation.game_id, ending)
            write_log(connection, [entry for _, ending in ours for entry in ending.log])
            add_messages(connection, [message for _, ending in ours for message in ending.messages])
            drop_planned_restarts(connection, [operation.game_id for operation, _ in ours])
    except psycopg.Error as error:
        ids = ", ".join(str(operation.operation_id) for operation, _ in endings)
        raise StoreRefused(f"PostgreSQL refuses the end of operation {ids}: {error}") from error
    return ended


def _write_game(connection: Connection, game_id: str, ending: Ending) -> None:
    """What is true of the game from now on."""
    if ending.change is not None and not write_change(connection, ending.change):
        raise RecordChanged(f"the record of game {game_id} changed while it was worked on")
    for event in ending.health:
        write_event(connection, event)


def _end(operation: Operation, ending: Ending) -> Mapping[str, object]:
    return {
        "id": operation.operation_id,
        "generation": operation.generation,
        "game_id": operation.game_id,
        "source_ref": operation.request.source_ref,
        "outcome": ending.outcome,
        "error_code": ending.error_code,
        "error_message": ending.error_message,
    }


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows for a statement that reads them by json_to_recordset; moments become their ISO form."""
    return json.dumps(rows, default=str)


def write_log(connection: Connection, entries: Sequence[LogEntry]) -> None:
    """Add rows to the operation log."""
    if entries:
        connection.execute(SQL["insert_log_entries"], {"rows": as_json([asdict(entry) for entry in entries])})


def drop_planned_restarts(connection: Connection, game_ids: Sequence[str]) -> None:
    """These games are not started again after a crash; last in a transaction, since a plan is written last, too."""
    connection.execute(SQL["drop_planned_restarts"], {"game_ids": game_ids})


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
        rows = [{"stream": message.stream, "fields": dict(message.fields)} for message in messages]
        connection.execute(SQL["add_messages"], {"rows": as_json(rows)})
