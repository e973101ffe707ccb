"""Accepts stream entries, one instance at a time.

Two instances that read the input streams at once could accept a later job of a game before an earlier one. So reading
needs a lock, held for one transaction: its holder reads, writes and commits. A holder that freezes loses its
transaction (`IDLE_TRANSACTION_MS`), and PostgreSQL rejects its later writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rtmanager.adapters.postgres.changes import as_json
from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.queries import SQL, require_kept
from rtmanager.adapters.postgres.queue import job_values
from rtmanager.adapters.postgres.schema import MigrationFailed, require_counters
from rtmanager.domain.errors import with_remedy
from rtmanager.domain.jobs import DUPLICATE_ID_MARK, STREAM_ORDER, EntryId, Job
from rtmanager.domain.messages import Message, Stream
from rtmanager.domain.operation import Request
from rtmanager.ports.store import PROBE, PROBE_IMAGE, StoreRejected
from rtmanager.ports.streams import LeaseHolder

_Row = Mapping[str, object]


class PostgresIngestLock:
    """The right to accept entries, valid until its transaction ends."""

    def __init__(self, database: Database, connection: Connection, stream_names: Mapping[Stream, str]) -> None:
        self._database = database
        self._connection = connection
        self._stream_names = stream_names
        #: See `IngestLock.forgotten`.
        self.forgotten = 0

    def latest(self) -> Mapping[Stream, EntryId]:
        """See `IngestLock.latest`."""
        with self._database.watched():
            return latest_entries(self._connection, self._stream_names)

    def accept(self, jobs: Sequence[Job]) -> None:
        """Make each job durable; a known one changes nothing."""
        operations, letters = [], []
        for job in jobs:
            entry = self._entry_values(job)
            if isinstance(job.becomes, Message):
                fields = json.dumps(dict(job.becomes.fields), ensure_ascii=False)
                letters.append(entry | {"to_stream": job.becomes.stream, "fields": fields})
            else:
                operations.append(entry | job_values(job.becomes) | {"entry_rank": STREAM_ORDER[job.entry.stream]})
        with self._database.watched():
            for rows in _without_doubles(operations):
                values = {"rows": as_json(rows)}
                if self._connection.execute(SQL["accept_jobs"], values).rowcount < len(rows):
                    self._require_known(values, len(rows))
            self._keep(letters)

    def accept_alone(self, job: Job) -> None:
        """See `IngestLock.accept_alone`."""
        with self._database.watched(), self._connection.transaction():
            self.accept([job])
            self._connection.execute(SQL["check_now"])

    def require_room(self, job: Job) -> None:
        """See `IngestLock.require_room`."""
        assert not isinstance(job.becomes, Message)
        image_ref = PROBE_IMAGE if job.becomes.image_ref else ""
        request = Request(PROBE, job.becomes.kind, job.becomes.source, PROBE, image_ref)
        row = self._entry_values(job) | job_values(request) | {"entry_rank": STREAM_ORDER[job.entry.stream]}
        # With a key of its own, so that the insertion does not pass as one made before.
        row |= {"stream": PROBE, "entry_ms": -1, "entry_seq": -1}
        with self._database.watched():
            try:
                require_counters(self._connection, ["operations"])
            except MigrationFailed as error:
                raise StoreRejected(with_remedy(error)) from error
            latest = self._connection.execute(SQL["latest_game"]).fetchone()
        # A constraint on names accepts the game of an accepted operation; one against duplicates accepts a new game.
        games = [PROBE, *([latest["game_id"]] if latest else [])]
        refusals = [self._refusal_of(row | {"game_id": game_id}) for game_id in games]
        if None not in refusals:
            raise next(filter(None, refusals))

    def _refusal_of(self, operation: _Row) -> StoreRejected | None:
        try:
            with self._database.watched(), self._connection.transaction(force_rollback=True):
                values = {"rows": as_json([operation])}
                require_kept("operations", self._connection.execute(SQL["accept_jobs"], values).rowcount, 1)
                self._connection.execute(SQL["check_now"])
        except StoreRejected as error:
            return error
        return None

    def _entry_values(self, job: Job) -> dict[str, object]:
        digest = job.entry.digest
        return {
            "stream": self._stream_names[job.entry.stream],
            "entry_ms": job.entry.entry_id.milliseconds,
            "entry_seq": job.entry.entry_id.sequence,
            "digest": digest,
            "again": DUPLICATE_ID_MARK + digest,
        }

    def _require_known(self, values: _Row, meant: int) -> None:
        """Raise `StoreRejected` unless each entry that was not inserted was accepted before, or is forgotten."""
        row = self._connection.execute(SQL["lost_entries"], values).fetchone()
        require_kept("operations", meant - (row["lost"] if row else meant), meant)
        self.forgotten += row["forgotten"] if row else 0

    def _keep(self, letters: Sequence[_Row]) -> None:
        if not letters:
            return
        kept = 0
        with self._connection.cursor() as cursor:
            cursor.executemany(SQL["accept_dead_letter"], letters, returning=True)
            for _ in letters:
                row = cursor.fetchone()
                kept += bool(row and row["kept"])
                self.forgotten += bool(row and row["forgotten"])
                cursor.nextset()
        require_kept("dead_letters and outbox", kept, len(letters))


def latest_entries(connection: Connection, stream_names: Mapping[Stream, str]) -> Mapping[Stream, EntryId]:
    """Return the highest accepted entry of each input stream that has one."""
    streams = {name: stream for stream, name in stream_names.items() if stream in STREAM_ORDER}
    rows = connection.execute(SQL["latest_entries"], {"streams": list(streams)}).fetchall()
    return {streams[row["stream"]]: EntryId(int(row["entry_ms"]), int(row["entry_seq"])) for row in rows}


def _without_doubles(rows: Iterable[_Row]) -> list[list[_Row]]:
    """Split the rows into lists, mostly one, without a repeated id: a statement does not see its own insertions.

    Two entries have one id when a stream was lost and the id reused before the first was accepted.
    """
    lists: list[dict[tuple[object, ...], _Row]] = []
    for row in rows:
        entry_id = row["stream"], row["entry_ms"], row["entry_seq"]
        free = next((each for each in lists if entry_id not in each), None)
        if free is None:
            lists.append(free := {})
        free[entry_id] = row
    return [list(each.values()) for each in lists]


def holder_of(database: Database, lock: str) -> LeaseHolder | None:
    """Return the session or the prepared transaction that holds a lock, by the lock's name."""
    rows = database.read("turn_holder", SQL["turn_holder"], {"turn": lock})
    if not rows:
        return None
    [row] = rows
    application = f"application {row['application']!r}" if row["application"] else "without a name"
    session = f"session {row['pid']} ({application}, connected since {row['since']})"
    remedy = f"if that is no manager: SELECT pg_terminate_backend({row['pid']})"
    if row["pid"] is None:
        session = "a prepared transaction that has ended since"
        remedy = "if it does not end: SELECT * FROM pg_prepared_xacts, then ROLLBACK PREPARED"
    if row["gid"] is not None:
        session = f"the prepared transaction {row['gid']!r} (prepared at {row['prepared']})"
        remedy = f"if nobody will commit it, in the database {row['database']}: ROLLBACK PREPARED {row['quoted_gid']}"
    return LeaseHolder(session, row["transaction"], like_manager=row["like_manager"], remedy=remedy)


class PostgresInbox:
    """Makes jobs durable."""

    def __init__(self, database: Database, stream_names: Mapping[Stream, str]) -> None:
        self._database = database
        self._stream_names = stream_names

    def holder(self) -> LeaseHolder | None:
        """See `Inbox.holder`."""
        return holder_of(self._database, "ingest")

    @contextmanager
    def lock(self) -> Iterator[PostgresIngestLock | None]:
        """Take the lock, and commit at the end; yields None while another instance has it. Raises `Unavailable`."""
        with self._database.transaction("ingest") as connection:
            row = connection.execute(SQL["take_ingest_turn"]).fetchone()
            mine = row is not None and row["pg_try_advisory_xact_lock"]
            # Inside the block the thread reads Redis, which must not count as PostgreSQL's silence.
            with self._database.unwatched():
                yield PostgresIngestLock(self._database, connection, self._stream_names) if mine else None
