"""How long a worker has been without its lease, and who holds it.

A lease passes between instances within seconds, and whoever has it reports what is wrong. A session that is no manager
holds it for as long as it likes, and then nobody reports anything.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from rtmanager.domain.errors import FinalAnswer
from rtmanager.ports.streams import LeaseHolder

#: Without the lease for so long, a worker finds out who holds it, and again after each such time.
LOOK_S = 5.0
#: A session that holds a lease for so long is reported; one with the name of a manager's session after a longer time.
HELD_S = 10.0
HELD_BY_MANAGER_S = 60.0


class MissedLeases:
    """The leases that one worker did not get since it last had one. `holder` finds out who has it."""

    def __init__(self, holder: Callable[[], LeaseHolder | None], clock: Callable[[], float] = monotonic) -> None:
        self._holder = holder
        self._clock = clock
        self._look_at: float | None = None
        self._seen: LeaseHolder | None = None
        self._seen_since = 0.0

    def had(self) -> None:
        """The worker had its lease."""
        self._look_at = self._seen = None

    def missed(self) -> None:
        """Somebody else has the lease. Raises `FinalAnswer` when it is held for too long."""
        now = self._clock()
        if self._look_at is None:
            self._look_at = now + LOOK_S
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            holder = self._holder()
            if holder is None or holder != self._seen:
                self._seen, self._seen_since = holder, now
        seen = self._seen
        if seen is not None and now - self._seen_since >= (HELD_BY_MANAGER_S if seen.like_manager else HELD_S):
            raise FinalAnswer("postgres", f"{seen.session} holds the lease of this work for too long; {seen.remedy}")
