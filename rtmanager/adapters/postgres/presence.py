"""Presence: an advisory lock that lives exactly as long as an instance's session.

When an instance is killed, its session ends and PostgreSQL lets the lock go; whoever looks knows at once that
the owner of an operation is gone and need not wait for the lease. A frozen instance keeps its session: that is
what the lease is for. After a lost session the lock is taken again with the next heartbeat.
"""

from __future__ import annotations

import psycopg

from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.queries import SQL

#: The first half of the lock's key, the same for every instance ("rtmp").
PRESENCE_CLASS = 0x72746D70


class Presence:
    """One session holding one lock; used by one thread. Raises `Unavailable`."""

    def __init__(self, database: Database, owner: int) -> None:
        self._database = database
        self._owner = owner
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None

    def show(self) -> None:
        """Take the lock if it is not held; proves that the session is alive."""
        with self._database.translated():
            if self._connection is not None:
                try:
                    self._connection.execute(b"SELECT 1")
                except psycopg.Error:
                    self.close()
                    raise
            else:
                connection = psycopg.connect(self._database.conninfo, autocommit=True)
                connection.execute(SQL["take_presence"], {"presence_class": PRESENCE_CLASS, "owner": self._owner})
                self._connection = connection

    def close(self) -> None:
        """End the session, and with it the presence."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
