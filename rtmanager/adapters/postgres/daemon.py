"""Whose containers the records are about: the daemon on record, and the deployment that labels name."""

from __future__ import annotations

from typing import Any

from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.queries import SQL, dropped, values_of
from rtmanager.domain.daemon import Daemon


class PostgresDaemons:
    """`DaemonRecords` of one database. Raises `Unavailable` while PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recorded(self) -> Daemon | None:
        """See the port."""
        rows = self._database.read("daemon", SQL["recorded_daemon"], {})
        return Daemon(**rows[0]) if rows else None

    def recorded_before_migrations(self) -> Daemon | None:
        """As `recorded`, without the pool; None also for a schema that has no such table yet."""
        with self._database.watched(), self._database.connect() as connection:
            [found] = connection.execute(b"SELECT to_regclass('daemon') IS NOT NULL").fetchone() or (False,)
            row = connection.execute(SQL["recorded_daemon"]).fetchone() if found else None
        return Daemon(*map(str, row)) if row else None

    def record(self, daemon: Daemon) -> Daemon:
        """See the port."""
        with self._database.transaction("record_daemon") as connection:
            return Daemon(**_the_one_row(connection, "daemon", "record_daemon", values_of(daemon)))

    def accept(self, daemon: Daemon, *, new_deployment: bool = False) -> None:
        """See the port."""
        with self._database.transaction("accept_daemon") as connection:
            connection.execute(SQL["forget_daemon"])
            _the_one_row(connection, "daemon", "record_daemon", values_of(daemon))
            if new_deployment:
                connection.execute(SQL["forget_deployment"])
                _the_one_row(connection, "deployment", "deployment_id", {})

    def deployment_id(self) -> str:
        """See the port."""
        with self._database.transaction("deployment_id") as connection:
            return str(_the_one_row(connection, "deployment", "deployment_id", {})["id"])


def _the_one_row(connection: Connection, table: str, statement: str, values: dict[str, Any]) -> dict[str, Any]:
    """The row of a table that has one, made by the statement if it was missing."""
    row = connection.execute(SQL[statement], values).fetchone()
    if row is None:  # another instance made it just now, which this statement's snapshot did not see
        row = connection.execute(SQL[statement], values).fetchone()
    if row is None:
        raise dropped(f"{table}: 0 of 1")
    return row
