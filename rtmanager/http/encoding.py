"""What the store holds of a game, as JSON.

PostgreSQL writes records that are listed by itself (`list_records_as_json`), and in the same form.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from rtmanager.domain.findings import HealthReport, LastExit
from rtmanager.domain.operation import LogEntry
from rtmanager.domain.record import RuntimeRecord


def encode_record(record: RuntimeRecord) -> dict[str, str | None]:
    """All twelve fields, null where there is nothing (contract, "REST")."""
    return {
        "game_id": record.game_id,
        "status": record.status.value,
        "current_container_id": record.current_container_id,
        "current_image_ref": record.current_image_ref,
        "engine_endpoint": record.engine_endpoint,
        "state_path": record.state_path,
        "docker_network": record.docker_network,
        "started_at": _time(record.started_at),
        "stopped_at": _time(record.stopped_at),
        "removed_at": _time(record.removed_at),
        "last_op_at": _time(record.last_op_at),
        "created_at": _time(record.created_at),
    }


def record_json(record: RuntimeRecord) -> str:
    """The same as text."""
    return json.dumps(encode_record(record))


def encode_health(game_id: str, report: HealthReport) -> dict[str, object]:
    """All eight fields; the five of the snapshot are null when there is none."""
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
    }


def encode_logged(row_id: int, entry: LogEntry) -> dict[str, object]:
    """A row of the operation log with its id, the columns of the table."""
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
    }


def _time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the microsecond."""
    if moment is None:
        return None
    moment = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
