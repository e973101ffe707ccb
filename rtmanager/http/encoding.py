"""Encodes a game's health and operation log as JSON.

PostgreSQL returns records as JSON (`adapters/postgres/sql/records.sql`), so a list of thousands costs a quarter of the
work.
"""

from __future__ import annotations

from datetime import UTC, datetime

from rtmanager.domain.findings import HealthReport
from rtmanager.domain.operation import LogEntry
from rtmanager.domain.outage import LastExit


def encode_health(game_id: str, report: HealthReport) -> dict[str, object]:
    """All nine fields; the five of the snapshot are null when there is none."""
    snapshot, last_exit = report.snapshot, report.last_exit
    return {
        "game_id": game_id,
        "status": snapshot.status.value if snapshot else None,
        "container_id": snapshot.container_id if snapshot else None,
        "source": snapshot.source.value if snapshot else None,
        "details": dict(snapshot.details) if snapshot else None,
        "observed_at": _time(snapshot.observed_at) if snapshot else None,
        "last_exit": _last_exit(last_exit) if last_exit else None,
        "restart_due_at": _time(report.restart_due_at),
        "probe_restart_given_up": report.probe_restart_given_up,
    }


def encode_logged(row_id: int, entry: LogEntry) -> dict[str, object]:
    """A row of the operation log with its id; the fields are the columns of the table."""
    return {
        "id": row_id,
        "game_id": entry.game_id,
        "op_kind": entry.kind.value,
        "op_source": entry.source.value,
        "source_ref": entry.source_ref,
        "image_ref": entry.image_ref,
        "container_id": entry.container_id,
        "outcome": entry.outcome.value,
        "error_code": entry.error_code.value if entry.error_code else None,
        "error_message": entry.error_message,
        "started_at": _time(entry.started_at),
        "finished_at": _time(entry.finished_at),
    }


def _last_exit(last_exit: LastExit) -> dict[str, object]:
    return {
        "container_id": last_exit.container_id,
        "exit_code": last_exit.exit_code,
        "oom": last_exit.oom,
        "exited_at": _time(last_exit.exited_at),
        "log": last_exit.log,
        "requested_by": last_exit.requested_by.value,
        "budget_used_up": last_exit.budget_used_up,
    }


def _time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the microsecond."""
    if moment is None:
        return None
    moment = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
