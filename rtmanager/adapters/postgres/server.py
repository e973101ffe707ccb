"""Checks the PostgreSQL server, for `check`, for a start, and in short for readiness."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC
from functools import cache
from time import monotonic
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable

from rtmanager.adapters.postgres import refusals
from rtmanager.adapters.postgres.database import Database, cut_after
from rtmanager.adapters.postgres.pooled import first_line
from rtmanager.adapters.postgres.queries import SQL
from rtmanager.adapters.postgres.schema import look, look_again
from rtmanager.adapters.postgres.session import MORE_CONNECTIONS, SessionUnusable, as_login, is_pooled, who
from rtmanager.domain.clock import REMEDY, described, is_far
from rtmanager.domain.errors import DependencyError, RuntimeManagerError, Unavailable
from rtmanager.ports.clock import host_clock
from rtmanager.ports.store import StoreRejected

#: The oldest supported server, as `server_version_num`.
OLDEST = 130_000
#: Sessions of an instance outside its pool: its session lock, a readiness check, a migration.
BESIDE_THE_POOL = 3
#: Limit of a commit in a readiness check, in seconds; readiness answers within 2 s, diagnosis included.
COMMIT_S = 1.2
#: Writes one WAL record and nothing else, in any schema and with any right; its commit waits like any other.
_COMMIT = b"SELECT pg_catalog.pg_logical_emit_message(true, 'rtmanager', '')"
#: Readiness waits for no table lock.
_SHORT_OF_LOCKS = b"SET lock_timeout = '200ms'"
_SHORT_OF_LOCKS_HERE = b"SET LOCAL lock_timeout = '200ms'"
#: Pairs of games that a warning names.
MOST_NAMED = 5
_WAITS_FOR = b"""
    SELECT coalesce(wait_event_type, 'its processor'), wait_event,
           pg_catalog.current_setting('synchronous_standby_names')
    FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.split_part(%s, '/', 1)::integer"""
#: The manager does not work with fewer.
LEAST_CONNECTIONS = 4


#: Sessions that are open while `examine` counts.
OF_THIS_CHECK = 2
_LIMITS = (
    "max_connections, less what is reserved,",
    "the database's CONNECTION LIMIT",
    "the role's CONNECTION LIMIT",
)


#: SQLSTATE of a missing right.
INSUFFICIENT_PRIVILEGE = "42501"
_GRANT = "an administrator grants it back"
#: Functions that sessions need beside those in `sql/`.
_OTHER_FUNCTIONS = (
    *(
        "set_config",
        "pg_backend_pid",
        "pg_is_in_recovery",
        "pg_terminate_backend",
        "pg_logical_emit_message",
        "to_regclass",
    ),
    # Behind the views.
    *("pg_stat_get_activity", "pg_lock_status", "pg_prepared_xact"),
)
_VIEWS = (
    *("pg_locks", "pg_stat_activity", "pg_prepared_xacts"),
    *("pg_database", "pg_roles", "pg_trigger", "pg_rewrite"),
)


class ServerUnfit(RuntimeManagerError):
    """PostgreSQL answers but cannot be used; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class ServerAway(Unavailable):
    """PostgreSQL takes no connection now, which waiting may resolve; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("postgres", message)
        self.remedy = remedy


def examine(database: Database, pool_size: int) -> tuple[str, list[str]]:
    """Check the server; returns a short description and warnings, and changes no table.

    Raises `ServerUnfit`, `MigrationFailed` or `Unavailable`.
    """
    try:
        with database.two() as (connection, _):
            version = _require_fit(connection)
            _require_rights(connection)
            require_commits(database, connection, database.step_s)
            found = look(connection)
            if is_pooled(connection, who(connection)[0]):
                _require_pooler_room(database, OF_THIS_CHECK, pool_size + BESIDE_THE_POOL)
            warnings = [
                *_room(connection, pool_size),
                *_durability(connection),
                *_clock(connection),
                *_shared_names(connection),
                *found.warnings,
            ]
    except (Unavailable, StoreRejected) as error:
        raise _explained(database, error) from error
    warnings += _environment(database)
    due = f", {len(found.missing)} migrations are due" if found.missing else ""
    if found.unknown:
        warnings.append(f"the schema is newer than this program: it has the migrations {found.unknown}")
    return f"PostgreSQL {version}, schema {found.schema}{due}", warnings


def ask(database: Database) -> str:
    """Run the short check of readiness; returns the server's version."""
    with database.watched(), database.connect() as connection:
        version = _require_fit(connection)
        # Workers that wait for a locked table report it.
        with suppress(LockNotAvailable):
            connection.execute(_SHORT_OF_LOCKS)
            look_again(connection)
        require_commits(database, connection, COMMIT_S)
        return version


