"""The connection pool, and the mapping of psycopg's errors to the port's.

Silence, which waiting or a person resolves (`answers.SILENCE`), becomes `Unavailable`. A rejection of a statement or
its data becomes `StoreRejected`, and so does a value that psycopg cannot send or read.
"""

from __future__ import annotations

import math
import os
import random
import re
import select
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.errors import DuplicatePreparedStatement, InvalidSqlStatementName
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from rtmanager import failpoints
from rtmanager.adapters.postgres import refusals, session
from rtmanager.adapters.postgres.answers import is_silence, verb
from rtmanager.adapters.postgres.pooled import PooledConnection, first_line, own_names
from rtmanager.adapters.postgres.queries import dropped
from rtmanager.config.dsn import (
    described,
    session_settings,
    taken_from_environment,
    to_conninfo,
    with_option,
    without_options,
)
from rtmanager.domain.errors import Unavailable
from rtmanager.domain.text import bounded
from rtmanager.ports.store import StoreRejected
from rtmanager.resources import lacking, lacking_by_words
from rtmanager.threads import Thread

Connection = psycopg.Connection[DictRow]
Row = TypeVar("Row")

#: The part of the silence limit that one statement, a connection attempt, or the wait for a free connection may take.
#: It is less than 1, so that a server that answers at all answers first. A statement that takes longer waits for a
#: forgotten lock.
STEP_PART = 5 / 8
#: Interval of the check for silence, as a part of the limit.
WATCH_PART = 1 / 16
#: Connections kept open when idle.
MIN_CONNECTIONS = 2
#: SQLSTATE of a session that was idle for too long.
_IDLE_SESSION = "57P05"
#: Prefixes of SQLSTATEs for a connection that was lost, or ended by the server.
_ENDED = ("080", "57P")
#: Matches the error of `write_changes` about missing rows; the text around it is the server's.
_DROPPED = re.compile('"rtmanager: ([^"]*)"')


