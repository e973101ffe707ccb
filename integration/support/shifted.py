"""A manager on a host with a wrong clock; shifts only Python's readings of the time of day, not durations.

python -m integration.support.shifted SECONDS serve
"""

from __future__ import annotations

import datetime
import runpy
import sys
import time

_time_ns = time.time_ns


def command(seconds: int, *what: str) -> tuple[str, ...]:
    """The command line of a manager whose clock is off by `seconds`; `what` is serve or check."""
    return (sys.executable, "-m", "integration.support.shifted", str(seconds), *what)


def shift(seconds: int) -> None:
    """Shift the clock of this process, for everything that is imported from now on."""

    class Shifted(datetime.datetime):
        """A datetime whose `now` is shifted."""

        __slots__ = ()  # keeps the size that C code expects

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Shifted:
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Shifted:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    def time_ns() -> int:
        return _time_ns() + seconds * 10**9

    def time_s() -> float:
        return time_ns() / 1e9

    time.time_ns, time.time = time_ns, time_s
    datetime.datetime = Shifted  # type: ignore[misc]


if __name__ == "__main__":
    shift(int(sys.argv.pop(1)))
    runpy.run_module("rtmanager", run_name="__main__", alter_sys=True)
