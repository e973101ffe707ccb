"""Sets up every session in the same way, whatever defaults the server, database, role or pooler has.

`ALTER DATABASE … SET` and `ALTER ROLE … SET` change the meaning of statements and results: the format of a date,
whether a transaction may write, when an idle session ends. So each session sets what the code relies on, and reads it
back by a second statement. That also detects a pooler that runs the next statement on another connection.
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from functools import cache
from threading import Lock
from time import monotonic
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

#: A setting of our own, whose random value identifies the session.
_MARK = "rtmanager.session"

#: The placeholder of its value in the cached statement.
_ANY_MARK = b"0" * 16

#: A `statement_timeout` of a millisecond may end even the statement that sets it.
_TRIES = 5

_SET = sql.SQL(
    "SELECT w.name, pg_catalog.set_config(w.name, w.value, false) FROM (VALUES {}) AS w (name, value)"
    " WHERE pg_catalog.current_setting(w.name, true) IS NOT NULL OR w.name = {}"
)
_READ = sql.SQL("SELECT w.name, pg_catalog.current_setting(w.name, true) FROM (VALUES {}) AS w (name)")
#: Identifies the session's server process, uniquely over servers and time.
_WHO = (
    b"SELECT pg_catalog.pg_backend_pid(), pg_catalog.format('%s/%s', pid, backend_start),"
    b" pg_catalog.current_setting('server_encoding')"
    b" FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()"
)
POOLER_REMEDY = (
    "connect to PostgreSQL itself, or let the pooler give each client a connection of its own "
    "(PgBouncer: pool_mode = session)"
)


#: Which of these backends still work since that moment; the others have ended or are idle.
_STILL_AT_WORK = b"""
    SELECT a.pid, given_up.backend
    FROM unnest(%s::text[], %s::timestamptz[]) AS given_up (backend, moment)
    JOIN pg_catalog.pg_stat_activity a
      -- A session whose settings name another role does not see when its own backend started.
      ON given_up.backend IN (pg_catalog.format('%%s/%%s', a.pid, a.backend_start), pg_catalog.format('%%s/', a.pid))
    WHERE a.state IS DISTINCT FROM 'idle'
      AND coalesce(a.state_change, a.backend_start) < given_up.moment"""

_TERMINATE = b"SELECT pg_catalog.pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pids (pid)"

MORE_CONNECTIONS = (
    "let the pooler have at least RTMANAGER_POSTGRES_POOL_SIZE + 3 connections for each manager, and for `check` "
    "beside it (PgBouncer: default_pool_size, max_client_conn)"
)


class SessionUnusable(psycopg.OperationalError):
    """The sessions of this server cannot be used; the message says why, `remedy` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Sessions:
    """The open sessions of one process, identified by their backends."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[psycopg.Connection[Any], str] = weakref.WeakKeyDictionary()
        self._lock = Lock()

    def add(self, connection: psycopg.Connection[Any], backend: str) -> None:
        """Register a session; raises `SessionUnusable` when another open one has the same backend."""
        with self._lock:
            for other, its in self._known.items():
                if its == backend and other is not connection and not other.closed:
                    raise shared("two sessions have one backend")
            self._known[connection] = backend

    def backend(self, connection: psycopg.Connection[Any]) -> str:
        """Return the backend that the session had when it was set up; empty before."""
        with self._lock:
            return self._known.get(connection, "")


@contextmanager
def as_login(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Run a transaction with the login's rights, which can see its sessions, instead of a configured role's."""
    with connection.transaction():
        connection.execute(b"SET LOCAL ROLE NONE")
        yield


