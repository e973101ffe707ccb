"""Checks whether the schema belongs to this program, is complete, and may be used; `migrate.py` changes it.

An unfinished restore, another tool's `schema_migrations`, or a missing right would otherwise fail a later statement.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from rtmanager.domain.errors import RuntimeManagerError

TABLE = "schema_migrations"
#: Columns of `TABLE`, in every release of this program.
COLUMNS = {"version": "integer", "name": "text", "applied_at": "timestamp with time zone"}
#: A column of another tool's table, and the tool.
_TOOLS = {"dirty": "golang-migrate", "inserted_at": "Ecto", "installed_rank": "Flyway", "md5sum": "Liquibase"}
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")

_MADE = re.compile(
    r"^\s*(CREATE|DROP)\s+(?:UNIQUE\s+)?(TABLE|INDEX|SEQUENCE)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(\w+)",
    re.IGNORECASE | re.MULTILINE,
)
_TABLE_BODY = re.compile(
    r"^CREATE TABLE (?:IF NOT EXISTS )?(\w+) \((.*?)^\);", re.IGNORECASE | re.MULTILINE | re.DOTALL
)
_KEY = re.compile(r"^\s*(?:(\w+) [^\n]*)?PRIMARY KEY(?: \(([^)]*)\))?", re.IGNORECASE | re.MULTILINE)
_UNIQUE = re.compile(r"^CREATE UNIQUE INDEX (\w+)", re.IGNORECASE | re.MULTILINE)
_TABLE_OR_SEQUENCE = ("r", "p", "S")
_KINDS = {"r": "a table", "p": "a partitioned table", "v": "a view", "m": "a materialized view", "f": "a foreign table"}

#: Triggers and rules that fire in this session; first those that can change a write. Bits of a trigger's type: 1 each
#: row, 2 before, 4 insert, 8 delete, 16 update. Event 1 of a rule is SELECT on a view.
_TRIGGERS_AND_RULES = b"""
    WITH tables AS (
        SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = coalesce(nullif(%(schema)s, ''), current_schema()) AND c.relname = ANY (%(tables)s)),
    fires AS (
        SELECT ARRAY['A', CASE current_setting('session_replication_role')
                          WHEN 'replica' THEN 'R' ELSE 'O' END] AS when_)
    SELECT tables.schema, tables.name, 'trigger' AS kind, quote_ident(tgname),
           tgtype & 3 = 3 AND tgtype & 28 <> 0 AS changes
    FROM pg_trigger JOIN tables ON tables.oid = tgrelid, fires
    WHERE NOT tgisinternal AND tgenabled::text = ANY (when_)
    UNION ALL
    SELECT tables.schema, tables.name, 'rule', quote_ident(rulename), true
    FROM pg_rewrite JOIN tables ON tables.oid = ev_class, fires
    WHERE ev_type <> '1' AND ev_enabled::text = ANY (when_)
    ORDER BY changes DESC, 1, 2, 4"""

#: The unique indexes of tables: table, index, whether it is valid and immediate, whether it covers every row, columns.
_UNIQUE_INDEXES = b"""
    SELECT t.relname::text, c.relname::text, i.indisvalid AND i.indimmediate,
           i.indpred IS NULL AND i.indexprs IS NULL,
           array(SELECT a.attname::text FROM pg_attribute a
                 WHERE a.attrelid = t.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE i.indisunique AND n.nspname = %(schema)s AND t.relname = ANY (%(tables)s)"""

#: Tables with a generated column `id`.
_NUMBERED = ("operation_log", "operations", "outbox")
#: For each: whether ids are generated, the sequence, and whether this role may use and read it.
_COUNTERS = b"""
    SELECT c.relnamespace::regnamespace || '.' || quote_ident(c.relname),
           coalesce(a.attidentity <> '' OR a.atthasdef, false),
           s.relnamespace::regnamespace || '.' || quote_ident(s.relname),
           a.attidentity <> '' OR has_sequence_privilege(s.oid, 'USAGE'), has_sequence_privilege(s.oid, 'SELECT')
    FROM pg_class c
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'id'
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.refclassid = d.classid AND d.refobjid = c.oid
                             AND d.refobjsubid = a.attnum AND d.deptype IN ('a', 'i')
    LEFT JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
      AND c.relname = ANY (%(tables)s)
    ORDER BY 1, 3"""


class MigrationFailed(RuntimeManagerError):
    """The schema cannot be used or migrated; the message says why, `remedy` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `migrations/`: `0001_initial.sql` is version 1, named `initial`."""

    version: int
    name: str
    sql: bytes


@cache
def known_migrations() -> Sequence[Migration]:
    """Return this program's migrations in order, as the files were at its start."""
    # Read once: readiness needs them, and an upgrade in place replaces the files under a running process.
    found = []
    for file in (files(__package__) / "migrations").iterdir():
        if file.name.endswith(".sql"):
            version, _, name = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(version), name, file.read_bytes()))
    return tuple(sorted(found, key=lambda migration: migration.version))


