"""Detects a lease that one session holds for too long.

A lease passes between managers within seconds, and its holder reports what is wrong. A session that is no manager may
hold it without limit, and then no instance reports anything.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from rtmanager.domain.errors import FinalAnswer
from rtmanager.ports.streams import LeaseHolder

#: Seconds without the lease after which a worker looks up its holder, and between two look-ups.
CHECK_S = 5.0
#: Seconds after which a session that holds the lease is reported; the second value is for sessions named like a
#: manager's.
HELD_S = 10.0
HELD_BY_MANAGER_S = 60.0


class MissedLeases:
    """The failed attempts of one worker to get its lease. `holder` looks up the session that holds it."""

    def __init__(self, holder: Callable[[], LeaseHolder | None], clock: Callable[[], float] = monotonic) -> None:
        self._holder = holder
        self._clock = clock
        self._check_at: float | None = None
        self._seen: LeaseHolder | None = None
        self._seen_since = 0.0

    def had(self) -> None:
        """Record that the worker got its lease."""
        self._check_at = self._seen = None

    def missed(self) -> None:
        """Record that another session has the lease. Raises `FinalAnswer` when it holds it for too long."""
        now = self._clock()
        if self._check_at is None:
            self._check_at = now + CHECK_S
        if now >= self._check_at:
            self._check_at = now + CHECK_S
            holder = self._holder()
            if holder is None or holder != self._seen:
                self._seen, self._seen_since = holder, now
        seen = self._seen
        if seen is not None and now - self._seen_since >= (HELD_BY_MANAGER_S if seen.like_manager else HELD_S):
            raise FinalAnswer("postgres", f"{seen.session} holds the lease of this work for too long; {seen.remedy}")
