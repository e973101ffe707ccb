"""Ten thousand stopped and removed games: records to read, and no work for a manager."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from rtmanager.domain.game import engine_endpoint

if TYPE_CHECKING:
    import psycopg

GAMES = 10_000

_STARTED = datetime(2026, 1, 1, tzinfo=UTC)
_COLUMNS = (
    "game_id",
    "status",
    "current_container_id",
    "current_image_ref",
    "engine_endpoint",
    "state_path",
    "docker_network",
    "started_at",
    "stopped_at",
    "removed_at",
    "last_op_at",
    "created_at",
)


def game_id(number: int) -> str:
    """The id of that game; ids sort in the order of the numbers."""
    return f"game-{number:05}"


def ids() -> list[str]:
    """The ids of all games, in the order of a list."""
    return [game_id(number) for number in range(GAMES)]


def fill(connection: "psycopg.Connection[Any]") -> None:
    """Write the records, as a year of stops and cleanups leaves them: each with its own times."""
    copy = f"COPY runtime_records ({', '.join(_COLUMNS)}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(copy.encode()) as into:
        for row in _rows():
            into.write_row(row)
    connection.execute("ANALYZE runtime_records")


def _rows() -> Iterator[tuple[str | datetime | None, ...]]:
    for number in range(GAMES):
        game = game_id(number)
        started = _STARTED + timedelta(seconds=number, microseconds=number * 97 + 1)
        stopped, removed = started + timedelta(hours=3), started + timedelta(days=1)
        gone = number % 2 == 0
        yield (
            game,
            "removed" if gone else "stopped",
            None if gone else sha256(game.encode()).hexdigest(),
            "galaxy/game:1.4.2",
            engine_endpoint(game),
            f"/var/lib/galaxy/games/{game}",
            "galaxy-net",
            started,
            stopped,
            removed if gone else None,
            removed if gone else stopped,
            started,
        )