@dataclass(frozen=True, slots=True)
class Found:
    """The state of the schema: its name, and its applied, missing and unknown migrations."""

    schema: str
    done: frozenset[int]
    missing: Sequence[Migration]
    unknown: Sequence[int]
    #: About triggers that cannot change a write, but may reject it.
    warnings: Sequence[str] = ()


def look(connection: psycopg.Connection[Any]) -> Found:
    """Check the schema, for `serve` and `check`; raises `MigrationFailed` when it cannot be used."""
    schema = _require_schema(connection)
    done = _applied(connection, schema)
    known = known_migrations()
    missing = [migration for migration in known if migration.version not in done]
    if done:
        _require_relations(connection, schema, [each for each in known if each.version in done], bool(missing))
        require_counters(connection)
    if missing:
        _require_right_to_create(connection, schema)
    warnings = require_plain_tables(connection, schema)
    if missing:
        warnings += _event_triggers(connection)
    return Found(schema, frozenset(done), missing, sorted(done - {migration.version for migration in known}), warnings)


def look_again(connection: psycopg.Connection[Any]) -> None:
    """Check what may change while the manager works, for readiness; raises `MigrationFailed`."""
    schema = _require_schema(connection)
    _require_relations(connection, schema, known_migrations(), False)
    require_plain_tables(connection, schema)
    require_counters(connection)


def require_counters(connection: psycopg.Connection[Any], tables: Sequence[str] = _NUMBERED) -> None:
    """Raise `MigrationFailed` when new rows get no id, or a used one.

    Logical replication, and a restore of the data only, do not copy sequences.
    """
    cursor = connection.cursor(row_factory=tuple_row)
    for table, numbers, sequence, usable, readable in cursor.execute(_COUNTERS, {"tables": list(tables)}).fetchall():
        if not numbers:
            raise MigrationFailed(
                f"nothing gives the rows of {table} an id",
                f"ALTER TABLE {table} ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (START WITH …), above its ids",
            )
        if usable is False:
            raise MigrationFailed(
                f"this role lacks USAGE on {sequence}, which numbers {table}",
                f"GRANT USAGE ON SEQUENCE {sequence} TO it",
            )
        if not readable:
            continue
        query = f"SELECT last_value + is_called::integer, (SELECT max(id) FROM {table}) FROM {sequence}"
        [(following, highest)] = cursor.execute(query.encode()).fetchall()
        if highest is not None and following <= highest:
            raise MigrationFailed(
                f"{sequence} gives {following} as the next id, and {table} has ids up to {highest}",
                f"SELECT setval('{sequence}', (SELECT max(id) FROM {table}))",
            )


def require_plain_tables(connection: psycopg.Connection[Any], schema: str = "") -> list[str]:
    """Check our tables for triggers and rules: returns warnings, or raises `MigrationFailed` if one can change a write.

    A `BEFORE … FOR EACH ROW` trigger or a rule can drop or change a row while PostgreSQL reports success. Those that do
    not fire in this session are ignored. `schema` defaults to the first of the search path.
    """
    rows = connection.execute(_TRIGGERS_AND_RULES, {"schema": schema, "tables": _our_tables()}).fetchall()
    for its_schema, table, kind, name, changes in rows:
        if changes:
            drop = f"DROP {kind.upper()} {name} ON {its_schema}.{table}"
            raise MigrationFailed(
                f"the {kind} {name} on {its_schema}.{table} can drop or change rows without an error",
                f"{drop} (or DISABLE it with ALTER TABLE); an AFTER trigger may stay",
            )
    return [
        f"the trigger {name} on {its_schema}.{table} runs with each write, delays it and may refuse it"
        for its_schema, table, _, name, _ in rows
    ]


