"""Intervals of a run: what it does at which time.

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
    """What the main thread did from `began` to `ended`."""

    what: str
    began: float
    ended: float


class Spans:
    """Spans of the main thread, and the time outside of them; of nested spans the outermost counts."""

    def __init__(self, began: float, what: str) -> None:
        self.segments: list[Segment] = []
        self._base = self._what = what
        self._since = began

    @contextmanager
    def span(self, what: str) -> Iterator[None]:
        """Record the block as `what`; does nothing on other threads than the main one."""
        if self._what != self._base or threading.current_thread() is not threading.main_thread():
            yield
            return
        self.turn(what)
        try:
            yield
        finally:
            self.turn(self._base)

    def turn(self, what: str) -> None:
        """End the current segment and begin one of `what`."""
        moment = now()
        self.segments.append(Segment(self._what, self._since, moment))
        self._what, self._since = what, moment


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The times at which at least one of the intervals is active, in order."""
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
