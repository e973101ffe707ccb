"""Many games that run as they should: a record and a container each, which agree in everything."""

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from rtmanager.domain.container import KIND, LABEL_GAME_ID, LABEL_IMAGE_REF, LABEL_KIND, LABEL_OWNER, OWNER
from rtmanager.domain.drift import House
from rtmanager.domain.game import container_name, engine_endpoint
from rtmanager.domain.record import RuntimeRecord, Status

STARTED = datetime(2026, 1, 1, tzinfo=UTC)

HOUSE = House("galaxy-net", lambda game_id: f"/srv/games/{game_id}")

_IMAGE = "galaxy/game:1.0.0"


def records(count: int) -> Iterator[RuntimeRecord]:
    """What is recorded of the first `count` games."""
    for game_id in _games(count):
        yield RuntimeRecord(
            game_id=game_id,
            status=Status.RUNNING,
            current_container_id=_digest(game_id),
            current_image_ref=_IMAGE,
            engine_endpoint=engine_endpoint(game_id),
            state_path=HOUSE.state_path(game_id),
            docker_network=HOUSE.network,
            started_at=STARTED,
            stopped_at=None,
            removed_at=None,
            last_op_at=STARTED,
            created_at=STARTED,
        )


def listed(count: int) -> list[dict[str, Any]]:
    """What Docker 20.10 says of their containers, with all that it says beside what is read."""
    return [_listed(number, game_id) for number, game_id in enumerate(_games(count))]


def _listed(number: int, game_id: str) -> dict[str, Any]:
    high, low = divmod(number + 2, 256)
    network = {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "NetworkID": _digest(HOUSE.network),
        "EndpointID": _digest(f"endpoint of {game_id}"),
        "Gateway": "172.18.0.1",
        "IPAddress": f"172.18.{high}.{low}",
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
        "Destination": "/var/lib/galaxy",
        "Mode": "",
        "RW": True,
        "Propagation": "rprivate",
    }
    return {
        "Id": _digest(game_id),
        "Names": [f"/{container_name(game_id)}"],
        "Image": _IMAGE,
        "ImageID": f"sha256:{_digest(_IMAGE)}",
        "Command": "python3 /engine.py",
        "Created": int(STARTED.timestamp()),
        "Ports": [],
        "Labels": {
            LABEL_OWNER: OWNER,
            LABEL_KIND: KIND,
            LABEL_GAME_ID: game_id,
            LABEL_IMAGE_REF: _IMAGE,
            "com.galaxy.started_at_ms": str(int(STARTED.timestamp() * 1000)),
        },
        "State": "running",
        "Status": "Up 3 hours",
        "HostConfig": {"NetworkMode": HOUSE.network},
        "NetworkSettings": {"Networks": {HOUSE.network: network}},
        "Mounts": [mount],
    }


def _games(count: int) -> Iterator[str]:
    return (f"game-{number:05}" for number in range(count))


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
