"""PostgreSQL and Redis with the hooks that the contract tests of their ports need.

In a separate module: where no services run, the tests are discovered and skipped without loading a driver.
"""

import unittest
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from harness.waiting import wait_until
from rtmanager.adapters.postgres.daemon import PostgresDaemons
from rtmanager.adapters.postgres.database import Connection, Database
from rtmanager.adapters.postgres.findings import PostgresFindings
from rtmanager.adapters.postgres.histories import PostgresHistories
from rtmanager.adapters.postgres.images import PostgresImages
from rtmanager.adapters.postgres.inbox import PostgresInbox
from rtmanager.adapters.postgres.migrate import migrate
from rtmanager.adapters.postgres.outbox import PostgresOutbox
from rtmanager.adapters.postgres.purge import PostgresPurge
from rtmanager.adapters.postgres.queries import values_of
from rtmanager.adapters.postgres.queue import ORPHAN_GRACE_S, PostgresQueue
from rtmanager.adapters.postgres.records import PostgresRecords
from rtmanager.adapters.postgres.session_lock import PRESENCE_CLASS, PostgresSessionLock
from rtmanager.adapters.redis_streams import RedisStreams
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.health import HealthSource, HealthStatus
from rtmanager.domain.jobs import EntryId
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import LogEntry, OpKind, OpSource, Outcome
from rtmanager.domain.record import RuntimeRecord
from rtmanager.logs import make_logger

LEASE_S = 60.0

#: The manager's default.
SILENCE_S = 8.0

#: Selects the session lock's row, while a session holds it.
HELD = b"""
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND classid = %(presence_class)s AND objid = %(owner)s
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

#: The columns with times of PostgreSQL's clock that decisions depend on.
_MOMENTS = {
    "crash_restarts": ("due_at",),
    "operations": ("not_before", "heartbeat_at", "accepted_at", "answer_since", "finished_at"),
    "dead_letters": ("received_at",),
    "pulled_images": ("unnamed_since",),
    "watch_turns": ("until",),
    "intent_windows": ("began_at",),
    "alarms": ("raised_at",),
}


def migrated(dsn: str) -> Database:
    """An open pool on a database with every table."""
    database = Database(dsn, max_connections=8, silence_s=SILENCE_S)
    migrate(database, make_logger(level="error", style="text", service="test"))
    database.open()
    return database


def insert_record(connection: Connection, record: RuntimeRecord) -> None:
    values = values_of(record)
    named = ", ".join(f"%({name})s" for name in values)
    connection.execute(f"INSERT INTO runtime_records ({', '.join(values)}) VALUES ({named})".encode(), values)


class _NoticedLock(PostgresSessionLock):
    """`close` returns when PostgreSQL has released the lock: a backend detects its client's end a moment later."""

    def close(self) -> None:
        super().close()
        values = {"presence_class": PRESENCE_CLASS, "owner": self._owner}
        wait_until("the session to end", lambda: not self._database.read("presence", HELD, values))