def _event_triggers(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute(b"SELECT evtname::text FROM pg_event_trigger WHERE evtenabled IN ('O', 'A') ORDER BY 1")
    names = ", ".join(name for (name,) in rows.fetchall())
    return [f"event triggers may refuse the migrations that are due: {names}"] if names else []


@cache
def _our_tables() -> list[str]:
    return sorted({TABLE, *relations(known_migrations())})


def relations(migrations: Collection[Migration]) -> set[str]:
    """Return the tables, indexes and sequences that exist after these migrations."""
    made: set[str] = set()
    for migration in migrations:
        text = re.sub(r"--[^\n]*", "", migration.sql.decode())
        for verb, _, name in _MADE.findall(text):
            if verb.upper() == "CREATE":
                made.add(name.lower())
            else:
                made.discard(name.lower())
    return made


def primary_keys(migrations: Collection[Migration]) -> dict[str, tuple[str, ...]]:
    """Return the primary key columns by table, as these migrations define them."""
    found: dict[str, tuple[str, ...]] = {}
    for migration in migrations:
        text = re.sub(r"--[^\n]*", "", migration.sql.decode())
        for table, body in _TABLE_BODY.findall(text):
            for column, columns in _KEY.findall(body):
                found[table.lower()] = tuple(re.findall(r"\w+", (columns or column).lower()))
    return found


def _require_schema(connection: psycopg.Connection[Any]) -> str:
    """Return the schema for new tables, the first of the search path; raises `MigrationFailed` without one."""
    current, path, user = _row(
        connection, "SELECT current_schema(), current_setting('search_path'), quote_ident(current_user)"
    )
    named = _first_schema(path)
    if (named or "").startswith("pg_"):
        raise MigrationFailed(
            f"search_path {path!r} begins with {named}, where no table of a service can be",
            "name its own schema first: search_path=… in RTMANAGER_POSTGRES_PRIMARY_DSN (rtmanager if it names none)",
        )
    if current is not None and (named is None or named == current):
        return str(current)
    [there] = _row(connection, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", named or "")
    if there:
        raise MigrationFailed(
            f"role {user} may not use the schema {named!r}",
            f"an administrator grants it with GRANT USAGE, CREATE ON SCHEMA {named} TO {user}",
        )
    raise MigrationFailed(
        f"no schema of search_path {path!r} exists for role {user}",
        f"an administrator creates it with CREATE SCHEMA {named or path} AUTHORIZATION {user}",
    )


def _first_schema(path: str) -> str | None:
    """Return the first schema of a search path; None for the role's own, which need not exist."""
    match = re.match(r'\s*(?:"((?:[^"]|"")*)"|([^,\s"]+))', path)
    if match is None:
        return None
    name = match[1].replace('""', '"') if match[1] is not None else match[2].lower()
    return None if name == "$user" else name


def _applied(connection: psycopg.Connection[Any], schema: str) -> set[int]:
    """Return the applied versions, empty without our table; raises `MigrationFailed` for another program's table."""
    found = connection.execute(
        "SELECT c.relkind::text, pg_get_userbyid(c.relowner), has_table_privilege(c.oid, 'SELECT'), "
        "       array_agg(a.attname::text ORDER BY a.attnum), "
        "       array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE n.nspname = %s AND c.relname = %s GROUP BY c.oid, c.relkind, c.relowner",
        (schema, TABLE),
    ).fetchone()
    if found is None:
        return set()
    kind, owner, readable, names, types = found
    columns = dict(zip(names or (), types or (), strict=True))
    if kind not in ("r", "p"):
        raise _foreign(schema, f"it is {_KINDS.get(kind, 'no table')}")
    if any(columns.get(name) != its_type for name, its_type in COLUMNS.items()):
        raise _foreign(schema, _as_columns(columns))
    if not readable:
        raise MigrationFailed(
            f"{TABLE} of schema {schema!r} belongs to role {owner}, and this role may not read it",
            f"ALTER TABLE {schema}.{TABLE} OWNER TO this role, and every other table with it",
        )
    rows = dict(connection.execute(f'SELECT version, name FROM "{_quoted(schema)}".{TABLE}'.encode()).fetchall())
    known = {migration.version: migration.name for migration in known_migrations()}
    other = [f"{version} {name}" for version, name in rows.items() if known.get(version, name) != name]
    if other or (rows and min(known) not in rows):
        listed = ", ".join((other or [f"{version} {name}" for version, name in rows.items()])[:3])
        raise _foreign(schema, f"it holds {listed}")
    return set(rows)


def _foreign(schema: str, how: str) -> MigrationFailed:
    return MigrationFailed(
        f"{TABLE} of schema {schema!r} is another program's ({how[:200]})",
        "give this service a schema of its own (CREATE SCHEMA …, and search_path=… in RTMANAGER_POSTGRES_PRIMARY_DSN)",
    )


def _as_columns(columns: dict[str, str]) -> str:
    listed = ", ".join(f"{name} {its_type}" for name, its_type in columns.items()) or "no columns"
    tool = next((tool for column, tool in _TOOLS.items() if column in columns), "")
    return f"{tool}'s: {listed}" if tool else f"its columns are {listed}"


def _require_relations(
    connection: psycopg.Connection[Any], schema: str, applied: Collection[Migration], migrates: bool
) -> None:
    """Raise `MigrationFailed` unless everything that the migrations made exists and this role may use it."""
    wanted = relations(applied)
    rows = connection.execute(
        "SELECT c.relname::text, c.relkind::text, pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE'), "
        "       c.relkind IN ('r', 'p') AND row_security_active(c.oid), "
        "       CASE WHEN c.relkind IN ('r', 'p') THEN array(SELECT r FROM unnest(%s::text[]) r "
        "                 WHERE NOT has_table_privilege(c.oid, r)) "
        "            WHEN c.relkind = 'S' THEN array(SELECT r FROM unnest(ARRAY['USAGE', 'UPDATE']) r "
        "                 WHERE NOT has_sequence_privilege(c.oid, r)) ELSE '{}' END "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = ANY (%s)",
        (list(_RIGHTS), schema, sorted(wanted)),
    ).fetchall()
    lacking = sorted(wanted - {row[0] for row in rows})
    if lacking:
        raise MigrationFailed(
            f"the schema {schema!r} lacks {', '.join(lacking)}, though {TABLE} says that it was made",
            "finish the restore, or restore the whole schema; to begin anew, drop every table of it",
        )
    for name, kind, owner, ours, hides, rights in sorted(rows):
        if kind in ("v", "m", "f"):
            raise MigrationFailed(f"{schema}.{name} is {_KINDS[kind]}, and has to be a table", "restore the table")
        if rights:
            raise MigrationFailed(
                f"this role lacks {', '.join(rights)} on {schema}.{name}, which belongs to role {owner}",
                f"ALTER {'SEQUENCE' if kind == 'S' else 'TABLE'} {schema}.{name} OWNER TO this role, "
                f"or GRANT {', '.join(rights)} ON {schema}.{name} TO it",
            )
        if hides:
            raise MigrationFailed(
                f"row-level security hides rows of {schema}.{name} from this role",
                f"ALTER TABLE {schema}.{name} NO FORCE ROW LEVEL SECURITY, DISABLE it, or give the role BYPASSRLS",
            )
        if migrates and not ours and kind in _TABLE_OR_SEQUENCE:
            raise MigrationFailed(
                f"{schema}.{name} belongs to role {owner}, and migrations are due that only its owner can make",
                f"ALTER TABLE {schema}.{name} OWNER TO this role, or run `migrate` as {owner}",
            )
    _require_keys(connection, schema, applied)


def _require_keys(connection: psycopg.Connection[Any], schema: str, applied: Collection[Migration]) -> None:
    """Raise `MigrationFailed` when a primary key or a unique index is missing.

    A dump has them after the rows, so a restore may have stopped before them.
    """
    keys = primary_keys(applied)
    text = "\n".join(migration.sql.decode() for migration in applied)
    rows = connection.execute(_UNIQUE_INDEXES, {"schema": schema, "tables": sorted(keys)}).fetchall()
    holds = {index for _, index, holds, _, _ in rows if holds}
    kept = {(table, frozenset(columns)) for table, _, holds, whole, columns in rows if holds and whole}
    for table, columns in keys.items():
        if (table, frozenset(columns)) not in kept:
            listed = ", ".join(columns)
            raise MigrationFailed(
                f"{schema}.{table} lacks its primary key ({listed}), so rows may stand there twice",
                f"remove rows that do, then ALTER TABLE {schema}.{table} ADD PRIMARY KEY ({listed})",
            )
    for index in sorted({name.lower() for name in _UNIQUE.findall(text)} & relations(applied)):
        if index not in holds:
            raise MigrationFailed(
                f"{schema}.{index} is no unique index, or not a valid one",
                f"DROP INDEX {schema}.{index}, then make it as the migrations of this program do",
            )


def _require_right_to_create(connection: psycopg.Connection[Any], schema: str) -> None:
    may, user = _row(connection, "SELECT has_schema_privilege(%s, 'CREATE'), quote_ident(current_user)", schema)
    if not may:
        raise MigrationFailed(
            f"role {user} may not create tables in the schema {schema!r}",
            f"an administrator grants it with GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}",
        )


def _row(connection: psycopg.Connection[Any], query: str, *values: object) -> tuple[Any, ...]:
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return tuple(row)


def _quoted(name: str) -> str:
    return name.replace('"', '""')
