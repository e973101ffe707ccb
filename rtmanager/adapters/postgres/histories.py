"""Reads the health and the operation log of a game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.queries import SQL
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.findings import HealthReport, Snapshot
from rtmanager.domain.health import HealthSource, HealthStatus
from rtmanager.domain.operation import LogEntry, OpKind, OpSource, Outcome
from rtmanager.domain.outage import LastExit, RequestedBy


class PostgresHistories:
    """`Histories`. Raises `Unavailable` while PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def health(self, game_id: str) -> HealthReport:
        """See the port."""
        values = {"game_id": game_id}
        with self._database.transaction("health") as connection:
            snapshot = connection.execute(SQL["get_snapshot"], values).fetchone()
            last_exit = connection.execute(SQL["get_last_exit"], values).fetchone()
            [restart] = connection.execute(SQL["get_next_restart"], values).fetchall()
        return HealthReport(
            snapshot=_snapshot(snapshot) if snapshot else None,
            last_exit=_last_exit(last_exit) if last_exit else None,
            restart_due_at=restart["due_at"],
            probe_restart_given_up=restart["given_up"],
        )

    def log(self, game_id: str, *, before: int | None, limit: int) -> Sequence[tuple[int, LogEntry]]:
        """See the port."""
        values = {"game_id": game_id, "before": before, "limit": limit}
        return [(row["id"], _entry(row)) for row in self._database.read("log", SQL["list_log"], values)]


def _last_exit(row: Mapping[str, Any]) -> LastExit:
    return LastExit(**{**row, "requested_by": RequestedBy(row["requested_by"])})


def _snapshot(row: Mapping[str, Any]) -> Snapshot:
    return Snapshot(
        container_id=row["container_id"],
        status=HealthStatus(row["status"]),
        source=HealthSource(row["source"]),
        details=row["details"],
        observed_at=row["observed_at"],
    )


def _entry(row: Mapping[str, Any]) -> LogEntry:
    return LogEntry(
        game_id=row["game_id"],
        kind=OpKind(row["op_kind"]),
        source=OpSource(row["op_source"]),
        source_ref=row["source_ref"],
        outcome=Outcome(row["outcome"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        image_ref=row["image_ref"],
        container_id=row["container_id"],
        error_code=ErrorCode(row["error_code"]) if row["error_code"] else None,
        error_message=row["error_message"],
    )
