"""The server as it is found, asked by `check`, at a start, and in short by readiness."""

from __future__ import annotations

from typing import Any

import psycopg

from rtmanager.adapters.postgres import refusals
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.pooled import first_line
from rtmanager.adapters.postgres.schema import look
from rtmanager.adapters.postgres.session import SessionUnusable
from rtmanager.domain.errors import RuntimeManagerError, Unavailable

#: The oldest server that is supported, as `server_version_num` has it.
OLDEST = 130_000
#: Sessions of an instance beside its pool: its presence, a question of readiness, a migration.
BESIDE_THE_POOL = 3
#: The service does not work with fewer.
LEAST_CONNECTIONS = 4


class ServerUnfit(RuntimeManagerError):
    """PostgreSQL answers, and cannot be used; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def examine(database: Database, pool_size: int) -> tuple[str, list[str]]:
    """What it is in a few words, and warnings; raises `ServerUnfit`, `MigrationFailed` or `Unavailable`.

    Changes nothing.
    """
    try:
        with database.two() as (connection, _):
            version = _require_fit(connection)
            found = look(connection)
            warnings = [*_room(connection, pool_size), *_durability(connection)]
    except Unavailable as error:
        raise _explained(database, error) from error
    due = f", {len(found.missing)} migrations are due" if found.missing else ""
    if found.unknown:
        warnings.append(f"the schema is newer than this program: it has the migrations {found.unknown}")
    return f"PostgreSQL {version}, schema {found.schema}{due}", warnings


def ask(database: Database) -> str:
    """Whether it can be used just now; the short question, of readiness."""
    with database.watched(), database.connect() as connection:
        return _require_fit(connection)


def _explained(database: Database, error: Unavailable) -> RuntimeManagerError:
    cause = error.__cause__
    if isinstance(cause, SessionUnusable):
        return ServerUnfit(f"{database.where}: {cause}", cause.remedy)
    if not isinstance(cause, psycopg.OperationalError):
        return error
    refusal = database.why_refused()
    if refusal.sqlstate:
        return ServerUnfit(f"{database.where} takes no connection: {first_line(cause)}", refusal.remedy)
    return ServerUnfit(str(error), refusal.remedy)


def _require_fit(connection: psycopg.Connection[Any]) -> str:
    number, standby = _row(connection, "SELECT current_setting('server_version_num')::integer, pg_is_in_recovery()")
    version = str(connection.info.parameter_status("server_version"))
    if number < OLDEST:
        raise ServerUnfit(
            f"PostgreSQL {version} is too old: {OLDEST // 10_000} or newer is needed",
            "upgrade it, or use another server",
        )
    if standby:
        raise ServerUnfit(
            "PostgreSQL is a standby, which is read-only",
            f"name the primary in {refusals.DSN}, or several hosts and target_session_attrs=read-write, or promote it",
        )
    return version


def _room(connection: psycopg.Connection[Any], pool_size: int) -> list[str]:
    """The least of the limits that the server, the database and the role have for connections."""
    own, database, role = _row(
        connection,
        "SELECT current_setting('max_connections')::integer"
        " - current_setting('superuser_reserved_connections')::integer"
        " - coalesce(current_setting('reserved_connections', true)::integer, 0),"
        " (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),"
        " (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user)",
    )
    limits = {"max_connections, less what is reserved,": own, "the database's CONNECTION LIMIT": database}
    limits["the role's CONNECTION LIMIT"] = role
    name, least = min(((name, limit) for name, limit in limits.items() if limit >= 0), key=lambda each: each[1])
    wanted = pool_size + BESIDE_THE_POOL
    if least < LEAST_CONNECTIONS:
        raise ServerUnfit(
            f"{name} is {least}, and the service needs {LEAST_CONNECTIONS} connections at least",
            f"raise it to {wanted} or more, for each instance",
        )
    if least < wanted:
        return [
            f"{name} is {least}, and one instance may want {wanted}: raise it, or lower RTMANAGER_POSTGRES_POOL_SIZE"
        ]
    return []


def _durability(connection: psycopg.Connection[Any]) -> list[str]:
    [commits] = _row(connection, "SELECT current_setting('synchronous_commit')")
    if commits != "off":
        return []
    return ["synchronous_commit is off: a PostgreSQL that crashes forgets what it committed last, set it to on"]


def _row(connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return tuple(row)
