"""A game's identity, and every name that follows from it.

The id is part of a container name, a host name and a directory. Its alphabet (contract:
`[A-Za-z0-9][A-Za-z0-9_-]{0,50}`) therefore has no dot, no slash, and nothing that is special in a path or a label.
"""

from __future__ import annotations

import re

from rtmanager.domain.errors import InvalidValue

GAME_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,50}"
ENGINE_PORT = 8080

#: Longest *name* of a game in records and results, in characters; it need not match the pattern.
MAX_READABLE_LENGTH = 200

_GAME_ID = re.compile(GAME_ID_PATTERN)


def is_game_id(text: str) -> bool:
    """Return whether `text` is a well-formed game id."""
    return _GAME_ID.fullmatch(text) is not None


def check_game_id(text: str) -> str:
    """Return `text` if it is a well-formed game id. Raises `InvalidValue`."""
    if not is_game_id(text):
        raise InvalidValue(
            f"game_id {shown(text)} is malformed: expected 1 to 51 characters of A-Z a-z 0-9 _ -, "
            "the first a letter or a digit"
        )
    return text


def same_name(one: str, other: str) -> bool:
    """Return whether two ids give one host name: Docker's DNS ignores case."""
    return one.lower() == other.lower()


def container_name(game_id: str) -> str:
    """Return the container's name, which is also its host name in the game network."""
    return f"galaxy-game-{game_id}"


def next_container_name(game_id: str) -> str:
    """Return the name of the container that is to replace the game's; no game's own name has a dot."""
    return f"{container_name(game_id)}.next"


def engine_endpoint(game_id: str) -> str:
    """Return where other services reach the engine: a host name, so that it outlives the container."""
    return f"http://{container_name(game_id)}:{ENGINE_PORT}"


def shown(text: object, limit: int = 120) -> str:
    """Return an external value for a message: quoted, on one line, of bounded length."""
    quoted = repr(text)
    return quoted if len(quoted) <= limit else f"{quoted[:limit]}… ({len(quoted)} characters)"
