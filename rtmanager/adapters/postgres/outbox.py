"""The outbox: committed messages that Redis does not have yet.

One instance publishes at a time, under a lease. Each lease has a number that only grows, and Redis rejects messages of
an older lease. So a frozen publisher that resumes adds nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rtmanager.adapters.postgres.changes import add_messages, as_json
from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.inbox import holder_of
from rtmanager.adapters.postgres.queries import SQL, require_kept, write_kept
from rtmanager.domain.messages import Message, Stream, intents_summary
from rtmanager.ports.store import StoreRejected
from rtmanager.ports.streams import DueMessage, IntentCount, LeaseHolder

#: A message with more bytes of JSON has its texts cut to `LONGEST_TEXT` characters. Messages of this release are
#: smaller.
LARGEST_MESSAGE_BYTES = 1024 * 1024
LONGEST_TEXT = 64 * 1024
#: Reads per lease to get past rows that cannot be read.
UNREADABLE_ROUNDS = 20


class PostgresRelayLease:
    """The right to publish, valid until its transaction ends."""

    def __init__(self, database: Database, connection: Connection, number: int, *, summary_due: bool) -> None:
        self._database = database
        self._connection = connection
        self.number = number
        self.summary_due = summary_due
        self.unreadable: dict[int, str] = {}

    def due(self, limit: int, size: int) -> Sequence[DueMessage]:
        """See `RelayLease.due`."""
        for _ in range(UNREADABLE_ROUNDS):
            values = {
                "limit": limit,
                "size": size,
                "streams": list(Stream),
                "largest": LARGEST_MESSAGE_BYTES,
                "skip": list(self.unreadable),
            }
            with self._database.watched():
                rows = self._connection.execute(SQL["due_messages"], values).fetchall()
            read = [(row["id"], row["stream"], self._fields_of(row)) for row in rows]
            unreadable = {message_id: stream for message_id, stream, fields in read if not fields}
            self.unreadable |= unreadable
            if not unreadable:
                break  # else the rows behind the unreadable ones are missing
        return [
            DueMessage(message_id, Message(Stream(stream), fields)) for message_id, stream, fields in read if fields
        ]

    def _fields_of(self, row: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the fields of a due message; empty when they cannot be read."""
        text = row["fields"]
        if text is None:
            try:
                with self._database.watched(), self._connection.transaction():
                    values = {"id": row["id"], "longest": LONGEST_TEXT}
                    cut = self._connection.execute(SQL["cut_message"], values).fetchone()
            except StoreRejected:
                return {}
            text = (cut and cut["fields"]) or ""
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
                return {}
            "".join([*fields, *fields.values()]).encode()
        except (ValueError, RecursionError):
            return {}
        return fields

    def delete(self, ids: Sequence[int]) -> None:
        """Delete messages that Redis has."""
        with self._database.watched():
            deleted = self._connection.execute(SQL["delete_messages"], {"ids": list(ids)}).rowcount
            if deleted < len(ids):  # the database was restored to an earlier state, or keeps the rows
                require_kept("outbox", len(ids) - len(self.still_waiting(ids)), len(ids))

    def still_waiting(self, ids: Sequence[int]) -> set[int]:
        """Return which of these messages are still due."""
        with self._database.watched():
            return {row["id"] for row in self._connection.execute(SQL["waiting_messages"], {"ids": list(ids)})}

    def raise_number(self, above: int) -> None:
        """Make the next lease's number greater than `above`."""
        with self._database.watched():
            self._connection.execute(SQL["raise_relay_turn"], {"turn": above})

    def intents_sent(self) -> Mapping[str, int]:
        """See `RelayLease.intents_sent`."""
        with self._database.watched():
            rows = self._connection.execute(SQL["intent_windows"]).fetchall()
            summaries = [
                intents_summary(
                    row["notification_type"],
                    left_out=row["left_out"],
                    first=row["example"] if isinstance(row["example"], dict) else {},
                    began_at=row["began_at"],
                    now=row["now"],
                )
                for row in rows
                if row["over"] and row["left_out"]
            ]
            add_messages(self._connection, summaries)
        return {row["notification_type"]: row["sent"] for row in rows if not row["over"]}

    def count_intents(self, counts: Mapping[str, IntentCount]) -> None:
        """See `RelayLease.count_intents`."""
        rows = [
            {
                "notification_type": notification_type,
                "sent": count.sent,
                "left_out": len(count.left_out),
                "example": dict(count.left_out[0].fields) if count.left_out else None,
            }
            for notification_type, count in counts.items()
        ]
        with self._database.watched():
            write_kept(self._connection, "intent_windows", "count_intents", {"rows": as_json(rows)}, len(rows))


class PostgresOutbox:
    """The messages that are due to Redis."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def holder(self) -> LeaseHolder | None:
        """See `Outbox.holder`."""
        return holder_of(self._database, "outbox")

    @contextmanager
    def lease(self) -> Iterator[PostgresRelayLease | None]:
        """Take the lease, and commit at the end; yields None while another instance has it. Raises `Unavailable`."""
        with self._database.transaction("relay") as connection:
            row = connection.execute(SQL["take_relay_turn"]).fetchone()
            # Inside the block the thread waits for Redis, which must not count as PostgreSQL's silence.
            with self._database.unwatched():
                if row is None or row["number"] is None:
                    yield None
                else:
                    yield PostgresRelayLease(self._database, connection, row["number"], summary_due=row["summary_due"])
