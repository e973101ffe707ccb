"""A real PostgreSQL for tests: one server, and as many fresh databases as tests want.

    with postgres.start() as server:
        database = server.create_database(postgres.PLAIN)
        with database.connect() as connection:
            connection.execute("CREATE TABLE turns (number int)")

The server's data directory is prepared in its image and durability is off. A `Layout` says what a new database
is like and who uses it: PLAIN is an empty one, for any project; RUNTIME_MANAGER is what the Runtime Manager finds
in operation (docs/contract.md): a schema `rtmanager`, owned by the role `rtmanagerservice`, which is no superuser.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, LiteralString
from urllib.parse import quote

from harness import container, images, listening
from harness.kept import KeptConnections
from harness.listening import Endpoint

if TYPE_CHECKING:
    import psycopg

PORT = 5432
SUPERUSER = "postgres"


@dataclass(frozen=True)
class Layout:
    """What a database is made like, the role that uses it, and the schema that holds its tables."""

    template: str
    role: str
    schema: str


#: What the Runtime Manager finds in operation.
RUNTIME_MANAGER = Layout(template="galaxy", role="rtmanagerservice", schema="rtmanager")

#: An empty database of the superuser, for whatever a project wants to put into it.
PLAIN = Layout(template="template1", role=SUPERUSER, schema="public")

#: A server of this machine that has not answered after so many seconds is another program, or stuck.
CONNECT_TIMEOUT_S = 2

#: How the connections that empty databases are called in pg_stat_activity.
EMPTYING = "harness, emptying"

#: Emptying waits no longer for a table that a test has left locked.
LOCK_TIMEOUT_MS = 5000

#: A table beyond this many bytes is truncated; a smaller one is emptied ten times faster row by row.
TRUNCATE_FROM_BYTES = 1 << 20

#: What empties the schema, as one text: all statements for the tables, then for the sequences.
_EMPTYING: LiteralString = """
    SELECT string_agg(format(statement, object::regclass), '; ' ORDER BY step)
    FROM (
        SELECT 1 AS step, oid AS object,
               CASE WHEN pg_relation_size(oid) > %(limit)s
                    THEN 'TRUNCATE %%s CASCADE' ELSE 'DELETE FROM %%s' END
        FROM pg_class
        WHERE relnamespace = %(schema)s::regnamespace AND relkind = 'r' AND relname <> ALL (%(keep)s)
        UNION ALL
        SELECT 2, seqrelid, 'SELECT setval(''%%s'', ' || seqstart || ', false)'
        FROM pg_sequence JOIN pg_class ON oid = seqrelid WHERE relnamespace = %(schema)s::regnamespace
    ) AS todo (step, object, statement)
"""


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server."""

    container: container.Container
    host: str
    port: int

    def __enter__(self) -> "Postgres":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def dsn(self, database: str, role: str = SUPERUSER, schema: str = PLAIN.schema) -> str:
        """The address of `database` for `role`, with `schema` as its search path."""
        options = quote(f"-csearch_path={schema}", safe="")
        return f"postgresql://{role}:{role}@{self.host}:{self.port}/{database}?options={options}"

    @cached_property
    def kept(self) -> KeptConnections:
        """Connections for emptying its databases."""
        return KeptConnections(self._connect_to_empty)

    def _connect_to_empty(self, database: str) -> "psycopg.Connection[Any]":
        settings = {
            "application_name": EMPTYING,
            # As a replica would: foreign keys and append-only triggers do not stand in the way.
            "session_replication_role": "replica",
            "lock_timeout": str(LOCK_TIMEOUT_MS),
        }
        connection = _connect(self.dsn(database))
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        return connection

    def maintain(self) -> "psycopg.Connection[Any]":
        """A superuser's connection to the database `postgres`, which is nobody's; each statement commits."""
        return _connect(self.dsn("postgres"))

    def create_database(self, layout: Layout = RUNTIME_MANAGER) -> "Database":
        """A new database by `layout`, whose template nobody may be connected to."""
        from psycopg import sql

        self.kept.forget(layout.template)
        name = f"it_{secrets.token_hex(5)}"
        make = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(layout.template)
        )
        with self.maintain() as connection:
            connection.execute(make)
        return Database(self, name, layout)

    def close(self) -> None:
        """Take the server away, with all its databases."""
        self.kept.close()
        self.container.remove()


@dataclass(frozen=True)
class Database:
    """One database of a server."""

    server: Postgres
    name: str
    layout: Layout = RUNTIME_MANAGER

    @property
    def dsn(self) -> str:
        """Its address for the role that uses it."""
        return self.server.dsn(self.name, self.layout.role, self.layout.schema)

    def connect(self, role: str = SUPERUSER) -> "psycopg.Connection[Any]":
        """A connection of the test's own, as superuser unless told otherwise; each statement commits."""
        return _connect(self.server.dsn(self.name, role, self.layout.schema))

    def empty(self, keep: Collection[str] = ("schema_migrations",)) -> None:
        """Empty every table of the schema but those to `keep`; sequences start anew. Triggers do not fire."""
        values = {"schema": self.layout.schema, "keep": list(keep), "limit": TRUNCATE_FROM_BYTES}

        def empty(connection: "psycopg.Connection[Any]") -> None:
            # Looked up each time: a test may have made tables.
            row = connection.execute(_EMPTYING, values).fetchone()
            if row and row[0]:
                connection.execute(row[0].encode())

        self.server.kept.use(self.name, empty)

    def drop(self) -> None:
        """Drop it, ending the connections that are still open."""
        from psycopg import sql

        self.server.kept.forget(self.name)
        with self.server.maintain() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.name)))


def start(image: str | None = None) -> Postgres:
    """Start a server and wait until it answers; raises WaitFailed with its log."""
    return Postgres(*listening.start("postgres", image or images.postgres(), PORT, _listen, _wait))


def _connect(dsn: str) -> "psycopg.Connection[Any]":
    import psycopg

    return psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)


def _listen(at: Endpoint) -> list[str]:
    settings = {
        "listen_addresses": at.host,
        "port": str(at.port),
        "unix_socket_directories": "",
        "cluster_name": at.mark,
    }
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _wait(running: container.Container, at: Endpoint) -> None:
    import psycopg

    server = Postgres(running, at.host, at.port)

    def answers() -> bool:
        with server.maintain() as connection:
            return connection.execute("SHOW cluster_name").fetchone() == (at.mark,)

    running.wait_until("PostgreSQL", answers, retry_on=(psycopg.OperationalError,))
