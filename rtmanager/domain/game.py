"""A game's identity, and every name that follows from it.

The id ends up in a container name, a host name and a directory, so its alphabet is small on purpose
(contract: `[A-Za-z0-9][A-Za-z0-9_-]{0,50}`): no dot, no slash, nothing that a path or a label would read.
"""

from __future__ import annotations

import re

from rtmanager.domain.errors import InvalidValue

GAME_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,50}"
ENGINE_PORT = 8080

#: What is still taken as the *name* of a game in records and results, though it may break the pattern.
MAX_READABLE_LENGTH = 200

_GAME_ID = re.compile(GAME_ID_PATTERN)


def is_game_id(text: str) -> bool:
    """Whether `text` is a well-formed game id."""
    return _GAME_ID.fullmatch(text) is not None


def check_game_id(text: str) -> str:
    """`text` itself; `InvalidValue` when it is not a well-formed game id."""
    if not is_game_id(text):
        raise InvalidValue(
            f"game_id {shown(text)} is malformed: expected 1 to 51 characters of A-Z a-z 0-9 _ -, "
            "the first a letter or a digit"
        )
    return text


def same_name(one: str, other: str) -> bool:
    """Whether two ids lead to one host name: Docker's DNS ignores case, and nothing else."""
    return one.lower() == other.lower()


def container_name(game_id: str) -> str:
    """The container's name and its host name inside the game network."""
    return f"galaxy-game-{game_id}"


def next_container_name(game_id: str) -> str:
    """The name under which the container is created that replaces the game's; no game's own name has a dot."""
    return f"{container_name(game_id)}.next"


def engine_endpoint(game_id: str) -> str:
    """Where other services of the platform reach the engine: a name, so that it outlives the container."""
    return f"http://{container_name(game_id)}:{ENGINE_PORT}"


def shown(text: object, limit: int = 120) -> str:
    """A foreign value as a message may carry it: quoted, on one line, of bounded length."""
    quoted = repr(text)
    return quoted if len(quoted) <= limit else f"{quoted[:limit]}… ({len(quoted)} characters)"
