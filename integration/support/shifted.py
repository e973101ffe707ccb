"""A manager on a host whose clock is off; only what Python reads of that clock is shifted, and no running time.

python -m integration.support.shifted SECONDS serve
"""

from __future__ import annotations

import datetime
import runpy
import sys
import time

_time_ns = time.time_ns


def command(seconds: int, *what: str) -> tuple[str, ...]:
    """The command line of a manager whose clock is off by so many seconds, and does `what`: serve, check."""
    return (sys.executable, "-m", "integration.support.shifted", str(seconds), *what)


def shift(seconds: int) -> None:
    """Shift the clock of this process, for all that is imported from now on."""

    class Shifted(datetime.datetime):
        """Moments that are made from now on."""

        __slots__ = ()  # of the size that C code expects

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
