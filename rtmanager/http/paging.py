"""Lists, page by page: how large a page may be, and the place where the next one begins as an opaque text."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import TypeVar

from rtmanager.domain.game import check_game_id, shown
from rtmanager.http.messages import invalid

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000

T = TypeVar("T")

#: Stands before the id of a log row and in no game id: a cursor of one list is none of the other.
_BEFORE = "<"
_ROW = re.compile(_BEFORE + "([1-9][0-9]{0,18})")
#: What a bigint can hold: a larger number would be PostgreSQL's to refuse.
_LARGEST_ROW_ID = (1 << 63) - 1


def page_size(text: str | None) -> int:
    """The parameter `limit`. Raises `HttpError`."""
    if text is None:
        return DEFAULT_PAGE
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= LARGEST_PAGE):
        raise invalid(f"limit {shown(text)}: expected a whole number from 1 to {LARGEST_PAGE}")
    return int(text)


def encode_cursor(game_id: str) -> str:
    """The place after a game, for a client to hand back as it is."""
    return _encoded(game_id)


def decode_cursor(text: str) -> str:
    """The game that a page begins after. Raises `HttpError` for what `encode_cursor` did not make."""
    return _decoded(text, check_game_id)


def encode_log_cursor(row_id: int) -> str:
    """The place in a log behind one of its rows."""
    return _encoded(f"{_BEFORE}{row_id}")


def decode_log_cursor(text: str) -> int:
    """The row that a page begins behind. Raises `HttpError` for what `encode_log_cursor` did not make."""
    return _decoded(text, _row_id)


def _encoded(place: str) -> str:
    return urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _decoded(text: str, read: Callable[[str], T]) -> T:
    try:
        content = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        place = read(content)
        if _encoded(content) == text:  # the decoder passes over what is not of its alphabet
            return place
        fault = "has more than a cursor in it"
    except ValueError:
        fault = "is none"
    raise invalid(f"cursor {shown(text)} {fault}: expected next_cursor of an earlier answer")


def _row_id(text: str) -> int:
    match = _ROW.fullmatch(text)
    if match is None or int(match[1]) > _LARGEST_ROW_ID:
        raise ValueError("no place in a log")
    return int(match[1])
