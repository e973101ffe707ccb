"""Progress of long steps on stderr: what is going on, and how long it has taken.

Silent by default, so that a test's output stays its own; the command line turns it on.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_enabled = False


def enable() -> None:
    """Print progress from now on."""
    global _enabled
    _enabled = True


def say(line: str) -> None:
    """One line of progress."""
    if _enabled:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce `what`, and say at its end how many seconds it took."""
    say(f"== {what}")
    began = time.monotonic()
    yield
    say(f"   done in {time.monotonic() - began:.1f} s")
