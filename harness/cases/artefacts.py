"""Artefacts of a failed test: containers, tables and the content of Redis, in files beside its logs.

    containers/<name>.json, .log   what Docker's inspect returns, and the log
    tables/<table>.jsonl           one row a line
    streams/<key>.jsonl            one entry a line, after a line with its consumer groups
    keys/<key>.jsonl               a Redis string, list, set or hash: one element a line, after a line with its type

Each is bounded. `missing.txt` lists those that could not be read: such an error must not hide the failure itself.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness.fixtures.container import Container
from harness.fixtures.postgres import Database
from harness.fixtures.redis import Redis

if TYPE_CHECKING:
    from docker import APIClient
    from psycopg import Connection

#: The number of rows of a table, entries of a stream, elements of a key, lines of a log: the last ones. Of keys: any.
MOST = 1000

#: Characters of one value.
LONGEST_VALUE = 10_000

#: PostgreSQL's timeouts in milliseconds: for a lock that a test left behind, and for reading one table.
LOCK_TIMEOUT_MS, TABLE_TIMEOUT_MS = 1000, 5000

#: Characters of a quoted name. A file's name may have 255 bytes, its ending included.
_LONGEST_NAME = 200


class Artefacts:
    """The files of one test under `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        #: Errors that could not be written to `missing.txt`.
        self.unnoted: list[str] = []

    def files(self) -> list[str]:
        """The paths below the directory of all readable files that are not empty."""
        found = []
        for folder, _, names in os.walk(self.directory):
            for path in (Path(folder, name) for name in names if not name.startswith(".")):
                try:
                    size = path.lstat().st_size
                except OSError:
                    continue  # a container owns it, and it is not readable
                if size and not path.is_symlink():
                    found.append(str(path.relative_to(self.directory)))
        return sorted(found)

    def containers(self, client: "APIClient", container_ids: Iterable[str]) -> None:
        """Write each container that still exists."""
        for container_id in container_ids:
            self.attempt(f"container {container_id[:12]}", lambda: self._container(Container(container_id, client)))  # noqa: B023 - called at once

    def tables(self, database: Database) -> None:
        """Write each table of the database's schema."""
        self.attempt(f"database {database.name}", lambda: self._tables(database))

    def redis(self, redis: Redis) -> None:
        """Write each stream and each other key."""
        self.attempt(f"Redis at {redis.address}", lambda: self._redis(redis))

    def _container(self, container: Container) -> None:
        self._write(f"containers/{container.name}.json", [json.dumps(container.inspect(), indent=1)])
        self._write(f"containers/{container.name}.log", [container.logs(MOST)])

    def _tables(self, database: Database) -> None:
        with database.connect() as connection:
            for name, limit in (("lock_timeout", LOCK_TIMEOUT_MS), ("statement_timeout", TABLE_TIMEOUT_MS)):
                connection.execute("SELECT set_config(%s, %s, false)", (name, str(limit)))
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = %s", [database.layout.schema]
            ).fetchall()
            for (table,) in tables:
                self.attempt(f"table {table}", lambda: self._table(connection, database.layout.schema, table))  # noqa: B023 - called at once

    def _table(self, connection: "Connection[Any]", schema: str, table: str) -> None:
        from psycopg import sql

        # The physical order is nearly the order of insertion in a table that was emptied before the test.
        every = sql.SQL("SELECT to_jsonb(t)::text FROM {} t LIMIT {}").format(sql.Identifier(schema, table), MOST)
        self._write(f"tables/{_file_name(table)}.jsonl", (row for (row,) in connection.execute(every).fetchall()))

    def _redis(self, redis: Redis) -> None:
        with redis.raw_client(timeout_s=2) as client:
            # Every database: the program under test may use another one than the first.
            for number in sorted(int(name.removeprefix("db")) for name in client.info("keyspace")):
                client.select(number)
                below = f"db{number}/" if number else ""
                for key in islice(client.scan_iter(count=MOST), MOST):
                    self.attempt(f"key {_text(key)}", lambda: self._key(client, key, below))  # noqa: B023 - called at once

    def _key(self, client: Any, key: bytes, below: str) -> None:
        kind = client.type(key).decode()
        if kind == "stream":
            self._write(f"streams/{below}{_file_name(key)}.jsonl", _entries(client, key))
        elif kind != "none":  # removed in the meantime
            self._write(f"keys/{below}{_file_name(key)}.jsonl", _elements(client, key, kind))

    def attempt(self, what: str, write: Callable[[], None]) -> None:
        """Call `write`, and note its error in `missing.txt`."""
        try:
            write()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test's own failure matters more
            self._note(f"{what}: {type(error).__name__}: {error}")

    def _note(self, line: str) -> None:
        try:
            with (self.directory / "missing.txt").open("a", encoding="utf-8", errors="backslashreplace") as notes:
                notes.write(f"{line}\n")
        except OSError as error:  # a full disk
            self.unnoted += [line, f"missing.txt: {error}"]

    def _write(self, name: str, lines: Iterable[str]) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")


def _entries(client: Any, key: bytes) -> Iterator[str]:
    yield json.dumps({"groups": _readable(client.xinfo_groups(key))})
    for entry_id, fields in reversed(client.xrevrange(key, count=MOST)):
        yield json.dumps({"id": _text(entry_id), **_readable(fields)})


def _elements(client: Any, key: bytes, kind: str) -> Iterator[str]:
    """A line with type and TTL of the key, then its elements."""
    yield json.dumps({"type": kind, "ttl_ms": client.pttl(key)})
    match kind:
        case "string":
            yield json.dumps(_text(client.get(key) or b""))
        case "list":
            yield from (json.dumps(_text(each)) for each in client.lrange(key, -MOST, -1))
        case "set":
            yield from (json.dumps(_text(each)) for each in islice(client.sscan_iter(key), MOST))
        case "zset":
            for member, score in client.zrange(key, -MOST, -1, withscores=True):
                yield json.dumps({"member": _text(member), "score": score})
        case "hash":
            for name, value in islice(client.hscan_iter(key), MOST):
                yield json.dumps({_text(name): _text(value)})


def _readable(value: Any) -> Any:
    """A reply of Redis as values that JSON can encode."""
    if isinstance(value, dict):
        return {str(_readable(name)): _readable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(each) for each in value]
    return _text(value) if isinstance(value, bytes) else value


def _text(raw: bytes) -> str:
    text = raw[:LONGEST_VALUE].decode(errors="backslashreplace")
    return text if len(raw) <= LONGEST_VALUE else f"{text}… ({len(raw)} bytes)"


def _file_name(name: str | bytes) -> str:
    """The name of a table or key as a file name: readable, and unique for each."""
    raw = name.encode() if isinstance(name, str) else name
    quoted = quote(raw, safe=":@+=, ()[]{}$#!")
    if quoted.startswith("."):
        quoted = f"%2E{quoted[1:]}"
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    return f"{quoted[:_LONGEST_NAME]}-{sha256(raw).hexdigest()[:8]}"