class StoreInPostgres:
    """PostgreSQL with the hooks of the contract."""

    lease_s = LEASE_S
    grace_s = ORPHAN_GRACE_S

    def __init__(self, database: Database, names: Mapping[Stream, str]) -> None:
        self._database = database
        self._names = names

    def records(self) -> PostgresRecords:
        return PostgresRecords(self._database)

    def queue(self, owner: int) -> PostgresQueue:
        return PostgresQueue(self._database, owner=owner, lease_s=self.lease_s)

    def session_lock(self, owner: int) -> PostgresSessionLock:
        return _NoticedLock(self._database, owner)

    def inbox(self) -> PostgresInbox:
        return PostgresInbox(self._database, self._names)

    def outbox(self) -> PostgresOutbox:
        return PostgresOutbox(self._database)

    def daemons(self) -> PostgresDaemons:
        return PostgresDaemons(self._database)

    def findings(self, owner: int) -> PostgresFindings:
        return PostgresFindings(self._database, owner)

    def histories(self) -> PostgresHistories:
        return PostgresHistories(self._database)

    def images(self) -> PostgresImages:
        return PostgresImages(self._database)

    def purge(self) -> PostgresPurge:
        return PostgresPurge(self._database, self._names)

    def now(self) -> datetime:
        with self._database.transaction("test") as connection:
            row = connection.execute(b"SELECT clock_timestamp() AS now").fetchone()
        assert row is not None
        now: datetime = row["now"]
        return now

    def pass_time(self, seconds: float) -> None:
        with self._database.transaction("test") as connection:
            for table, columns in _MOMENTS.items():
                earlier = ", ".join(f"{column} = {column} - make_interval(secs => %(seconds)s)" for column in columns)
                connection.execute(f"UPDATE {table} SET {earlier}".encode(), {"seconds": seconds})

    def put_record(self, record: RuntimeRecord) -> None:
        with self._database.transaction("test") as connection:
            connection.execute(b"DELETE FROM runtime_records WHERE game_id = %s", (record.game_id,))
            insert_record(connection, record)

    def log_rows(self) -> Sequence[LogEntry]:
        with self._database.transaction("test") as connection:
            return [_log_entry(row) for row in connection.execute(b"SELECT * FROM operation_log ORDER BY id")]

    def snapshot(self, game_id: str) -> tuple[str, HealthStatus, HealthSource, Mapping[str, object]] | None:
        query = b"SELECT * FROM health_snapshots WHERE game_id = %s"
        with self._database.transaction("test") as connection:
            row = connection.execute(query, (game_id,)).fetchone()
        if row is None:
            return None
        return row["container_id"], HealthStatus(row["status"]), HealthSource(row["source"]), row["details"]


def _log_entry(row: Mapping[str, Any]) -> LogEntry:
    own = {"kind": OpKind(row["op_kind"]), "source": OpSource(row["op_source"]), "outcome": Outcome(row["outcome"])}
    code = ErrorCode(row["error_code"]) if row["error_code"] else None
    same = {name: row[name] for name in LogEntry.__dataclass_fields__ if name in row and name != "error_code"}
    return LogEntry(**{**same, **own, "error_code": code})


class StreamsInRedis:
    """Redis with the hooks of the contract; readers and writers are instances of one deployment."""

    def __init__(self, test: unittest.TestCase, address: str, client: Any) -> None:
        self._test = test
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._client = client
        self._names = {stream: f"test:{stream}" for stream in Stream}

    def reader(self) -> RedisStreams:
        streams = RedisStreams(
            self._host, self._port, password="", names=self._names, output_maxlen=1000, silence_s=SILENCE_S
        )
        self._test.addCleanup(streams.close)
        streams.use_deployment("test")
        return streams

    writer = reader
    trimming = reader

    def add_group(self, stream: Stream, name: str, reached: EntryId) -> None:
        self._client.xgroup_create(self._names[stream], name, id=str(reached))

    def add_entry(self, stream: Stream, fields: Mapping[str, str]) -> EntryId:
        return EntryId.parse(self._client.xadd(self._names[stream], dict(fields)))

    def add_pairs(
        self, stream: Stream, pairs: Sequence[tuple[bytes, bytes]], entry_id: EntryId | None = None
    ) -> EntryId:
        flat = [part for pair in pairs for part in pair]
        return EntryId.parse(self._client.execute_command("XADD", self._names[stream], str(entry_id or "*"), *flat))

    def delete_entry(self, stream: Stream, entry_id: EntryId) -> None:
        self._client.xdel(self._names[stream], str(entry_id))

    def set_last_id(self, stream: Stream, entry_id: EntryId) -> None:
        behind = ("ENTRIESADDED", 1, "MAXDELETEDID", "0-0")
        self._client.execute_command("XSETID", self._names[stream], str(entry_id), *behind)

    def entries(self, stream: Stream) -> Sequence[Mapping[str, str]]:
        return [fields for _, fields in self._client.xrange(self._names[stream])]

    def remember(self, text: str) -> None:
        self._client.sadd("rtmanager:outbox:test:published", text)

    def flush(self) -> None:
        self._client.flushall()

    def refuse(self, stream: Stream) -> str:
        self._client.set(self._names[stream], "no stream")
        return self._names[stream]

    def mend(self, stream: Stream) -> None:
        self._client.delete(self._names[stream])
