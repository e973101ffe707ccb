"""What a failed test leaves for a look: containers, tables and streams, written into files beside its logs.

    containers/<name>.json, .log   as Docker inspects it, and what it wrote
    tables/<table>.jsonl           one row a line
    streams/<key>.jsonl            one entry a line, after a line with its consumer groups

Each is bounded, and one that cannot be had is noted in `missing.txt`: the failure itself must not be hidden.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.fixtures.container import Container
from harness.fixtures.postgres import Database
from harness.fixtures.redis import Redis

if TYPE_CHECKING:
    from docker import APIClient

#: Rows of a table, entries of a stream, lines of a log: the last ones.
MOST = 1000


class Artefacts:
    """The files of one test under `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def files(self) -> list[str]:
        """The files that are there and not empty, as paths below the directory."""
        every = self._directory.rglob("[!.]*")
        found = (path for path in every if path.is_file() and path.stat().st_size)
        return sorted(str(path.relative_to(self._directory)) for path in found)

    def containers(self, client: "APIClient", container_ids: Iterable[str]) -> None:
        """Write each container that is still there."""
        for container_id in container_ids:
            self.attempt(f"container {container_id[:12]}", lambda: self._container(Container(container_id, client)))  # noqa: B023 - called at once

    def tables(self, database: Database) -> None:
        """Write each table of the database's schema."""
        self.attempt(f"database {database.name}", lambda: self._tables(database))

    def streams(self, redis: Redis) -> None:
        """Write each stream."""
        self.attempt(f"Redis at {redis.address}", lambda: self._streams(redis))

    def _container(self, container: Container) -> None:
        self._write(f"containers/{container.name}.json", [json.dumps(container.inspect(), indent=1)])
        self._write(f"containers/{container.name}.log", [container.logs(MOST)])

    def _tables(self, database: Database) -> None:
        from psycopg import sql

        with database.connect() as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = %s", [database.layout.schema]
            ).fetchall()
            for (table,) in tables:
                # The physical order is that of writing, near enough, for a table that was just emptied.
                every = sql.SQL("SELECT to_jsonb(t) FROM {} t LIMIT {}").format(sql.Identifier(table), MOST)
                rows = connection.execute(every).fetchall()
                self._write(f"tables/{table}.jsonl", (json.dumps(row) for (row,) in rows))

    def _streams(self, redis: Redis) -> None:
        client: Any
        with redis.client(timeout_s=2) as client:
            for key in client.scan_iter(_type="stream"):
                self._write(f"streams/{key.replace('/', '_')}.jsonl", _entries(client, key))

    def attempt(self, what: str, write: Callable[[], None]) -> None:
        """Call `write`, and note when it fails."""
        try:
            write()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test's own failure matters more
            with (self._directory / "missing.txt").open("a") as notes:
                notes.write(f"{what}: {type(error).__name__}: {error}\n")

    def _write(self, name: str, lines: Iterable[str]) -> None:
        path = self._directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))


def _entries(client: Any, key: str) -> Iterator[str]:
    yield json.dumps({"groups": client.xinfo_groups(key)})
    for entry_id, fields in reversed(client.xrevrange(key, count=MOST)):
        yield json.dumps({"id": entry_id, **fields})