class GivenUp:
    """Backends whose connection was cut while they were silent; at most `most` may remain.

    A backend that waits for a standby, a lock or a disk does not notice that its client is gone. Each new session
    terminates such backends, so that they do not use up the connections.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._since: dict[str, float] = {}
        self._lock = Lock()

    def add(self, backend: str) -> None:
        """Register a backend whose connection is cut now."""
        with self._lock:
            self._since[backend] = monotonic()

    def end(self, connection: psycopg.Connection[Any]) -> None:
        """Terminate them through this session, which is set up. Raises `SessionUnusable` when too many remain."""
        with self._lock:
            since = dict(self._since)
        if not since:
            return
        with as_login(connection), connection.cursor(row_factory=tuple_row) as cursor:
            [now] = cursor.execute(b"SELECT pg_catalog.clock_timestamp()", prepare=False).fetchall()[0]
            # Taken after the answer: so no computed moment is later than the real one, however slow the answer was.
            here = monotonic()
            moments = [now - timedelta(seconds=here - moment) for moment in since.values()]
            left = cursor.execute(_STILL_AT_WORK, [list(since), moments], prepare=False).fetchall()
            with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
                cursor.execute(_TERMINATE, [[pid for pid, _ in left]], prepare=False)
        still = {backend for _, backend in left}
        with self._lock:
            for backend in since.keys() - still:
                self._since.pop(backend, None)
        if len(still) > self._most:
            raise SessionUnusable(
                f"{len(still)} sessions of ours that were given up do not end",
                "see what they wait for in pg_stat_activity: a standby, a lock, the disk; then restart PostgreSQL",
            )


def shared(how: str) -> SessionUnusable:
    """Return the error for a pooler whose clients share connections."""
    return SessionUnusable(f"a pooler before PostgreSQL lets sessions share connections ({how})", POOLER_REMEDY)


def exhausted(limit_s: float) -> SessionUnusable:
    """Return the error for a pooler without a free connection."""
    return SessionUnusable(f"a pooler before PostgreSQL gave no connection within {limit_s:g} s", MORE_CONNECTIONS)


def set_up(
    connection: psycopg.Connection[Any],
    settings: Mapping[str, str],
    sessions: Sessions,
    second: Callable[[], AbstractContextManager[psycopg.Connection[Any]]],
) -> None:
    """Apply `settings` to the session, read them back, and check that no other client shares it.

    Behind a pooler, `second` opens one more connection, which must have another backend. Raises `psycopg.Error`.
    """
    mark = secrets.token_hex(8)
    set_all, read_all = _statements(tuple(settings.items()))
    # For a pooler without a reset query: its last client may have left prepared statements, locks or a role.
    _execute(connection, b"DISCARD ALL")
    given = _execute(connection, set_all.replace(_ANY_MARK, mark.encode()))
    found = dict(_execute(connection, read_all))
    if found.get(_MARK) != mark:
        raise shared("a setting was gone with the next statement")
    for name, value in given:
        if found[name] != value:
            raise shared(f"{name} was set to {value!r} and is {found[name]!r}")
    _require_understood(connection)
    pid, backend, encoding = who(connection)
    if encoding != "UTF8":
        raise SessionUnusable(
            f"the database has the encoding {encoding}, which cannot hold every text",
            "make the database anew with ENCODING 'UTF8' TEMPLATE template0 (initdb --encoding=UTF8) and move its data",
        )
    sessions.add(connection, backend)
    # Only a pooler can share a backend. That shows when another client connects: a session that no other disturbs keeps
    # its backend even then.
    if is_pooled(connection, pid):
        with second() as other:
            if who(other)[1] == backend:
                raise shared("two sessions have one backend")
        if who(connection)[1] != backend:
            raise shared("the backend changed between two statements")


def who(connection: psycopg.Connection[Any]) -> tuple[int, str, str]:
    """Return the backend's process id, its unique identity, and the database's encoding."""
    [(pid, backend, encoding)] = _execute(connection, _WHO)
    return int(pid), str(backend), str(encoding)


def is_pooled(connection: psycopg.Connection[Any], pid: int) -> bool:
    """Return whether a pooler stands before this backend: it gives its clients process ids of its own."""
    return pid != connection.info.backend_pid


def require_own(connection: psycopg.Connection[Any], sessions: Sessions) -> None:
    """Raise `SessionUnusable` when the session's backend has changed since its setup."""
    if who(connection)[1] != sessions.backend(connection):
        raise shared("the backend changed between two statements")


def _require_understood(connection: psycopg.Connection[Any]) -> None:
    """Raise `SessionUnusable` when reported settings differ from real ones: the client parses dates by the reports."""
    reported = {name: connection.info.parameter_status(name) for name in ("client_encoding", "DateStyle", "TimeZone")}
    if (
        reported["client_encoding"] != "UTF8"
        or not str(reported["DateStyle"]).startswith("ISO")
        or reported["TimeZone"] != "UTC"
    ):
        reported_text = ", ".join(f"{name} {value}" for name, value in reported.items())
        raise SessionUnusable(
            f"a pooler before PostgreSQL tells other settings than there are ({reported_text})", POOLER_REMEDY
        )


def _execute(connection: psycopg.Connection[Any], statement: bytes) -> list[tuple[Any, ...]]:
    """Run a statement by the simple protocol, which prepares nothing."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        for left in reversed(range(_TRIES)):
            try:
                cursor.execute(statement, prepare=False)
            except psycopg.errors.QueryCanceled:
                if not left:
                    raise
            else:
                break
        return cursor.fetchall() if cursor.description else []


@cache
def _statements(settings: tuple[tuple[str, str], ...]) -> tuple[bytes, bytes]:
    """Return the statement that sets all settings, and the one that reads them back."""
    every = [*settings, (_MARK, _ANY_MARK.decode())]
    pairs = [sql.SQL("({}, {})").format(sql.Literal(name), sql.Literal(value)) for name, value in every]
    names = [sql.SQL("({})").format(sql.Literal(name)) for name, _ in every]
    comma = sql.SQL(", ")
    set_all = _SET.format(comma.join(pairs), sql.Literal(_MARK))
    return set_all.as_bytes(None), _READ.format(comma.join(names)).as_bytes(None)
