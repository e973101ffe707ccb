"""Deletes rows past their retention, in small batches, each a transaction of its own.

Rows that identify an entry are deleted under the ingest lock. So no entry is accepted while its rows are deleted, and
the forgotten position is recorded in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping

from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.inbox import latest_entries
from rtmanager.adapters.postgres.queries import SQL
from rtmanager.domain.jobs import DUPLICATE_ID_MARK, EntryId
from rtmanager.domain.messages import Stream
from rtmanager.ports.streams import Place, Purged

#: Follows a stream's name when the entry's id was used before: `DUPLICATE_ID_MARK` and a digest.
_MARK = DUPLICATE_ID_MARK + "([0-9a-f]{16}|[0-9a-f]{40})$"


class PostgresPurge:
    """`PurgeStore`. Raises `Unavailable` while PostgreSQL does not answer."""

    def __init__(self, database: Database, stream_names: Mapping[Stream, str]) -> None:
        self._database = database
        self._stream_names = stream_names

    def latest(self) -> Mapping[Stream, EntryId]:
        """See the port."""
        with self._database.transaction("latest") as connection:
            return latest_entries(connection, self._stream_names)

    def first_young(self, stream: Stream, keep_s: float, since: EntryId, *, limit: int) -> EntryId | None:
        """See the port."""
        values = {"stream": self._stream_names[stream], "keep_s": keep_s, "limit": limit}
        values |= {"entry_ms": since.milliseconds, "entry_seq": since.sequence}
        rows = self._database.read("first_young", SQL["first_young_entry"], values)
        return EntryId(int(rows[0]["entry_ms"]), int(rows[0]["entry_seq"])) if rows else None

    def purge_operations(self, keep_s: float, below: Mapping[Stream, EntryId], *, place: Place, limit: int) -> Purged:
        """See the port."""
        (after,) = place or (0,)
        values = self._bounds(keep_s, below) | {"after": after, "limit": limit}
        row = self._under_ingest_lock("purge_operations", values)
        if row is None:
            return Purged(0, place)
        return Purged(row["deleted"], (row["after"],) if row["more"] else None)

    def purge_dead_letters(self, keep_s: float, below: Mapping[Stream, EntryId], *, place: Place, limit: int) -> Purged:
        """See the port."""
        stream, ms, seq = place or ("", -1, -1)
        values = self._bounds(keep_s, below) | {"limit": limit}
        values |= {"after_stream": stream, "after_ms": ms, "after_seq": seq}
        row = self._under_ingest_lock("purge_dead_letters", values)
        if row is None:
            return Purged(0, place)
        next_place = (row["stream"], int(row["entry_ms"]), int(row["entry_seq"])) if row["more"] else None
        return Purged(row["deleted"], next_place)

    def purge_log(self, keep_s: float, *, place: Place, limit: int) -> Purged:
        """See the port."""
        (after,) = place or (0,)
        (row,) = self._database.write("purge", SQL["purge_log"], {"keep_s": keep_s, "after": after, "limit": limit})
        return Purged(row["deleted"], (row["after"],) if row["more"] else None)

    def _bounds(self, keep_s: float, below: Mapping[Stream, EntryId]) -> dict[str, object]:
        return {
            "keep_s": keep_s,
            "streams": [self._stream_names[stream] for stream in below],
            "entry_ms": [entry_id.milliseconds for entry_id in below.values()],
            "entry_seq": [entry_id.sequence for entry_id in below.values()],
            "mark": _MARK,
        }

    def _under_ingest_lock(self, statement: str, values: Mapping[str, object]) -> Mapping[str, int] | None:
        """Run the statement under the ingest lock and return its row; None while another session has the lock."""
        with self._database.transaction("purge") as connection:
            turn = connection.execute(SQL["take_ingest_turn"]).fetchone()
            if not (turn and turn["pg_try_advisory_xact_lock"]):
                return None
            return connection.execute(SQL[statement], values).fetchone()
