"""The sources of a platform's state, and a function that reads all of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.fixtures.postgres import Database
from harness.waiting import wait_until
from reliability.invariants.snapshot import OWNER_LABELS, Bystander, Row, Snapshot
from rtmanager.domain.jobs import INPUT_STREAMS

if TYPE_CHECKING:
    from docker import APIClient
    from psycopg import Connection
    from redis import Redis

GROUP = "rtmanager"

#: Seconds; sufficient on a platform at rest.
CONNECT_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class World:
    """PostgreSQL, Redis, Docker, and the directory of all games' state, as the managers of a test use them."""

    database: Database
    redis: "Redis"
    docker: "APIClient"
    network: str
    games: Path
    #: The prefix of all streams' names.
    streams: str = "runtime:"

    @property
    def inputs(self) -> list[str]:
        """The names of the input streams in Redis."""
        return [f"{self.streams}{each}" for each in INPUT_STREAMS]

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query, over a new connection: the server may have restarted since the last one."""
        from psycopg.rows import dict_row

        with self._connected() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode()).fetchall()

    def _connected(self) -> "Connection[Any]":
        """Connect, with retries for a busy machine."""
        import psycopg

        return wait_until(
            "a connection to PostgreSQL",
            self.database.connect,
            timeout_s=CONNECT_TIMEOUT_S,
            retry_on=(psycopg.OperationalError,),
        )

    def entries(self, stream: str) -> list[dict[str, str]]:
        """The entries of a stream by its role, oldest first."""
        found: Any = self.redis.xrange(f"{self.streams}{stream}")
        return [fields for _, fields in found]


def is_quiet(world: World) -> bool:
    """Whether nothing is pending: no entry unread, no operation due, no message unpublished."""
    return not unquiet(world)


def unquiet(world: World) -> list[str]:
    """Everything that is pending, as readable lines."""
    return [*_unread(world), *_due(world)]


def _unread(world: World) -> Iterator[str]:
    from redis.exceptions import ResponseError

    for stream in world.inputs:
        client: Any = world.redis
        if not client.exists(stream):
            continue
        try:
            groups = {each["name"]: each for each in client.xinfo_groups(stream)}
            last = client.xinfo_stream(stream)["last-generated-id"]
        except ResponseError:  # deleted since
            groups, last = {}, ""
        group = groups.get(GROUP)
        if group is None:
            yield f"{stream} has no group"
        elif group["pending"] or group["last-delivered-id"] != last:
            yield f"{stream}: {group['pending']} entries pending, read up to {group['last-delivered-id']} of {last}"


def _due(world: World) -> Iterator[str]:
    for row in world.rows(
        "SELECT id, game_id, kind, source_ref, state, generation, deferrals, deferred_why, heartbeat_at"
        " FROM operations WHERE state <> 'done' ORDER BY id"
    ):
        why = f", put off {row['deferrals']} times, {row['deferred_why']}" if row["deferrals"] else ""
        claim = f"claim {row['generation']}, last heartbeat {row['heartbeat_at']}"
        yield (
            f"operation {row['id']} ({row['kind']} of {row['game_id']} by {row['source_ref']}) is {row['state']}, "
            + (claim + why)
        )
    for row in world.rows("SELECT stream, count(*) FROM outbox GROUP BY stream"):
        yield f"{row['count']} messages for {row['stream']} in the outbox"


def read(world: World, bystanders: Sequence[Bystander], markers: Mapping[Path, str]) -> Snapshot:
    """Read everything that the checks need."""
    return Snapshot(
        records={row["game_id"]: row for row in world.rows("SELECT * FROM runtime_records")},
        log=world.rows("SELECT * FROM operation_log ORDER BY id"),
        snapshots={row["game_id"]: row for row in world.rows("SELECT * FROM health_snapshots")},
        results=world.entries("job_results"),
        health=world.entries("health_events"),
        intents=_intents(world),
        dead_letters=world.entries("dead_letters"),
        containers=_containers(world, {each.container_id for each in bystanders}),
        bystanders=[(each, _inspect(world.docker, each.container_id)) for each in bystanders],
        directories={each.name for each in world.games.iterdir() if each.is_dir()},
        markers={path: (text, _text(path)) for path, text in markers.items()},
    )


def _intents(world: World) -> list[dict[str, str]]:
    found: Any = world.redis.xrange("notification:intents")
    return [fields for _, fields in found]


def _containers(world: World, but: set[str]) -> list[Row]:
    """The managers' containers, by labels and network, without those removed between list and inspection."""
    labels = [f"{name}={value}" for name, value in OWNER_LABELS.items()]
    found = world.docker.containers(all=True, filters={"label": labels})
    inspected = [_inspect(world.docker, each["Id"]) for each in found if each["Id"] not in but]
    return [each for each in inspected if each is not None and _is_on(each, world.network)]


def _is_on(container: Row, network: str) -> bool:
    """Whether a container belongs to the network, also one that was disconnected manually."""
    joined = container["NetworkSettings"]["Networks"] or {}
    return network in joined or container["HostConfig"]["NetworkMode"] == network


def _inspect(docker: "APIClient", container_id: str) -> Row | None:
    from docker.errors import NotFound

    try:
        found: Row = docker.inspect_container(container_id)
    except NotFound:
        return None
    return found


def bystander(docker: "APIClient", container_id: str) -> Bystander:
    """The present state of a container that no manager may touch from now on."""
    return Bystander(container_id, docker.inspect_container(container_id)["State"]["StartedAt"])


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
