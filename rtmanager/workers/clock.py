"""The store's clock, extrapolated between readings, and a warning when this host's clock deviates from it.

Every stored moment is by the store's clock: instances compare each other's moments, and their hosts' clocks may differ.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from rtmanager.domain.clock import (
    CONFIRMED_S,
    REMEDY,
    Anchor,
    Reading,
    Trust,
    anchored,
    described,
    is_far,
    judged,
)
from rtmanager.ports.clock import Clock, host_clock

#: Seconds between two readings. Clocks that drift by 100 ppm differ by half a millisecond after that time.
PERIOD_S = 5.0


def running_s() -> float:
    """Seconds since this host started, including time in suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class StoreClock:
    """The present moment by the store's clock, also while the store does not answer. Thread-safe."""

    def __init__(self, ask: Callable[[], datetime], running: Callable[[], float] = running_s) -> None:
        """`ask` reads the moment from the store and may raise `Unavailable`."""
        self._read_store = ask
        self._running = running
        self._known: Anchor | None = None

    def read(self) -> None:
        """Read the store's clock. The first call precedes any use; one thread at a time calls it."""
        asked_s = self._running()
        said = self._read_store()
        self._known = anchored(self._known, Reading(said, asked_s, self._running()))

    def __call__(self) -> datetime:
        """The present moment, in UTC. Raises `RuntimeError` before the first `read`."""
        known = self._known
        if known is None:
            raise RuntimeError("the store's clock has not been read")
        return known.then(self._running()).astimezone(UTC)


class SteadyClock:
    """Whether the store's clock can be believed when data is to be deleted by its age. Thread-safe.

    The first reading is compared with this host's clock, each later one with the one before and this host's running
    time.
    """

    def __init__(
        self,
        ask: Callable[[], datetime],
        logger: logging.Logger,
        *,
        host: Clock = host_clock,
        running: Callable[[], float] = running_s,
    ) -> None:
        self._read_store = ask
        self._logger = logger
        self._running = running
        self._lock = threading.Lock()
        self._trust = Trust(Anchor(host(), running()))

    def __call__(self) -> bool:
        """Read the clock; return False while it is unexpectedly ahead. Raises `Unavailable`."""
        with self._lock:
            shown = Anchor(self._read_store(), self._running())
            before, self._trust = self._trust, judged(self._trust, shown)
            if (self._trust.doubted is None) is not (before.doubted is None):
                self._report(before, shown)
            return self._trust.doubted is None

    def _report(self, before: Trust, shown: Anchor) -> None:
        extra = {"expected": before.believed.then(shown.at_s).isoformat(), "postgres": shown.moment.isoformat()}
        if self._trust.doubted is None:
            self._logger.info("PostgreSQL's clock is believed again, retention goes on", extra=extra)
        else:
            why = {"why": f"it is believed after {CONFIRMED_S:.0f} s", "remedy": REMEDY}
            self._logger.warning("PostgreSQL's clock jumped ahead, retention waits", extra=extra | why)


class ClockWatch:
    """One step reads the store's clock and compares this host's clock with it."""

    def __init__(
        self,
        clock: StoreClock,
        *,
        measured: Callable[[float], object],
        logger: logging.Logger,
        host: Clock = host_clock,
    ) -> None:
        """`measured` receives the seconds by which this host's clock is ahead."""
        self._clock = clock
        self._measured = measured
        self._logger = logger
        self._host = host
        self._is_far = False

    def step(self) -> bool:
        """Return False: one reading a period is enough. Raises `Unavailable`."""
        self._clock.read()
        here, there = self._host(), self._clock()
        offset_s = (here - there).total_seconds()
        self._measured(offset_s)
        before, self._is_far = self._is_far, is_far(offset_s, before=self._is_far)
        if self._is_far is not before:
            self._report(here, there, offset_s)
        return False

    def _report(self, here: datetime, there: datetime, offset_s: float) -> None:
        extra = {"here": here.isoformat(), "postgres": there.isoformat(), "offset_s": round(offset_s, 3)}
        if self._is_far:
            why = {"why": described(offset_s), "remedy": REMEDY}
            self._logger.warning("this host's clock is far from PostgreSQL's", extra=extra | why)
        else:
            self._logger.info("this host's clock agrees with PostgreSQL's again", extra=extra)
