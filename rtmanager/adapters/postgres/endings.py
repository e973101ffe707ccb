"""The end of an operation in one transaction: record, log, snapshot, messages. All of it, or nothing."""

from __future__ import annotations

import json
from dataclasses import asdict

import psycopg

from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.queries import SQL
from rtmanager.adapters.postgres.records import write_change
from rtmanager.domain.health import HealthEvent
from rtmanager.domain.messages import Message, health_message
from rtmanager.domain.operation import Ending, LogEntry, Operation
from rtmanager.operations.store import OwnershipLost, RecordChanged, StoreRefused


def write_ending(database: Database, operation: Operation, ending: Ending) -> None:
    """End a claimed operation.

    Raises `OwnershipLost` when another claim has it, `RecordChanged` when the record is not what the ending
    was decided on, `StoreRefused` for what PostgreSQL will never take; then nothing is written.
    """
    try:
        _write(database, operation, ending)
    except psycopg.Error as error:
        raise StoreRefused(f"PostgreSQL refuses the end of operation {operation.operation_id}: {error}") from error


def _write(database: Database, operation: Operation, ending: Ending) -> None:
    with database.transaction("finish") as connection:
        ended = connection.execute(
            SQL["end_operation"],
            {
                "id": operation.operation_id,
                "generation": operation.generation,
                "game_id": operation.game_id,
                "source_ref": operation.request.source_ref,
                "outcome": ending.outcome,
                "error_code": ending.error_code,
                "error_message": ending.error_message,
            },
        )
        if ended.rowcount != 1:
            raise OwnershipLost(f"operation {operation.operation_id} was taken over by another claim")
        if ending.change is not None and not write_change(connection, ending.change):
            raise RecordChanged(f"the record of game {operation.game_id} changed while it was worked on")
        for entry in ending.log:
            write_log(connection, entry)
        for event in ending.health:
            write_event(connection, event)
        for message in ending.messages:
            add_message(connection, message)
        drop_planned_restart(connection, operation.game_id)


def write_log(connection: Connection, entry: LogEntry) -> None:
    """Add a row to the operation log."""
    connection.execute(SQL["insert_log_entry"], asdict(entry))


def drop_planned_restart(connection: Connection, game_id: str) -> None:
    """The game is not started again after its crash; last in a transaction, since a plan is written last, too."""
    connection.execute(SQL["drop_planned_restart"], {"game_id": game_id})


def write_event(connection: Connection, event: HealthEvent) -> None:
    """Write the snapshot that an event leaves, and tell the neighbours if they are to hear of it."""
    _write_snapshot(connection, event)
    if event.told:
        add_message(connection, health_message(event))


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


def add_message(connection: Connection, message: Message) -> None:
    """Put a message into the outbox; it leaves when the transaction is committed."""
    connection.execute(
        SQL["add_message"],
        {"stream": message.stream, "fields": json.dumps(dict(message.fields), ensure_ascii=False)},
    )
