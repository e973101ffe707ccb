"""The clock port, and this host's own clock, which only comparisons read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def host_clock() -> datetime:
    """Return this host's time, in UTC."""
    return datetime.now(UTC)
