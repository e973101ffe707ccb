"""The connection pool, and the line between "PostgreSQL does not answer" and "PostgreSQL says no".

Only what PostgreSQL has against the data itself (a constraint, a value that a column cannot hold) is passed on
as it is. Everything else becomes `Unavailable`, since waiting, or a person, can mend it: lost connections,
timeouts, a server that starts, stops, recovers or is full, a table that a restore has not brought back yet.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from rtmanager.adapters.postgres.dsn import described, to_conninfo
from rtmanager.domain.errors import Unavailable

Connection = psycopg.Connection[DictRow]

#: No statement of ours works longer; one that does waits for a lock that somebody forgot.
STATEMENT_TIMEOUT_MS = 5_000
#: How long a transaction may take before the server counts as silent and every connection to it is cut. Longer
#: than a statement may take, so that a server that answers at all answers first.
SILENCE_S = 8.0
#: How often that is looked at.
WATCH_PERIOD_S = 0.5
#: How long a caller waits for a free connection before PostgreSQL counts as not answering.
CHECKOUT_TIMEOUT_S = 5.0
#: Connections kept open when there is nothing to do.
MIN_CONNECTIONS = 2


class Database:
    """A pool of connections; `transaction()` is the only way in. Safe for any number of threads."""

    def __init__(self, dsn: str, *, max_connections: int) -> None:
        self._dsn = dsn
        self._connections: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()
        self._connections_lock = threading.Lock()
        self._waiting: dict[object, float] = {}
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._cut_when_silent, name="rtm-postgres-watch", daemon=True)
        self.conninfo = to_conninfo(dsn, statement_timeout_ms=STATEMENT_TIMEOUT_MS)
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            self.conninfo,
            connection_class=psycopg.Connection[DictRow],
            kwargs={"row_factory": dict_row},
            min_size=MIN_CONNECTIONS,
            max_size=max_connections,
            timeout=CHECKOUT_TIMEOUT_S,
            configure=self._remember,
            check=ConnectionPool.check_connection,
            # A pool that gave up would need a person; one that retries every few seconds does not.
            reconnect_timeout=5.0,
            num_workers=1,
            open=False,
            name="rtmanager",
        )

    def open(self) -> None:
        """Start the pool; connections are made in the background."""
        self._pool.open()
        self._watch.start()

    def close(self) -> None:
        """Close every connection and end the threads."""
        self._pool.close(timeout=CHECKOUT_TIMEOUT_S)
        self._closed.set()
        if self._watch.is_alive():
            self._watch.join()

    def ping(self) -> str:
        """The server's version. Raises `Unavailable`. Uses a connection of its own, so that it answers for now."""
        with self.watched(), self.connect() as connection:
            return str(connection.info.parameter_status("server_version"))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection inside a transaction: committed at the end, rolled back by an exception."""
        with self.watched(), self._pool.connection() as connection:
            yield connection

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection outside the pool, in autocommit; its owner closes it."""
        connection = psycopg.connect(self.conninfo, autocommit=True)
        self._remember(connection)
        return connection

    def cut(self) -> None:
        """End every wait for PostgreSQL, on all threads, while it does not answer."""
        with self._connections_lock:
            connections = list(self._connections)
        for connection in connections:
            with suppress(psycopg.OperationalError, OSError):  # it is closed already
                line = socket.socket(fileno=os.dup(connection.fileno()))
                line.shutdown(socket.SHUT_RDWR)
                line.close()

    def _remember(self, connection: psycopg.Connection[Any]) -> None:
        with self._connections_lock:
            self._connections.add(connection)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """As `translated`; and what PostgreSQL does not answer in `SILENCE_S` is ended, while the pool is open."""
        token = object()
        self._waiting[token] = monotonic()
        try:
            with self.translated():
                yield
        finally:
            del self._waiting[token]

    def _cut_when_silent(self) -> None:
        """A server that is paused or cut off says nothing at all, and no timeout of its own ends a wait for it."""
        while not self._closed.wait(WATCH_PERIOD_S):
            began = min(list(self._waiting.values()), default=None)
            if began is not None and monotonic() - began > SILENCE_S:
                self.cut()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turns what waiting can mend into `Unavailable`."""
        try:
            yield
        except (psycopg.DataError, psycopg.IntegrityError):
            raise
        except (psycopg.Error, PoolTimeout, PoolClosed) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise Unavailable("postgres", f"{described(self._dsn)} does not answer: {lines[0]}") from error


def new_owner() -> int:
    """A number that tells a running instance from every other; fits half an advisory lock."""
    return random.SystemRandom().randrange(1, 1 << 31)
