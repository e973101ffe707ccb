"""Decides whether and when to restart a crashed game: a budget with growing pauses.

Off by default: other services decide what becomes of a crashed game. An end that somebody requested is no crash,
whatever its exit code.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from rtmanager.domain.outage import KILLED, LastExit, RequestedBy

#: Exit codes of a voluntary exit: 0, and 143 (128 + SIGTERM).
VOLUNTARY_EXIT_CODES = frozenset({0, 143})


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """At most `budget` restarts of one game within `window_s`; the pause before each one doubles."""

    budget: int = 3
    window_s: float = 600.0
    first_pause_s: float = 5.0
    longest_pause_s: float = 300.0

    def window_begins(self, now: datetime) -> datetime:
        """Return the begin of the window: restarts before this moment do not count."""
        return now - timedelta(seconds=self.window_s)

    def restart_at(self, now: datetime, restarts: int) -> datetime | None:
        """Return when the next restart is due after `restarts` in the window; None when the budget is used up."""
        if restarts >= self.budget:
            return None
        return now + timedelta(seconds=min(self.first_pause_s * 2**restarts, self.longest_pause_s))


def is_crash(last_exit: LastExit, *, event_seen: bool) -> bool:
    """Return whether nobody requested this end.

    `event_seen`: an event reported the end, so an event would also have reported a request. Without that event, exit
    code 137 may come from a person's `docker kill`. The game then stays stopped.
    """
    if last_exit.requested_by is not RequestedBy.UNKNOWN or last_exit.exit_code in VOLUNTARY_EXIT_CODES:
        return False
    return last_exit.oom or event_seen or last_exit.exit_code != KILLED
