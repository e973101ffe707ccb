"""What one clock tells of another: readings that take time, and the moment that follows from them.

The store's clock decides whatever instances compare: they may run on hosts that disagree about the time. Seconds here
are those of a running time of this host, which nobody sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

#: Seconds between two clocks from which they count as far apart, and below which they do not any more.
FAR_S = 5.0
NEAR_S = 2.5
#: What to do about it.
REMEDY = "set the clock that is wrong, and let NTP keep both (`timedatectl`)"


@dataclass(frozen=True, slots=True)
class Reading:
    """The other clock showed `said` at some moment between `asked_s` and `answered_s`."""

    said: datetime
    asked_s: float
    answered_s: float


@dataclass(frozen=True, slots=True)
class Anchor:
    """The other clock showed `moment` at `at_s`, as far as is known."""

    moment: datetime
    at_s: float

    def then(self, now_s: float) -> datetime:
        """What it shows at another moment."""
        return self.moment + timedelta(seconds=now_s - self.at_s)


def anchored(known: Anchor | None, reading: Reading) -> Anchor:
    """What is known after a reading: the same where both agree, else as little changed as the reading allows.

    So an answer that takes its time moves no clock to and fro.
    """
    took = timedelta(seconds=reading.answered_s - reading.asked_s)
    earliest, latest = reading.said, reading.said + took
    if known is None:
        return Anchor(reading.said + took / 2, reading.answered_s)
    return Anchor(min(max(known.then(reading.answered_s), earliest), latest), reading.answered_s)


def is_far(offset_s: float, *, before: bool) -> bool:
    """Whether clocks so many seconds apart are far apart; `before` says whether they were."""
    return abs(offset_s) > (NEAR_S if before else FAR_S)


def described(offset_s: float) -> str:
    """An offset in words, for a person."""
    side = "ahead of" if offset_s > 0 else "behind"
    return f"this host's clock is {abs(offset_s):.1f} s {side} PostgreSQL's"
