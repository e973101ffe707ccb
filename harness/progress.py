"""Progress of long steps on stderr: the current step, and its duration.

Silent by default, so that a test's output stays its own; the command line enables it.
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


def report(line: str) -> None:
    """Print one line, when progress is enabled."""
    if _enabled:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print `what`, and at the end of the block its duration in seconds."""
    report(f"== {what}")
    began = time.monotonic()
    yield
    report(f"   done in {time.monotonic() - began:.1f} s")
