"""Stores the daemon on record, and the deployment id that labels contain."""

from __future__ import annotations

from typing import Any

import psycopg

from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.queries import SQL, dropped, values_of
from rtmanager.domain.daemon import Daemon
from rtmanager.domain.errors import IN_MESSAGE
from rtmanager.ports.store import StoreRejected


class PostgresDaemons:
    """`DaemonRecords` of one database. Raises `Unavailable` while PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recorded(self) -> Daemon | None:
        """See the port."""
        rows = self._database.read("daemon", SQL["recorded_daemon"], {})
        return Daemon(**rows[0]) if rows else None

    def recorded_before_migrations(self) -> Daemon | None:
        """Like `recorded`, outside the pool; None also when the schema lacks the table. Raises `StoreRejected`."""
        with self._database.watched(), self._database.connect() as connection:
            [found] = connection.execute(b"SELECT to_regclass('daemon') IS NOT NULL").fetchone() or (False,)
            if found:
                _require_deployment(connection)
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

    def require_deployment(self, known: str) -> None:
        """Raise `StoreRejected` unless the table has this id, which the containers of this instance's games have."""
        rows = self._database.read("deployment_id", SQL["known_deployment"], {})
        if not rows:
            raise _lost(known)
        if str(rows[0]["id"]) != known:
            raise _unfit(
                f"the table deployment has another id, {rows[0]['id']}, than at the start",
                f"UPDATE rtmanager.deployment SET id = '{known}', or start this instance again",
            )

    def deployment_id(self) -> str:
        """See the port."""
        with self._database.transaction("deployment_id") as connection:
            _require_deployment(connection)
            return str(_the_one_row(connection, "deployment", "deployment_id", {})["id"])


def _lost(known: str) -> StoreRejected:
    return _unfit(
        "the table deployment is empty, and with a new id all games' containers would count as another's",
        f"INSERT INTO rtmanager.deployment (id) VALUES ('{known}')",
    )


def _unfit(message: str, remedy: str) -> StoreRejected:
    error = StoreRejected(f"{message}; {remedy}")  # readiness shows the message alone
    error.remedy = IN_MESSAGE
    return error


def _require_deployment(connection: psycopg.Connection[Any]) -> None:
    """Raise `StoreRejected` where a new id would hide the containers of all games."""
    if connection.execute(SQL["lost_deployment"]).fetchone():
        raise _lost("<the label com.galaxy.deployment of a game's container>")


def _the_one_row(connection: Connection, table: str, statement: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the only row of a table; the statement creates a missing one. Raises `StoreRejected` without a row."""
    row = connection.execute(SQL[statement], values).fetchone()
    if row is None:  # another instance has just created it, outside this statement's snapshot
        row = connection.execute(SQL[statement], values).fetchone()
    if row is None:
        raise dropped(f"{table}: 0 of 1")
    return row
