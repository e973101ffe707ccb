"""A real PostgreSQL for tests: one server, and as many fresh databases as tests want.

The server's data directory is prepared in its image and durability is off. `galaxy` is the database that
the Runtime Manager finds in operation (contract §4): schema `rtmanager`, owned by the role
`rtmanagerservice`, which is no superuser. It is also the template of what `create_database` makes.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, LiteralString
from urllib.parse import quote

from harness import container, images, listening
from harness.listening import Endpoint

if TYPE_CHECKING:
    import psycopg

PORT = 5432
DATABASE = "galaxy"
SCHEMA = "rtmanager"
ROLE = "rtmanagerservice"
SUPERUSER = "postgres"

#: A server of this machine that has not answered after so many seconds is another program, or stuck.
CONNECT_TIMEOUT_S = 2

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

    def dsn(self, database: str = DATABASE, role: str = ROLE) -> str:
        """The address of `database` for `role`, with the schema as its search path."""
        options = quote(f"-csearch_path={SCHEMA}", safe="")
        return f"postgresql://{role}:{role}@{self.host}:{self.port}/{database}?options={options}"

    def connect(self, database: str = DATABASE, role: str = SUPERUSER) -> "psycopg.Connection[Any]":
        """A connection of the test's own, as superuser unless told otherwise; each statement commits."""
        import psycopg

        return psycopg.connect(self.dsn(database, role), autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)

    def create_database(self, template: str = DATABASE) -> "Database":
        """A new database like `template`, which nobody may be connected to."""
        from psycopg import sql

        name = f"galaxy_{secrets.token_hex(5)}"
        make = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(template)
        )
        with self.connect("postgres") as connection:
            connection.execute(make)
        return Database(self, name)

    def close(self) -> None:
        """Take the server away, with all its databases."""
        self.container.remove()


@dataclass(frozen=True)
class Database:
    """One database of a server."""

    server: Postgres
    name: str

    @property
    def dsn(self) -> str:
        """Its address for the Runtime Manager's role."""
        return self.server.dsn(self.name)

    def connect(self, role: str = SUPERUSER) -> "psycopg.Connection[Any]":
        """A connection of the test's own; each statement commits."""
        return self.server.connect(self.name, role)

    def empty(self, keep: Collection[str] = ("schema_migrations",)) -> None:
        """Empty every table of the schema but those to `keep`; sequences start anew. Triggers do not fire."""
        values = {"schema": SCHEMA, "keep": list(keep), "limit": TRUNCATE_FROM_BYTES}
        with self.connect() as connection:
            row = connection.execute(_EMPTYING, values).fetchone()
            if row and row[0]:
                # As a replica would: foreign keys and append-only triggers do not stand in the way.
                connection.execute("SET session_replication_role = replica")
                connection.execute(row[0].encode())

    def drop(self) -> None:
        """Drop it, ending the connections that are still open."""
        from psycopg import sql

        with self.server.connect("postgres") as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.name)))


def start(image: str | None = None) -> Postgres:
    """Start a server and wait until it answers; raises WaitFailed with its log."""
    return Postgres(*listening.start(image or images.postgres(), PORT, _listen, _wait))


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
        with server.connect() as connection:
            return connection.execute("SHOW cluster_name").fetchone() == (at.mark,)

    running.wait_until("PostgreSQL", answers, retry_on=(psycopg.OperationalError,))