def require_commits(database: Database, connection: psycopg.Connection[Any], limit_s: float) -> None:
    """Commit a small transaction; raises `ServerUnfit` when that takes longer than `limit_s`. Changes no table.

    No timeout of the server ends a waiting commit, so the connection is cut.
    """
    began = monotonic()
    try:
        with cut_after(limit_s, connection):
            connection.execute(_COMMIT)
    except psycopg.OperationalError as error:
        if error.sqlstate or monotonic() - began < limit_s:
            raise
        raise _hanging(database, connection, limit_s) from error


def _hanging(database: Database, connection: psycopg.Connection[Any], limit_s: float) -> ServerUnfit:
    """Return why the commit on this connection is not finished, and terminate its backend."""
    try:
        with database.connect() as other, cut_after(limit_s, other):
            with as_login(other):
                row = other.execute(_WAITS_FOR, [database.backend(connection)]).fetchone()
            database.give_up(connection, terminated_by=other)
    except (psycopg.Error, OSError):
        database.give_up(connection)
        raise
    kind, event, standbys = row or ("nothing", None, "")
    if event == "SyncRep":
        return ServerUnfit(
            f"commits are not finished: synchronous_standby_names is {standbys!r}, and no such standby answers",
            "start that standby, or take it out of synchronous_standby_names and SELECT pg_reload_conf()",
        )
    what = f"{kind}/{event}" if event else kind
    return ServerUnfit(
        f"commits are not finished: one took longer than {limit_s:g} s and waits for {what}",
        "see the server's log, and whether its disk (pg_wal) can be written",
    )


def _explained(database: Database, error: DependencyError) -> RuntimeManagerError:
    cause = error.__cause__
    if isinstance(cause, SessionUnusable):
        return ServerUnfit(f"{database.where}: {cause}", cause.remedy)
    if not isinstance(cause, psycopg.Error) or (not cause.sqlstate and error.remedy):
        return error
    if cause.sqlstate == INSUFFICIENT_PRIVILEGE:
        return ServerUnfit(str(error), f"{_GRANT}: its words name the function, view or table")
    if cause.sqlstate or not isinstance(cause, psycopg.OperationalError):
        return _refused(str(error), refusals.Refusal(cause.sqlstate or "", refusals.remedy_for(cause.sqlstate or "")))
    refusal = database.why_refused()
    changes = database.environment()
    hint = f" (with {_as_list(changes)} of the environment)" if changes else ""
    if refusal.sqlstate:
        return _refused(f"{database.where} takes no connection{hint}: {first_line(cause)}", refusal)
    if changes:
        return _refused(f"{error}{hint}", refusal, f"{refusal.remedy[:-1]}; and are the variables of libpq meant?")
    return _refused(str(error), refusal)


def _refused(message: str, refusal: refusals.Refusal, remedy: str = "") -> RuntimeManagerError:
    """Return the error for a connection that was refused or not answered."""
    kind = ServerAway if refusal.may_pass else ServerUnfit
    return kind(message, remedy or refusal.remedy)


def _environment(database: Database) -> list[str]:
    """Return a warning about libpq's environment variables, except those of passwords, which may be intended."""
    changes = {name: value for name, value in database.environment().items() if not name.startswith("PGPASS")}
    if not changes:
        return []
    return [f"the environment changes the connection: {_as_list(changes)}; write it into {refusals.DSN}, or unset it"]


