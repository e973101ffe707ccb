"""Many running games: a record and a container each, which agree in everything."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, fields
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmanager.domain.container import KIND, LABEL_GAME_ID, LABEL_IMAGE_REF, LABEL_KIND, LABEL_OWNER, OWNER
from rtmanager.domain.drift import Placement
from rtmanager.domain.game import ENGINE_PORT, container_name
from rtmanager.domain.record import RuntimeRecord, Status

if TYPE_CHECKING:
    import psycopg

STARTED = datetime(2026, 1, 1, tzinfo=UTC)

HOUSE = Placement("galaxy-net", lambda game_id: f"/srv/games/{game_id}")

IMAGE = "galaxy/game:1.0.0"

#: Address of the first engine, on the loopback device: no request leaves this machine.
_FIRST = IPv4Address("127.16.0.1")

#: Docker 20.10's inspect of a game's container, with placeholders where games differ.
_INSPECTED = Path(__file__).with_name("inspected.json").read_text()


def ids(count: int) -> list[str]:
    """The ids of the first `count` games, in the order of a list."""
    return [f"game-{number:05}" for number in range(count)]


def address(number: int) -> str:
    """The address of that game's engine."""
    return str(_FIRST + number)


def container_id(game_id: str) -> str:
    """The id of the game's container."""
    return _digest(game_id)


def records(count: int, port: int = ENGINE_PORT) -> Iterator[RuntimeRecord]:
    """The records of the first `count` games; their engines listen on `port`."""
    for number, game_id in enumerate(ids(count)):
        yield RuntimeRecord(
            game_id=game_id,
            status=Status.RUNNING,
            current_container_id=container_id(game_id),
            current_image_ref=IMAGE,
            engine_endpoint=f"http://{address(number)}:{port}",
            state_path=HOUSE.state_path(game_id),
            docker_network=HOUSE.network,
            started_at=STARTED,
            stopped_at=None,
            removed_at=None,
            last_op_at=STARTED,
            created_at=STARTED,
        )


def fill(connection: "psycopg.Connection[Any]", every: Iterable[RuntimeRecord]) -> None:
    """Replace all records and snapshots with these records, and a snapshot each."""
    connection.execute("TRUNCATE runtime_records, health_snapshots")
    columns = ", ".join(field.name for field in fields(RuntimeRecord))
    with connection.cursor() as cursor, cursor.copy(f"COPY runtime_records ({columns}) FROM STDIN".encode()) as into:
        for record in every:
            into.write_row(astuple(record))
    connection.execute(
        """
        INSERT INTO health_snapshots (game_id, container_id, status, source, observed_at)
        SELECT game_id, current_container_id, 'healthy', 'inspect', started_at FROM runtime_records
        """
    )
    connection.execute("VACUUM ANALYZE")


def fill_history(connection: "psycopg.Connection[Any]") -> None:
    """Write the history of each recorded game: a start, a stop, and a second start."""
    connection.execute(
        """
        INSERT INTO operation_log (game_id, op_kind, op_source, source_ref, image_ref, container_id, outcome,
                                   started_at, finished_at)
        SELECT game_id, kind, 'gm_rest', 'bench', current_image_ref, current_container_id, 'success', now(), now()
        FROM runtime_records, unnest(ARRAY['start', 'stop', 'start']) kind;
        INSERT INTO operations (game_id, kind, source, source_ref, image_ref, state, outcome, finished_at)
        SELECT game_id, op_kind, op_source, source_ref, image_ref, 'done', outcome, finished_at FROM operation_log;
        """
    )
    connection.execute("VACUUM ANALYZE")


def listed(count: int) -> list[dict[str, Any]]:
    """The containers as Docker 20.10 lists them, with all fields."""
    return [_listed(number, game_id) for number, game_id in enumerate(ids(count))]


def inspected(number: int, game_id: str, ended_at: datetime | None = None) -> bytes:
    """The inspect of one game's container, which runs or has crashed."""
    marks = {
        '"@STATE@"': json.dumps(_state(ended_at)),
        "@ID@": container_id(game_id),
        "@GAME@": game_id,
        "@NETWORK@": HOUSE.network,
        "@ADDRESS@": address(number),
        "@IMAGE@": IMAGE,
    }
    text = _INSPECTED
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text.encode()


def death(game_id: str, at_ns: int) -> dict[str, Any]:
    """The event of the crash of this game's container."""
    attributes = {"exitCode": "1", "image": IMAGE, "name": container_name(game_id), **_labels(game_id)}
    actor = {"ID": container_id(game_id), "Attributes": attributes}
    return {
        "status": "die",
        "id": container_id(game_id),
        "from": IMAGE,
        "Type": "container",
        "Action": "die",
        "Actor": actor,
        "scope": "local",
        "time": at_ns // 10**9,
        "timeNano": at_ns,
    }


def _labels(game_id: str) -> Mapping[str, str]:
    return {
        LABEL_OWNER: OWNER,
        LABEL_KIND: KIND,
        LABEL_GAME_ID: game_id,
        LABEL_IMAGE_REF: IMAGE,
        "com.galaxy.started_at_ms": str(int(STARTED.timestamp() * 1000)),
    }


def _state(ended_at: datetime | None) -> Mapping[str, object]:
    running = ended_at is None
    return {
        "Status": "running" if running else "exited",
        "Running": running,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 4711 if running else 0,
        "ExitCode": 0 if running else 1,
        "Error": "",
        "StartedAt": STARTED.isoformat().replace("+00:00", "Z"),
        "FinishedAt": "0001-01-01T00:00:00Z" if ended_at is None else ended_at.isoformat().replace("+00:00", "Z"),
    }


def _listed(number: int, game_id: str) -> dict[str, Any]:
    high, low = divmod(number + 1, 256)
    network = {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "NetworkID": _digest(HOUSE.network),
        "EndpointID": _digest(f"endpoint of {game_id}"),
        "Gateway": "127.16.0.0",
        "IPAddress": address(number),
        "IPPrefixLen": 16,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": f"02:42:ac:12:{high:02x}:{low:02x}",
        "DriverOpts": None,
    }
    mount = {
        "Type": "bind",
        "Source": HOUSE.state_path(game_id),
        "Destination": "/var/lib/galaxy-game",
        "Mode": "",
        "RW": True,
        "Propagation": "private",
    }
    return {
        "Id": container_id(game_id),
        "Names": [f"/{container_name(game_id)}"],
        "Image": IMAGE,
        "ImageID": f"sha256:{_digest(IMAGE)}",
        "Command": "python3 /engine.py",
        "Created": int(STARTED.timestamp()),
        "Ports": [{"PrivatePort": ENGINE_PORT, "Type": "tcp"}],
        "Labels": _labels(game_id),
        "State": "running",
        "Status": "Up 3 hours",
        "HostConfig": {"NetworkMode": HOUSE.network},
        "NetworkSettings": {"Networks": {HOUSE.network: network}},
        "Mounts": [mount],
    }


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
