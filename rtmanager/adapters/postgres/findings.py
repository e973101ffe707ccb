"""Writes findings of the watching workers, each in one transaction and once, whichever instances report it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg

from rtmanager.adapters.postgres.answers import is_silence
from rtmanager.adapters.postgres.changes import write_finding
from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.queries import SQL, require_kept, values_of
from rtmanager.adapters.postgres.records import read_record
from rtmanager.adapters.postgres.session_lock import NAMES_CLASS
from rtmanager.domain.drift import RunningGame
from rtmanager.domain.findings import Alarm, AlarmKind, Finding, RestartCause
from rtmanager.domain.operation import OpKind, OpSource, Request
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.domain.restarts import restart_request, status_before
from rtmanager.ports.store import StoreRejected
from rtmanager.ports.watching import (
    AHEAD_S,
    AHEAD_TIMES,
    MOST_AT_ONCE,
    OOM_PAUSE_S,
    WriteResult,
)

#: Kind and source of a restart after a crash.
_RESTART: dict[str, object] = {"kind": OpKind.RESTART, "source": OpSource.AUTO_RECONCILE}


class _Undo(Exception):
    """Rolls the transaction back; carries the result for the caller."""

    def __init__(self, result: WriteResult) -> None:
        super().__init__(result)
        self.result = result


class PostgresFindings:
    """`Findings` and `Leases` for the instance `owner`. Raises `Unavailable` while PostgreSQL does not answer."""

    def __init__(self, database: Database, owner: int) -> None:
        self._database = database
        self._owner = owner

    def write(self, finding: Finding) -> WriteResult:
        """See the port. Raises `StoreRejected` for what PostgreSQL will never accept; nothing is written then."""
        try:
            with self._database.transaction("finding") as connection:
                _write(connection, finding)
        except _Undo as undo:
            return undo.result
        except StoreRejected as error:
            raise StoreRejected(f"a finding about game {finding.game_id}: {error}", sqlstate=error.sqlstate) from error
        return WriteResult.WRITTEN

    def busy(self, game_id: str) -> bool:
        """See the port."""
        (row,) = self._database.read("busy", SQL["game_is_busy"], {"game_id": game_id})
        return bool(row["busy"])

    def alarms(self, kind: AlarmKind) -> Mapping[str, Alarm]:
        """See the port."""
        return {
            row["game_id"]: Alarm(kind, **{name: value for name, value in row.items() if name != "game_id"})
            for row in self._database.read("alarms", SQL["list_alarms"], {"kind": kind})
        }

    def running(self) -> Sequence[RunningGame]:
        """See the port."""
        return [RunningGame(**row) for row in self._database.read("records", SQL["running_games"], {})]

    def records_of(self, game_ids: Collection[str]) -> Sequence[RuntimeRecord]:
        """See the port."""
        values = {"game_ids": list(game_ids)}
        return [read_record(row) for row in self._database.read("records_of", SQL["records_of"], values)]

    def namesakes(self, game_ids: Collection[str]) -> Mapping[str, str]:
        """See the port."""
        rows = self._database.read("namesakes", SQL["namesakes"], {"game_ids": list(game_ids)})
        return {row["game_id"]: row["namesake"] for row in rows}

    def stopped_before(self, moment: datetime, limit: int) -> Sequence[RuntimeRecord]:
        """See the port."""
        values = {"moment": moment, "limit": limit}
        return [read_record(row) for row in self._database.read("stopped_before", SQL["stopped_before"], values)]

    def forget_old_alarms(self) -> None:
        """See the port."""
        self._database.write("forget_old_alarms", SQL["forget_old_alarms"], {})

    def now(self) -> datetime:
        """See the port."""
        (row,) = self._database.read("now", SQL["clock"], {})
        now: datetime = row["now"]
        return now

    def queue_restart(
        self,
        due_by: datetime,
        *,
        cause: RestartCause = RestartCause.CRASH,
        at_once: int = MOST_AT_ONCE,
        oldest: datetime | None = None,
        pauses_s: Sequence[float] = (),
        refused: Callable[[str, StoreRejected], None] | None = None,
    ) -> Sequence[Request]:
        """See the port."""
        queued = []
        with self._database.transaction("queue_restart") as connection:
            limit = at_once - (_under_way(connection) if cause is RestartCause.OUTAGE else 0)
            due = {"due_by": due_by, "pauses_s": list(pauses_s), "cause": cause, "limit": max(0, limit)}
            for row in connection.execute(SQL["lock_due_restarts"], due).fetchall():
                request = restart_request(row["game_id"], row["container_id"], cause, row["tries"])
                image_ref = None
                if oldest is None or row["due_at"] >= oldest:
                    try:
                        image_ref = _submit_restart(connection, request, row["container_id"], status_before(cause))
                    except StoreRejected as error:
                        if refused is not None:
                            refused(request.game_id, error)
                if image_ref is not None:
                    queued.append(replace(request, image_ref=image_ref))
                taken = {"game_id": request.game_id, "queued": image_ref is not None}
                connection.execute(SQL["take_restart"], taken)
        return queued

    def drop_restarts(self, cause: RestartCause) -> None:
        """See the port."""
        self._database.write("drop_restarts", SQL["drop_restarts"], {"cause": cause})

    def restarts_since(self, game_id: str, moment: datetime) -> int:
        """See the port."""
        values = _RESTART | {"game_id": game_id, "since": moment}
        (row,) = self._database.read("restarts_since", SQL["count_restarts"], values)
        return int(row["restarts"])

    def mine(self, work: str, for_s: float) -> bool:
        """See the port."""
        values = {"work": work, "owner": self._owner, "for_s": for_s, "longest_s": for_s * AHEAD_TIMES}
        return bool(self._database.write("watch_turn", SQL["take_watch_turn"], values))


def _under_way(connection: Connection) -> int:
    """Return how many starts after an outage are not done; locks out other instances until the commit."""
    connection.execute(SQL["hold_outage_restarts"])
    row = connection.execute(SQL["count_outage_restarts"], {"source": OpSource.AUTO_RECONCILE}).fetchone()
    return int(row["under_way"]) if row else 0


def _submit_restart(connection: Connection, request: Request, container_id: str, status: Status) -> str | None:
    """Queue a restart and return its image; None when the game is busy, or not as planned. Raises `StoreRejected`."""
    values = values_of(request) | {"container_id": container_id, "status": status}
    try:
        with connection.transaction():
            submitted = connection.execute(SQL["submit_restart"], values).fetchone()
            connection.execute(SQL["check_now"])
    except psycopg.Error as error:
        if is_silence(error):
            raise
        raise StoreRejected(f"PostgreSQL refuses {request.source_ref}: {error}") from error
    return submitted["image_ref"] if submitted else None


def _write(connection: Connection, finding: Finding) -> None:
    if finding.claims_name:
        _require_free_name(connection, finding.game_id)
    if _is_busy(connection, finding.game_id):
        raise _Undo(WriteResult.BUSY)
    # The record is first, as in an end: the other order could deadlock with it.
    if finding.seen is not None and connection.execute(SQL["hold_record"], _of(finding)).fetchone() is None:
        raise _Undo(WriteResult.CHANGED)
    if not _is_news(connection, finding):
        raise _Undo(WriteResult.KNOWN)
    if not write_finding(connection, finding):
        raise _Undo(WriteResult.CHANGED)
    if finding.restores:
        connection.execute(SQL["restore_snapshot"], _of(finding))


def _require_free_name(connection: Connection, game_id: str) -> None:
    """Lock the name until the transaction ends; roll back when another game holds it."""
    values = {"game_id": game_id, "names_class": NAMES_CLASS}
    connection.execute(SQL["lock_name"], values)
    for holder in connection.execute(SQL["name_holder"], values).fetchall():
        raise _Undo(WriteResult.CHANGED if holder["status"] else WriteResult.BUSY)


def _is_busy(connection: Connection, game_id: str) -> bool:
    row = connection.execute(SQL["game_is_busy"], {"game_id": game_id}).fetchone()
    return bool(row and row["busy"])


def _of(finding: Finding) -> dict[str, Any]:
    """Return the game of a finding, and the status and container that it was decided on."""
    return {
        "game_id": finding.game_id,
        "status": finding.seen.status if finding.seen else None,
        "container_id": finding.seen.current_container_id if finding.seen else None,
    }


def _is_news(connection: Connection, finding: Finding) -> bool:
    """Raise and calm the alarms; False when that was done before."""
    values = _of(finding)
    if finding.raises is not None:
        alarm = values_of(finding.raises) | {"details": json.dumps(dict(finding.raises.details))}
        alarm |= {"ahead_s": AHEAD_S, "pause_s": OOM_PAUSE_S}
        if connection.execute(SQL["raise_alarm"], values | alarm).fetchone() is None:
            require_kept("alarms", len(connection.execute(SQL["get_alarm"], values | alarm).fetchall()), 1)
            return False
    if finding.calms is not None:
        calm = values | {"kind": finding.calms}
        if connection.execute(SQL["calm_alarm"], calm).fetchone() is None:
            left = connection.execute(SQL["get_alarm"], calm).fetchall()
            require_kept("alarms", sum(row["container_id"] != values["container_id"] for row in left), len(left))
            return False
    return True
