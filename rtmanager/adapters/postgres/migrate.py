"""Embedded migrations: numbered SQL files, applied in order, each in one transaction with its own record.

Safe to run from several instances at once: they take turns by an advisory lock and each finds done what
another did. No schema and no role is created here: those belong to whoever runs PostgreSQL. A database that is
ahead of this program (a newer instance was here) is used as it is, so that going back one release works;
migrations therefore only add.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.resources import files

import psycopg

from rtmanager import failpoints
from rtmanager.adapters.postgres.database import Database
from rtmanager.domain.errors import RuntimeManagerError

_TAKE_TURN = b"SELECT pg_advisory_xact_lock(hashtext(current_schema() || '.migrations'))"
_CREATE_TABLE = b"""
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""


class MigrationFailed(RuntimeManagerError):
    """The schema could not be brought up to date; the message says at which migration, and why."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `migrations/`: `0001_initial.sql` is version 1, named `initial`."""

    version: int
    name: str
    sql: bytes


def known_migrations() -> list[Migration]:
    """The migrations of this program in their order."""
    found = []
    for file in (files(__package__) / "migrations").iterdir():
        if file.name.endswith(".sql"):
            version, _, name = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(version), name, file.read_bytes()))
    return sorted(found, key=lambda migration: migration.version)


def migrate(database: Database, logger: logging.Logger) -> list[str]:
    """Apply what is missing; returns the names of what was applied now.

    Raises `MigrationFailed`, or `Unavailable` when PostgreSQL does not answer.
    """
    applied = []
    with database.translated(), database.connect() as connection:
        try:
            connection.execute(b"SET statement_timeout = 0")  # a migration, or waiting for another's, may take long
            _require_schema(connection)
            with connection.transaction():
                connection.execute(_TAKE_TURN)
                connection.execute(_CREATE_TABLE)
                rows = connection.execute(b"SELECT version FROM schema_migrations")
                done = {int(str(row[0])) for row in rows}
                for migration in known_migrations():
                    if migration.version not in done:
                        _apply(connection, migration)
                        applied.append(migration.name)
                failpoints.before("postgres.migrate")
            failpoints.after("postgres.migrate")
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise MigrationFailed(f"the schema could not be migrated: {error}") from error
    ahead = done - {migration.version for migration in known_migrations()}
    if ahead:
        logger.warning("the database is ahead of this program", extra={"unknown_migrations": sorted(ahead)})
    return applied


def _apply(connection: psycopg.Connection[tuple[object, ...]], migration: Migration) -> None:
    connection.execute(migration.sql)
    connection.execute(
        b"INSERT INTO schema_migrations (version, name) VALUES (%s, %s)", (migration.version, migration.name)
    )


def _require_schema(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    row = connection.execute(b"SELECT current_schema(), current_setting('search_path'), current_user").fetchone()
    assert row is not None
    schema, search_path, user = row
    if schema is None:
        raise MigrationFailed(
            f"no schema of search_path {search_path!r} exists for role {user}: "
            f"an administrator creates it with CREATE SCHEMA {search_path} AUTHORIZATION {user}"
        )
