"""Paging of lists: the page size, and opaque cursors that mark where the next page begins."""

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

#: Precedes the id of a log row and occurs in no game id, so that a cursor of one list is invalid for the other.
_BEFORE = "<"
_ROW = re.compile(_BEFORE + "([1-9][0-9]{0,18})")
#: The largest bigint; PostgreSQL would refuse a larger number.
_LARGEST_ROW_ID = (1 << 63) - 1


def page_size(text: str | None) -> int:
    """The parameter `limit`. Raises `HttpError`."""
    if text is None:
        return DEFAULT_PAGE
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= LARGEST_PAGE):
        raise invalid(f"limit {shown(text)}: expected a whole number from 1 to {LARGEST_PAGE}")
    return int(text)


def encode_cursor(game_id: str) -> str:
    """The cursor of the page after a game; clients send it back unchanged."""
    return _encoded(game_id)


def decode_cursor(text: str) -> str:
    """The game that a page begins after. Raises `HttpError` for a text that `encode_cursor` did not make."""
    return _decoded(text, check_game_id)


def encode_log_cursor(row_id: int) -> str:
    """The cursor of the page after a row of the operation log."""
    return _encoded(f"{_BEFORE}{row_id}")


def decode_log_cursor(text: str) -> int:
    """The row that a page begins after. Raises `HttpError` for a text that `encode_log_cursor` did not make."""
    return _decoded(text, _row_id)


def _encoded(place: str) -> str:
    return urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _decoded(text: str, read: Callable[[str], T]) -> T:
    try:
        content = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        place = read(content)
        if _encoded(content) == text:  # the decoder ignores characters outside its alphabet
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
