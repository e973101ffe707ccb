"""Estimates another clock from readings that take time.

PostgreSQL's clock decides wherever instances compare times, because their hosts' clocks may differ. Seconds here are
readings of this host's monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

#: Offsets in seconds: above `FAR_S` two clocks count as far apart, until the offset is below `NEAR_S` again.
FAR_S = 5.0
NEAR_S = 2.5
#: Seconds by which another clock may gain on this host's running time between two readings.
MAX_JUMP_S = 600.0
#: Seconds after which a clock that jumped ahead is believed.
CONFIRMED_S = 3600.0
#: Remedy for clocks that are far apart.
REMEDY = "set the clock that is wrong, and let NTP keep both (`timedatectl`)"


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading of the other clock: it showed `said` at some moment between `asked_s` and `answered_s`."""

    said: datetime
    asked_s: float
    answered_s: float


@dataclass(frozen=True, slots=True)
class Anchor:
    """An estimate of the other clock: it showed `moment` at `at_s`."""

    moment: datetime
    at_s: float

    def then(self, now_s: float) -> datetime:
        """Return what the other clock shows at `now_s`."""
        return self.moment + timedelta(seconds=now_s - self.at_s)


def anchored(known: Anchor | None, reading: Reading) -> Anchor:
    """Return the anchor after a reading: the known one, moved only as far as the reading requires.

    A slow answer thus does not move the estimate back and forth.
    """
    took = timedelta(seconds=reading.answered_s - reading.asked_s)
    earliest, latest = reading.said, reading.said + took
    if known is None:
        return Anchor(reading.said + took / 2, reading.answered_s)
    return Anchor(min(max(known.then(reading.answered_s), earliest), latest), reading.answered_s)


@dataclass(frozen=True, slots=True)
class Trust:
    """What is believed of the other clock, and what it has shown since it jumped ahead of that."""

    believed: Anchor
    doubted: Anchor | None = None


def judged(trust: Trust, shown: Anchor) -> Trust:
    """Return the trust after a reading. A jump ahead is believed when it has lasted for `CONFIRMED_S`.

    A clock that is behind is believed at once: it makes nothing old.
    """
    if _ahead_s(trust.believed, shown) <= MAX_JUMP_S:
        return Trust(shown)
    doubted = trust.doubted
    if doubted is None or abs(_ahead_s(doubted, shown)) > MAX_JUMP_S:
        return Trust(trust.believed, doubted=shown)
    return Trust(shown) if shown.at_s - doubted.at_s >= CONFIRMED_S else trust


def _ahead_s(known: Anchor, shown: Anchor) -> float:
    return (shown.moment - known.then(shown.at_s)).total_seconds()


def is_far(offset_s: float, *, before: bool) -> bool:
    """Return whether clocks with this offset are far apart; `before`: whether they were."""
    return abs(offset_s) > (NEAR_S if before else FAR_S)


def described(offset_s: float) -> str:
    """Describe an offset for the log."""
    side = "ahead of" if offset_s > 0 else "behind"
    return f"this host's clock is {abs(offset_s):.1f} s {side} PostgreSQL's"
