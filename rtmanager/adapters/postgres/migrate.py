"""Applies the embedded migrations: numbered SQL files, in order, all missing ones in one transaction.

Safe for several instances at once: an advisory lock serialises them, and each finds what another applied. It creates no
schema and no role: these belong to the operator of PostgreSQL. A database that is ahead of this program, after a newer
release, is used unchanged. So going back one release works, and migrations only add.
"""

from __future__ import annotations

import logging

import psycopg

from rtmanager import failpoints
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.pooled import first_line
from rtmanager.adapters.postgres.queries import require_kept
from rtmanager.adapters.postgres.schema import Migration, MigrationFailed, look
from rtmanager.adapters.postgres.server import require_commits

_TAKE_TURN = b"SELECT pg_advisory_xact_lock(hashtext(current_schema() || '.migrations'))"
_CREATE_TABLE = b"""
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""


def migrate(database: Database, logger: logging.Logger) -> list[str]:
    """Apply the missing migrations; returns their names.

    Raises `MigrationFailed`, or `Unavailable` when PostgreSQL does not answer.
    """
    applied = []
    with database.translated(), database.connect() as connection:
        try:
            connection.execute(b"SET statement_timeout = 0")  # migrations, and another instance's, may take long
            if look(connection).missing:
                require_commits(database, connection, database.step_s)
            with connection.transaction():
                connection.execute(_TAKE_TURN)
                connection.execute(_CREATE_TABLE)
                found = look(connection)  # again: another instance may have migrated meanwhile
                for migration in found.missing:
                    _apply(connection, migration)
                    applied.append(migration.name)
                failpoints.before("postgres.migrate")
            failpoints.after("postgres.migrate")
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise MigrationFailed(
                f"the schema could not be migrated: {first_line(error)}",
                "what stands in its way is named there; nothing was changed",
            ) from error
    if found.unknown:
        logger.warning("the database is ahead of this program", extra={"unknown_migrations": found.unknown})
    return applied


def _apply(connection: psycopg.Connection[tuple[object, ...]], migration: Migration) -> None:
    connection.execute(migration.sql)
    noted = connection.execute(
        b"INSERT INTO schema_migrations (version, name) VALUES (%s, %s)", (migration.version, migration.name)
    )
    require_kept("schema_migrations", noted.rowcount, 1)
