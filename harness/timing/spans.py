"""What a run does, second by second: intervals, and whose they are.

Time is in seconds since boot, which all processes of a machine share.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Interval = tuple[float, float]


def now() -> float:
    """Seconds since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Segment:
    """What the main thread was doing from `began` to `ended`."""

    what: str
    began: float
    ended: float


class Spans:
    """Spans of the main thread, and what it does outside of them; of nested spans the outermost counts."""

    def __init__(self, began: float, what: str) -> None:
        self.segments: list[Segment] = []
        self._base = self._what = what
        self._since = began

    @contextmanager
    def span(self, what: str) -> Iterator[None]:
        """Do `what`; on another thread than the main one it is not noted."""
        if self._what != self._base or threading.current_thread() is not threading.main_thread():
            yield
            return
        self.turn(what)
        try:
            yield
        finally:
            self.turn(self._base)

    def turn(self, what: str) -> None:
        """End the segment under way and begin one of `what`."""
        moment = now()
        self.segments.append(Segment(self._what, self._since, moment))
        self._what, self._since = what, moment


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The times at which at least one of the intervals is under way, in order."""
    joined: list[Interval] = []
    for began, ended in sorted(intervals):
        if joined and began <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], ended))
        else:
            joined.append((began, ended))
    return joined


def overlap(began: float, ended: float, joined: Iterable[Interval]) -> float:
    """How many seconds of `began` to `ended` lie in a union of intervals."""
    return sum(max(0.0, min(ended, end) - max(began, begin)) for begin, end in joined)
