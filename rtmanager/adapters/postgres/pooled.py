"""A connection of the pool, which reports why it could not be made and reads texts fast.

psycopg's cursor takes three times the processor time of sending and receiving. It releases the interpreter's lock five
times per statement, and with many readers another thread runs each time. `PQexecPrepared` sends, waits and receives in
one call. It converts no types, so it is for texts that PostgreSQL has made and that are passed on unchanged.
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
    """Loads moments that Python cannot represent (`infinity`, the year 10,000) as its last or first moment.

    Only another program can have written such a value; one of them would otherwise fail every row read with it.
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
    """A psycopg connection that passes its connection errors to `failed`, since the pool hides them.

    `prepare` sets the session up.
    """

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self.adapters.register_loader("timestamptz", _Moments)
        #: Names of the statements prepared on this connection.
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
        """Like psycopg's; the result of `way` replaces `conninfo`, since it may be newer."""
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
        """Return the rows of a statement with one non-null column, as PostgreSQL writes them; `$1` is the first value.

        Raises `psycopg.Error`. The connection must be outside a transaction.
        """
        try:
            return self._texts(statement, values)
        except InvalidSqlStatementName:  # psycopg drops all prepared statements after a failed transaction
            self._names.clear()
            return self._texts(statement, values)

    def _texts(self, statement: bytes, values: Sequence[str]) -> list[bytes]:
        if self.closed:  # libpq would report nothing
            raise psycopg.OperationalError("the connection is closed")
        encoding = self.info.encoding
        name = self._names.get(statement) or self._prepare(statement, encoding)
        # Binary, which for a text is the same bytes: in text format libpq reads a value up to its first NUL.
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
    """Give psycopg's prepared statements names with a random number, and return the number.

    Behind a pooler that shares connections, `_pg3_0` may be another client's, whose statement would run.
    """
    number = random.SystemRandom().randrange(1 << 40, 1 << 62)
    connection._prepared._prepared_idx = number  # psycopg has no setting for it
    return number


def first_line(error: Exception) -> str:
    """Return an error's first line, without PostgreSQL's additions."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
