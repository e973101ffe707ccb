"""The clock as the rest of the service sees it, and this host's own, which only comparisons read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def host_clock() -> datetime:
    """What this host's clock shows."""
    return datetime.now(UTC)
