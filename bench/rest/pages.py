"""A client that reads a whole list, page by page, on one connection."""

import json
import re
import time
from contextlib import closing

from bench.errors import BenchError
from bench.rest import games
from bench.rest.wire import RUNTIMES, Line

_GAME = re.compile(rb'"game_id" ?: ?"([^"]+)"')
_NEXT = re.compile(rb'"next_cursor":(?:null|"([^"]+)")\}$')
#: The last bytes of a page, which contain its cursor.
_END_BYTES = 200


def go_through(port: int, limit: int) -> float:
    """Seconds for all pages of that size. Raises BenchError unless they have every game once, in order."""
    bodies = []
    with closing(Line.to(port)) as line:
        began = time.perf_counter()
        cursor: str | None = ""
        while cursor is not None:
            bodies.append(line.get(f"{RUNTIMES}?limit={limit}" + (f"&cursor={cursor}" if cursor else "")))
            cursor = next_cursor(bodies[-1])
        took = time.perf_counter() - began
    check(bodies)
    return took


def next_cursor(body: bytes) -> str | None:
    """The cursor of the next page, None after the last. Raises BenchError when the page has none."""
    found = _NEXT.search(body, max(0, len(body) - _END_BYTES))
    if found is None:
        raise BenchError(f"a page ends without a cursor: {body[-_END_BYTES:]!r}")
    return None if found[1] is None else found[1].decode()


def check(bodies: list[bytes]) -> None:
    """Raises BenchError unless these pages have every game once, in order."""
    seen = [game.decode() for body in bodies for game in _GAME.findall(body)]
    if seen != games.ids():
        raise BenchError(f"the pages have {len(seen)} records of {len(set(seen))} games, not {games.GAMES} in order")


def content(port: int, path: str) -> object:
    """The JSON that a server answers to a GET. Raises BenchError unless the status is 200."""
    with closing(Line.to(port)) as line:
        return json.loads(line.get(path))
