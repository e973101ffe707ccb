"""Reads `runtime_records`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.queries import SQL
from rtmanager.domain.record import RuntimeRecord, Status


class PostgresRecords:
    """The record of each game. Raises `Unavailable` while PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, game_id: str) -> RuntimeRecord | None:
        """Return one game's record, or None."""
        rows = self._database.read("record", SQL["get_record"], {"game_id": game_id})
        return read_record(rows[0]) if rows else None

    def get_as_json(self, game_id: str) -> bytes | None:
        """See the port."""
        rows = self._database.read_texts("record", SQL["get_record_as_json"], [game_id])
        return rows[0] if rows else None

    def of(self, game_ids: Collection[str]) -> Mapping[str, RuntimeRecord]:
        """Return the existing records of these games."""
        rows = self._database.read("records_by_game", SQL["get_records"], {"game_ids": list(game_ids)})
        return {row["game_id"]: read_record(row) for row in rows}

    def page(self, *, status: Status | None, after: str | None, limit: int) -> Sequence[RuntimeRecord]:
        """Return up to `limit` records in the order of game ids, after `after`."""
        values = {"status": status, "after": after or "", "limit": limit}
        return [read_record(row) for row in self._database.read("records", SQL["list_records"], values)]

    def page_as_json(self, *, status: Status | None, after: str | None, limit: int) -> Sequence[bytes]:
        """See the port."""
        return self._database.read_texts(
            "records", SQL["list_records_as_json"], [status or "", after or "", str(limit)]
        )


def read_record(row: Mapping[str, Any]) -> RuntimeRecord:
    """Decode a row."""
    return RuntimeRecord(**{**row, "status": Status(row["status"])})
