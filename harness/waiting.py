"""Waiting for something that another process does: by looking often, and never longer than it makes sense.

A wait ends when its probe answers, when `hopeless` knows that it never will, or at its deadline; a failure
says what was waited for, for how long, and what was last seen.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from harness import timing
from harness.errors import WaitFailed

T = TypeVar("T")

#: Seconds between two questions whether a wait is hopeless, which may cost more than a look.
HOPELESS_INTERVAL_S = 0.1

#: What takes longer, on a busy machine too, does not come.
TIMEOUT_S = 30.0

#: Seconds between two looks: often enough that a wait costs little, seldom enough to leave the CPU alone.
INTERVAL_S = 0.02


def _never() -> str | None:
    return None


@timing.span("waiting for what a test expects")
def wait_until(
    what: str,
    probe: Callable[[], T | None],
    *,
    timeout_s: float = TIMEOUT_S,
    interval_s: float = INTERVAL_S,
    retry_on: tuple[type[Exception], ...] = (OSError,),
    hopeless: Callable[[], str | None] = _never,
    describe: Callable[[T | None], str] = repr,
) -> T:
    """Call `probe` until it returns something true, and return that.

    An exception of `retry_on` counts as "not yet" (those of the Docker SDK are OSErrors, too); any other ends the
    wait. `hopeless` is asked now and then after a look in vain, and returns why waiting on is of no use. Raises
    WaitFailed then, and after `timeout_s` s; `describe` puts what was last seen into its words.
    """
    began = time.monotonic()
    deadline, ask_again = began + timeout_s, began
    while True:
        try:
            seen = probe()
        except retry_on as error:
            last = f"{type(error).__name__}: {error}".strip()
        else:
            if seen:
                return seen
            last = describe(seen)
        now = time.monotonic()
        if now >= ask_again:
            if reason := hopeless():
                raise WaitFailed(f"waited for {what}: {reason}; last seen: {last}")
            ask_again = now + HOPELESS_INTERVAL_S
        if now > deadline:
            raise WaitFailed(f"waited {timeout_s:g} s for {what}; last seen: {last}")
        time.sleep(interval_s)