class Database:
    """A pool of connections; thread-safe. `transaction`, `write` and `read` use the pool.

    A wait for PostgreSQL of more than `silence_s` seconds counts as silence; then every connection is cut.
    """

    def __init__(self, dsn: str, *, max_connections: int, silence_s: float) -> None:
        self._dsn = dsn
        self._silence_s = silence_s
        #: Limit of one step, in seconds; see `STEP_PART`.
        self.step_s = silence_s * STEP_PART
        self._connections: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()
        self._connections_lock = threading.Lock()
        self._waiting: dict[tuple[int, object], float] = {}
        self._why_not = ""
        self._sessions = session.Sessions()
        self._given_up = session.GivenUp(2 * max_connections)
        self._closed = threading.Event()
        self._watch = Thread(self._cut_when_silent, "rtm-postgres-watch", lasting=True)
        self.conninfo = to_conninfo(
            dsn, statement_timeout_ms=round(self.step_s * 1000), connect_timeout_s=math.ceil(self.step_s)
        )
        self._settings = session_settings(self.conninfo)
        #: Parameters of new connections: without `options` behind a pooler that rejects them.
        self._way = self.conninfo
        self._pool: ConnectionPool[PooledConnection] = ConnectionPool(
            self.conninfo,
            connection_class=PooledConnection,
            # In autocommit a statement without a transaction takes one round trip instead of three. Every statement is
            # repeated, so all are prepared.
            kwargs={
                "row_factory": dict_row,
                "autocommit": True,
                "prepare_threshold": 0,
                "way": lambda: self._way,
                "prepare": self._prepare,
                "failed": self._not_connected,
            },
            min_size=MIN_CONNECTIONS,
            max_size=max_connections,
            timeout=self.step_s,
            check=_check,
            # A pool that gave up would need a person; this one retries every few seconds.
            reconnect_timeout=self.step_s,
            num_workers=1,
            open=False,
            name="rtmanager",
        )

    def open(self) -> None:
        """Start the pool, which connects in the background, and the watch."""
        self._pool.open()
        self._watch.start()

    def close(self) -> None:
        """Close every connection and end the threads."""
        self._pool.close(timeout=self.step_s)
        self._closed.set()
        if self._watch.is_alive():
            self._watch.join()

    @property
    def lost_its_watch(self) -> bool:
        """Whether the watch for a silent server has ended while the pool is open."""
        return self._watch.ident is not None and not self._closed.is_set() and not self._watch.is_alive()

    @property
    def where(self) -> str:
        """The server's address, for messages."""
        return described(self._dsn)

    def environment(self) -> Mapping[str, str]:
        """Return the environment variables from which libpq takes parts of the connection, with their values."""
        return taken_from_environment(self._way)

    def why_refused(self) -> refusals.Refusal:
        """Try to connect once more, and return why the server refuses."""
        return refusals.why_refused(self._way, self.step_s)

    @contextmanager
    def two(self) -> Iterator[tuple[psycopg.Connection[Any], psycopg.Connection[Any]]]:
        """Open two connections outside the pool, both set up. Raises `Unavailable`."""
        with self.watched(), self.connect() as first, self.connect() as second:
            session.require_own(first, self._sessions)
            yield first, second

    @contextmanager
    def transaction(self, name: str) -> Iterator[Connection]:
        """Yield a connection inside a transaction: committed at the end, rolled back by an exception.

        `name` is the effect's name in `failpoints.EFFECTS`, without `postgres.`. An `Unavailable` before the commit is
        sent is `untouched`: nothing was applied.
        """
        effect, commit_sent = f"postgres.{name}", False
        try:
            with self.watched(), self._pooled() as connection, connection.transaction():
                yield connection
                failpoints.before(effect)
                commit_sent = True
        except Unavailable as error:
            if error.dependency == "postgres" and not commit_sent:
                error.untouched = True
            raise
        failpoints.after(effect)

    def write(self, name: str, statement: bytes, values: Mapping[str, object]) -> list[DictRow]:
        """Run one statement as its own transaction, and return its rows; takes a third of the time of `transaction`.

        `name` as above. An `Unavailable` is `untouched` when nothing was sent, or PostgreSQL rejected it.
        """
        effect, sent = f"postgres.{name}", False
        try:
            with self.watched(), self._pooled() as connection:
                failpoints.before(effect)
                sent = True
                cursor = connection.execute(statement, values)
                rows = cursor.fetchall() if cursor.description else []
        except Unavailable as error:
            error.untouched = not sent or _was_refused(error.__cause__)
            raise
        failpoints.after(effect)
        return rows

    def read(self, name: str, statement: bytes, values: Mapping[str, object]) -> list[DictRow]:
        """Run one statement that changes nothing, without a transaction, and return its rows; `name` as above."""
        return self._read(name, lambda connection: connection.execute(statement, values).fetchall())

    def read_texts(self, name: str, statement: bytes, values: Sequence[str]) -> list[bytes]:
        """Like `read`, in the fastest way: see `PooledConnection.texts`."""
        return self._read(name, lambda connection: connection.texts(statement, values))

    def _read(self, name: str, ask: Callable[[PooledConnection], list[Row]]) -> list[Row]:
        effect = f"postgres.{name}"
        with self.watched(), self._pooled() as connection:
            rows = ask(connection)
            failpoints.before(effect)
        failpoints.after(effect)
        return rows

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Open a connection outside the pool, in autocommit; its owner closes it."""
        way = self._way
        connection = self._connect()
        try:
            self._prepare(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.OperationalError) and error.sqlstate == _IDLE_SESSION and way != self._way:
                return self.connect()
            raise
        return connection

    def backend(self, connection: psycopg.Connection[Any]) -> str:
        """Return the connection's server process, as `pid/backend_start`; empty when unknown."""
        return self._sessions.backend(connection)

    def require_own(self, connection: psycopg.Connection[Any]) -> None:
        """Raise `psycopg.OperationalError` unless the connection still has its original session."""
        session.require_own(connection, self._sessions)

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        try:
            connection = psycopg.connect(self._way, autocommit=True)
        except psycopg.OperationalError:
            way = without_options(self.conninfo)
            if self._way == way or not self._refuses_options():
                raise
            connection = psycopg.connect(way, autocommit=True)
            self._way = way
        own_names(connection)
        return connection

    def _refuses_options(self) -> bool:
        if not refusals.traces():
            return True
        return self.why_refused().sqlstate == refusals.PROTOCOL_VIOLATION

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        """Set up the session, within the silence limit."""
        self._remember(connection)
        with cut_after(self._silence_s, connection):
            try:
                session.set_up(connection, self._settings, self._sessions, self._witness)
                self._given_up.end(connection)
            except psycopg.OperationalError as error:
                # The session ended before its first statement. Servers without the setting never raise this error.
                if error.sqlstate == _IDLE_SESSION:
                    self._way = with_option(self._way, "idle_session_timeout=0")
                raise
        self._why_not = ""

    @contextmanager
    def _witness(self) -> Iterator[psycopg.Connection[Any]]:
        """Open one more connection for a moment. A pooler without a free one accepts it and lets it wait."""
        with self._connect() as connection, cut_after(self.step_s, connection):
            self._remember(connection)
            try:
                yield connection
            except psycopg.OperationalError as error:
                if isinstance(error, session.SessionUnusable):
                    raise
                raise session.exhausted(self.step_s) from error

    @contextmanager
    def _pooled(self) -> Iterator[PooledConnection]:
        """Yield a connection of the pool; it is closed when it has another client's session."""
        with self._pool.connection() as connection:
            try:
                yield connection
            except (InvalidSqlStatementName, DuplicatePreparedStatement) as error:
                connection.close()
                raise session.shared(first_line(error)) from error

    def cut(self) -> None:
        """Abort every wait for PostgreSQL, on all threads."""
        with self._connections_lock:
            connections = list(self._connections)
        for connection in connections:
            if not connection.closed:
                self.give_up(connection)

    def give_up(
        self, connection: psycopg.Connection[Any], terminated_by: psycopg.Connection[Any] | None = None
    ) -> None:
        """Cut this connection. The next session, or `terminated_by`, terminates its backend if it still works."""
        if backend := self._sessions.backend(connection):
            self._given_up.add(backend)
        _cut(connection)
        if terminated_by is not None:
            self._given_up.end(terminated_by)

    def _not_connected(self, why: str) -> None:
        self._why_not = why

    def _remember(self, connection: psycopg.Connection[Any]) -> None:
        with self._connections_lock:
            self._connections.add(connection)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Like `translated`, and cuts every connection after `silence_s` of silence, while the pool is open."""
        token = (threading.get_ident(), object())
        self._waiting[token] = monotonic()
        try:
            with self.translated():
                yield
        finally:
            del self._waiting[token]

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Exclude this thread from the watch inside the block: it waits for something else in an open transaction."""
        mine = [token for token in list(self._waiting) if token[0] == threading.get_ident()]
        for token in mine:
            del self._waiting[token]
        try:
            yield
        finally:
            self._waiting.update(dict.fromkeys(mine, monotonic()))

    def _cut_when_silent(self) -> None:
        """Watch for silence: no timeout of a paused or unreachable server ends a wait for it."""
        while not self._closed.wait(self._silence_s * WATCH_PART):
            began = min(list(self._waiting.values()), default=None)
            if began is not None and monotonic() - began > self._silence_s:
                self.cut()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Map psycopg's errors to `Unavailable` or `StoreRejected`; see the module."""
        try:
            yield
        except (psycopg.Error, PoolTimeout, PoolClosed, NotImplementedError, UnicodeError, OverflowError) as error:
            not_connected = isinstance(error, PoolTimeout) and self._why_not
            why = bounded(not_connected or first_line(error))
            sqlstate = (isinstance(error, psycopg.Error) and error.sqlstate) or ""
            if is_silence(error):
                how = "takes no connection" if not_connected else verb(error)
                unavailable = Unavailable("postgres", f"{described(self._dsn)} {how}: {why}")
                lack = None if sqlstate else lacking_by_words(why)
                unavailable.remedy = lack.remedy if lack else refusals.REMEDIES_AT_WORK.get(sqlstate)
                raise unavailable from error
            if rows := _DROPPED.search(why):
                raise dropped(rows[1]) from error
            raise StoreRejected(f"PostgreSQL refuses a statement: {why}", sqlstate=sqlstate) from error
        except (OSError, MemoryError, RuntimeError) as error:
            lack = lacking(error)
            if lack is None:
                raise
            unavailable = Unavailable("postgres", f"{described(self._dsn)} cannot be queried: {lack}")
            unavailable.remedy = lack.remedy
            raise unavailable from error


def _cut(connection: psycopg.Connection[Any]) -> None:
    # A connection that is already closed raises.
    with suppress(psycopg.OperationalError, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


@contextmanager
def cut_after(limit_s: float, connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Cut this one connection after `limit_s`. The watch cuts all, and may not run yet, or watch no thread."""
    over = threading.Event()

    def cut_late() -> None:
        if not over.wait(limit_s):
            _cut(connection)

    thread = Thread(cut_late, "rtm-postgres-cut")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _check(connection: psycopg.Connection[Any]) -> None:
    """Raise `psycopg.Error` when the server has ended the connection while it was idle in the pool.

    A server sends data on an idle connection only to end it, so only a readable connection is checked. A check each
    time would be one more round trip per transaction.
    """
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    if poller.poll(0):
        ConnectionPool.check_connection(connection)


def _was_refused(error: BaseException | None) -> bool:
    """Return whether the server rejected the statement, and did not end the connection, which may follow a commit."""
    return isinstance(error, psycopg.Error) and error.sqlstate is not None and error.sqlstate[:3] not in _ENDED


def new_owner() -> int:
    """Return a random number that identifies a running instance; it fits half of an advisory lock's key."""
    return random.SystemRandom().randrange(1, 1 << 31)
