"""A connection of the pool: one that says why it could not be made, and that has a short way to texts.

psycopg's cursor takes three times of the processor what sending and receiving take, and lets go of the interpreter's
lock five times for each statement: where many threads read, each time another one goes first. `PQexecPrepared` sends,
waits and receives in one call. It knows no types, so it is for what PostgreSQL has made a text and is passed on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Self

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn
from psycopg.rows import DictRow


class _Moments(Loader):
    """Moments that Python cannot hold (`infinity`, the year 10,000) as the last or the first that it can.

    One such value in one row, which only another writer can have left, would otherwise hide every row that is read
    with it.
    """

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        loader = psycopg.adapters.get_loader(oid, Format.TEXT)
        assert loader is not None
        self._known = loader(oid, context)

    def load(self, data: Buffer) -> datetime:
        try:
            found: datetime = self._known.load(data)
        except psycopg.DataError:
            text = bytes(data)
            return (datetime.min if text.startswith(b"-") or text.endswith(b"BC") else datetime.max).replace(tzinfo=UTC)
        return found


class PooledConnection(psycopg.Connection[DictRow]):
    """When none can be made the pool says only that; why is handed to `failed`. `prepare` makes it fit for use."""

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self.adapters.register_loader("timestamptz", _Moments)
        #: The names that statements have on this connection.
        self._names: dict[bytes, bytes] = {}
        self._number = own_names(self)

    @classmethod
    def connect(  # type: ignore[override]
        cls,
        conninfo: str = "",
        *,
        way: Callable[[], str] = str,
        prepare: Callable[[psycopg.Connection[Any]], object] = bool,
        failed: Callable[[str], None],
        **how: Any,
    ) -> Self:
        """As psycopg's; `way` knows better than `conninfo`, since that may have been found out meanwhile."""
        try:
            made = super().connect(way() or conninfo, **how)
            try:
                prepare(made)
            except BaseException:
                made.close()
                raise
        except (psycopg.Error, OSError, MemoryError, RuntimeError) as error:
            failed(first_line(error))
            raise
        return made

    def texts(self, statement: bytes, values: Sequence[str]) -> list[bytes]:
        """The rows of a statement that has one column, not null, as PostgreSQL writes them; `$1` is the first value.

        Raises `psycopg.Error`. The connection has to be outside of a transaction.
        """
        try:
            return self._texts(statement, values)
        except InvalidSqlStatementName:  # psycopg drops all statements, these too, after a transaction that failed
            self._names.clear()
            return self._texts(statement, values)

    def _texts(self, statement: bytes, values: Sequence[str]) -> list[bytes]:
        if self.closed:  # libpq would say nothing at all
            raise psycopg.OperationalError("the connection is closed")
        encoding = self.info.encoding
        name = self._names.get(statement) or self._prepare(statement, encoding)
        # Binary, of a text the same bytes: else libpq would read a value up to its first NUL, which PostgreSQL refuses.
        formats = [Format.BINARY] * len(values)
        result = self.pgconn.exec_prepared(name, [value.encode(encoding) for value in values], formats)
        if result.status != ExecStatus.TUPLES_OK:
            raise error_from_result(result, encoding)
        return [result.get_value(row, 0) or b"" for row in range(result.ntuples)]

    def _prepare(self, statement: bytes, encoding: str) -> bytes:
        name = b"rtmanager_%d_%d" % (self._number, len(self._names))
        result = self.pgconn.prepare(name, statement)
        if result.status != ExecStatus.COMMAND_OK:
            raise error_from_result(result, encoding)
        self._names[statement] = name
        return name


def own_names(connection: psycopg.Connection[Any]) -> int:
    """Have the statements that psycopg prepares named as no other client's are, by a number that is returned.

    Behind a pooler that shares connections, `_pg3_0` may be another client's: its statement would run.
    """
    number = random.SystemRandom().randrange(1 << 40, 1 << 62)
    connection._prepared._prepared_idx = number  # psycopg has no setting for it
    return number


def first_line(error: Exception) -> str:
    """What an error says, without what PostgreSQL adds to it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
