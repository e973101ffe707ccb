"""Presence: an advisory lock with the lifetime of an instance's session.

When an instance is killed, its session ends and PostgreSQL releases the lock. After a short grace period other
instances then reclaim its operations without waiting for the lease. A frozen instance keeps its session; there the
lease applies. After a lost session the next heartbeat takes the lock again. Sessions must be exclusive: each
heartbeat checks whether the backend still is the one that holds the lock.
"""

from __future__ import annotations

from time import monotonic

import psycopg

from rtmanager import failpoints
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.queries import SQL

#: The first half of the lock's key, the same for every instance ("rtmp").
PRESENCE_CLASS = 0x72746D70
#: The first half of the key of locks on game names ("rtmn").
NAMES_CLASS = 0x72746D6E


class PostgresSessionLock:
    """One session with one lock; used by one thread. Raises `Unavailable`."""

    def __init__(self, database: Database, owner: int) -> None:
        self._database = database
        self._owner = owner
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._shown_since = 0.0

    def show(self) -> float:
        """Take the lock if it is not held; returns for how many seconds it has been held without a break.

        After a lost connection the old session may hold the lock for a while. The result is then 0; call again.
        """
        with self._database.watched():
            if self._connection is None:
                self._take()
                return 0.0
            try:
                self._database.require_own(self._connection)
            except psycopg.Error:
                self.close()
                raise
        return monotonic() - self._shown_since

    def close(self) -> None:
        """End the session, which releases the lock."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _take(self) -> None:
        connection = self._database.connect()
        try:
            values = {"presence_class": PRESENCE_CLASS, "owner": self._owner}
            with failpoints.around("postgres.presence"):
                row = connection.execute(SQL["take_presence"], values).fetchone()
        except BaseException:
            connection.close()
            raise
        if row is None or not row[0]:
            connection.close()
            return
        self._connection, self._shown_since = connection, monotonic()
