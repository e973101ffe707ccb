"""The outbox: messages that a transaction promised and Redis does not have yet.

As with the inbox one instance publishes at a time, in turns; each turn has a number that only grows, and Redis
refuses the entries of an older turn, so that a frozen publisher that wakes up adds nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.queries import SQL
from rtmanager.domain.messages import Message, Stream
from rtmanager.workers.ports import DueMessage


class RelayTurn:
    """The right to publish, valid until its transaction ends."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self.number = number

    def due(self, limit: int) -> Sequence[DueMessage]:
        """The oldest messages, up to `limit` of each stream, in order."""
        rows = self._connection.execute(SQL["due_messages"], {"limit": limit, "streams": list(Stream)})
        return [DueMessage(row["id"], Message(Stream(row["stream"]), row["fields"])) for row in rows]

    def delete(self, ids: Sequence[int]) -> None:
        """Forget messages that Redis has."""
        self._connection.execute(SQL["delete_messages"], {"ids": list(ids)})

    def still_waiting(self, ids: Sequence[int]) -> set[int]:
        """Which of these messages are still due."""
        return {row["id"] for row in self._connection.execute(SQL["waiting_messages"], {"ids": list(ids)})}

    def raise_number(self, above: int) -> None:
        """Let the next turn's number be greater than `above`."""
        self._connection.execute(SQL["raise_relay_turn"], {"turn": above})


class PostgresOutbox:
    """What is due to Redis."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def deployment_id(self) -> str:
        """Tells this database from any other that uses the same Redis."""
        with self._database.transaction("deployment_id") as connection:
            row = connection.execute(SQL["deployment_id"]).fetchone()
            if row is None:  # another instance made it just now, which this statement's snapshot did not see
                row = connection.execute(SQL["deployment_id"]).fetchone()
        assert row is not None
        return str(row["id"])

    @contextmanager
    def turn(self) -> Iterator[RelayTurn | None]:
        """The turn, or None while another instance has it; committed at the end. Raises `Unavailable`."""
        with self._database.transaction("relay") as connection:
            row = connection.execute(SQL["take_relay_turn"]).fetchone()
            number = row["number"] if row else None
            yield None if number is None else RelayTurn(connection, number)
