"""Whether and when a crashed game is started again: a budget with growing pauses.

Off by default; the neighbours decide what becomes of a crashed game. Exit code 0 is a voluntary exit, 143 is
128 + SIGTERM: neither is a crash. Nor is an end that somebody requested, whatever its code.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from rtmanager.domain.outage import KILLED, LastExit, RequestedBy

#: Exit codes of a voluntary exit: 0, and 143 (128 + SIGTERM).
VOLUNTARY_EXIT_CODES = frozenset({0, 143})


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """At most `budget` restarts of one game within `window_s`; before each a pause that doubles."""

    budget: int = 3
    window_s: float = 600.0
    first_pause_s: float = 5.0
    longest_pause_s: float = 300.0

    def window_begins(self, now: datetime) -> datetime:
        """Restarts before this moment count no more."""
        return now - timedelta(seconds=self.window_s)

    def restart_at(self, now: datetime, restarts: int) -> datetime | None:
        """When the next one is due, after so many within the window; None when the budget is used up."""
        if restarts >= self.budget:
            return None
        return now + timedelta(seconds=min(self.first_pause_s * 2**restarts, self.longest_pause_s))


def is_crash(last_exit: LastExit, *, events_heard: bool) -> bool:
    """Whether nobody wanted this end; `events_heard`: an event told of it, so a request would have been heard, too.

    Without the event, 137 may be a person's `docker kill`: the game stays stopped rather than run against a person.
    """
    if last_exit.requested_by is not RequestedBy.UNKNOWN or last_exit.exit_code in VOLUNTARY_EXIT_CODES:
        return False
    return last_exit.oom or events_heard or last_exit.exit_code != KILLED