def _as_list(changes: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def _require_rights(connection: psycopg.Connection[Any]) -> None:
    """Raise `ServerUnfit` for functions and views that PostgreSQL grants to everybody, but that were revoked."""
    lacking = connection.execute(
        b"SELECT 'EXECUTE ON FUNCTION ' || p.oid::regprocedure::text FROM pg_proc p"
        b" WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (%(functions)s)"
        b"   AND NOT has_function_privilege(p.oid, 'EXECUTE')"
        b" UNION ALL SELECT 'SELECT ON ' || c.relname FROM pg_class c"
        b" WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relname = ANY (%(views)s)"
        b"   AND NOT has_table_privilege(c.oid, 'SELECT') ORDER BY 1",
        {"functions": _functions(), "views": list(_VIEWS)},
    ).fetchall()
    if lacking:
        [user] = _row(connection, "SELECT quote_ident(current_user)")
        rights = [right for (right,) in lacking]
        more = f" and {len(rights) - 3} more" if len(rights) > 3 else ""
        raise ServerUnfit(
            f"the role {user} lacks {', '.join(rights[:3])}{more}, which PostgreSQL grants to everybody",
            f"{_GRANT}: GRANT {rights[0]} TO {user}",
        )


@cache
def _functions() -> list[str]:
    """Return the names in our statements that look like function calls."""
    return sorted({*re.findall(r"\b([a-z_]+)\(", b"".join(SQL.values()).decode()), *_OTHER_FUNCTIONS})


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


def _require_pooler_room(database: Database, are_open: int, wanted: int) -> None:
    """Open as many sessions at once as an instance may need; raises `ServerUnfit`.

    A pooler accepts more clients than it has connections, so no setting shows their number.
    """
    with ExitStack() as others:
        # Each opens one more for a moment, to check that no client shares its backend.
        for number in range(are_open, wanted - 1):
            try:
                others.enter_context(database.connect())
            except psycopg.OperationalError as error:
                raise ServerUnfit(
                    f"a pooler before PostgreSQL gives only some {number} connections at once, and one instance may "
                    f"want {wanted}: {first_line(error)}",
                    MORE_CONNECTIONS,
                ) from error


def _room(connection: psycopg.Connection[Any], pool_size: int) -> list[str]:
    """Check the lowest connection limit of server, database and role; returns warnings, or raises `ServerUnfit`.

    It opens no connection for this: others may need the last ones.
    """
    own, database, role, *used = _row(
        connection,
        "SELECT current_setting('max_connections')::integer"
        " - current_setting('superuser_reserved_connections')::integer"
        " - coalesce(current_setting('reserved_connections', true)::integer, 0),"
        " (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),"
        " (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user),"
        " count(*), count(*) FILTER (WHERE datname = current_database()),"
        " count(*) FILTER (WHERE usename = session_user)"
        " FROM pg_stat_activity WHERE usesysid IS NOT NULL AND datid IS NOT NULL",
    )
    wanted = pool_size + BESIDE_THE_POOL
    limits = [each for each in zip(_LIMITS, (own, database, role), used, strict=True) if each[1] >= 0]
    name, least, _ = min(limits, key=lambda each: each[1])
    if least < LEAST_CONNECTIONS:
        raise ServerUnfit(
            f"{name} is {least}, and the service needs {LEAST_CONNECTIONS} connections at least",
            f"raise it to {wanted} or more, for each instance",
        )
    name, least, taken = min(limits, key=lambda each: each[1] - each[2])
    taken = max(0, taken - OF_THIS_CHECK)
    if least - taken < wanted:
        others = f" ({taken} of them are in use)" if taken else ""
        return [
            f"{name} is {least}{others}, and one instance may want {wanted}: raise it, or lower "
            "RTMANAGER_POSTGRES_POOL_SIZE"
        ]
    return []


def _durability(connection: psycopg.Connection[Any]) -> list[str]:
    [commits] = _row(connection, "SELECT current_setting('synchronous_commit')")
    if commits != "off":
        return []
    return ["synchronous_commit is off: a PostgreSQL that crashes forgets what it committed last, set it to on"]


def _clock(connection: psycopg.Connection[Any]) -> list[str]:
    sent_at = host_clock()
    [there] = _row(connection, SQL["clock"].decode())
    here = sent_at + (host_clock() - sent_at) / 2
    offset_s = (here - there).total_seconds()
    if not is_far(offset_s, before=False):
        return []
    both = f"here it is {here:%Y-%m-%dT%H:%M:%SZ}, there {there.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return [f"{described(offset_s)} ({both}): {REMEDY}"]


def _shared_names(connection: psycopg.Connection[Any]) -> list[str]:
    """Return warnings about games that share a name; skips a locked or missing table."""
    shared = list[str]()
    if _row(connection, "SELECT to_regclass('runtime_records') IS NOT NULL") == (True,):
        with suppress(LockNotAvailable), connection.transaction():
            connection.execute(_SHORT_OF_LOCKS_HERE)
            shared = [games for (games,) in connection.execute(SQL["shared_names"])]
    if not shared:
        return []
    more = f" and {len(shared) - MOST_NAMED} more" if len(shared) > MOST_NAMED else ""
    return [
        f"games have one name but for the case, which Docker's DNS ignores, so turns and probes reach either: "
        f"{', '.join(shared[:MOST_NAMED])}{more}; stop one of each and clean it up"
    ]


def _row(connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return tuple(row)
