"""Routes requests: a table of handlers by method and path, and the look-up in it.

A template's `{game_id}` stands for one segment. The path is split before segments are percent-decoded, so an encoded
slash stays a part of the id (and makes it malformed).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.game import MAX_READABLE_LENGTH, shown
from rtmanager.http.messages import HttpError, invalid

GAME_ID = "{game_id}"
H = TypeVar("H")

#: Characters of a segment in which every character takes four percent-encoded bytes. Longer ones take a millisecond.
_LONGEST_SEGMENT = MAX_READABLE_LENGTH * 12
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Router(Generic[H]):
    """Finds handlers by method and path. A GET route also answers HEAD; the server omits the body."""

    def __init__(self, table: Mapping[tuple[str, str], H]) -> None:
        self._by_path: dict[str, dict[str, H]] = {}
        for (method, template), handler in table.items():
            self._by_path.setdefault(template, {})[method] = handler
        self._patterns = [
            (re.compile(re.escape(template).replace(re.escape(GAME_ID), "([^/]+)")), handlers)
            for template, handlers in self._by_path.items()
            if GAME_ID in template
        ]

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Method and path template of every route."""
        return [(method, template) for template, handlers in self._by_path.items() for method in handlers]

    def find(self, method: str, path: str) -> tuple[H, str]:
        """The handler, and the path's game id ("" where it has none).

        Raises `HttpError`: 404 for an unknown path, 405 with `Allow` for a method that the path does not have, 400
        for a segment that cannot be decoded.
        """
        handlers, segment = self._handlers(path)
        handler = handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            allowed = ", ".join(sorted({*handlers, "HEAD"} if "GET" in handlers else handlers))
            raise HttpError(
                ErrorCode.INVALID_REQUEST,
                f"method {shown(method)} on {shown(path)}: expected {allowed}",
                status=405,
                headers={"Allow": allowed},
            )
        return handler, _decoded(segment)

    def _handlers(self, path: str) -> tuple[dict[str, H], str]:
        if path == "*":  # OPTIONS of the whole server
            return {method: handler for found in self._by_path.values() for method, handler in found.items()}, ""
        if path in self._by_path and GAME_ID not in path:
            return self._by_path[path], ""
        for pattern, handlers in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                return handlers, match[1]
        raise HttpError(
            ErrorCode.NOT_FOUND, f"there is nothing at {shown(path)}; games are at /api/v1/internal/runtimes"
        )


def _decoded(segment: str) -> str:
    if "%" not in segment:
        return segment
    if len(segment) > _LONGEST_SEGMENT:
        raise invalid(f"path segment {shown(segment)}: expected at most {MAX_READABLE_LENGTH} characters, in UTF-8")
    if _BAD_ESCAPE.search(segment):
        raise invalid(f"path segment {shown(segment)}: expected two hexadecimal digits after each %")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise invalid(f"path segment {shown(segment)} is no UTF-8 once it is decoded") from None
