"""Whether and when a crashed game is started again: a budget with growing pauses.

Off by default; the neighbours decide what becomes of a crashed game. An engine that ends with 0 has ended by its
own will, one that ends with 143 was asked to (128 + SIGTERM): neither is a crash.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from rtmanager.domain.findings import LastExit

#: Exit codes of a process that was not torn away.
WILLING = frozenset({0, 143})


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


def is_crash(last_exit: LastExit, *, asked: bool) -> bool:
    """Whether a game ended against everybody's will; `asked` when somebody sent it a signal to end."""
    return last_exit.oom or (last_exit.exit_code not in WILLING and not asked)
