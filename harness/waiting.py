"""Wait for something that another process does: poll, with a deadline and early exits.

A wait ends when its probe returns something true, when `hopeless` gives a reason, or at its deadline. The error names
the expected state, the duration and the last result of the probe.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from harness import timing
from harness.errors import WaitFailed, shortened

T = TypeVar("T")

#: Seconds between two calls of `hopeless`, which may cost more than a probe.
HOPELESS_INTERVAL_S = 0.1

#: Default deadline in seconds; sufficient on a busy machine.
TIMEOUT_S = 30.0

#: Seconds between two probes: short for the wait, long enough to leave the CPU free.
INTERVAL_S = 0.02


class Watched(Protocol):
    """Something that a wait depends on and that may end, such as a container."""

    def why_ended(self) -> str | None:
        """Why it has ended; None while it runs."""

    def last_log_lines(self) -> str:
        """Its last log lines, as a text for an error message."""


#: What the probe of the current wait depends on.
_dependencies: ContextVar[list[Watched] | None] = ContextVar("dependencies", default=None)


def depends_on(thing: Watched) -> None:
    """Register `thing` as a dependency of the current probe: the wait ends when `thing` ends."""
    seen = _dependencies.get()
    if seen is not None and thing not in seen:
        seen.append(thing)


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
    watch: Sequence[Watched] = (),
) -> T:
    """Call `probe` until it returns something true, and return that.

    An exception of `retry_on` counts as "not yet" (the errors of the Docker SDK are OSErrors, too); any other exception
    ends the wait. Raises WaitFailed after `timeout_s` seconds; when a container ends that is in `watch`, or whose log,
    address or exec the probe requests; and when `hopeless`, which is called every 0.1 s, returns a reason. `describe`
    formats the probe's last result for the message.
    """
    began = time.monotonic()
    deadline, next_check = began + timeout_s, began
    watched = list(watch)
    last = ""

    def call_probe() -> T | None:
        nonlocal last
        try:
            with _noting(watched):
                seen = probe()
        except retry_on as error:
            last = shortened(f"{type(error).__name__}: {error}".strip())
            return None
        last = shortened(describe(seen))
        return seen or None

    while True:
        if seen := call_probe():
            return seen
        now = time.monotonic()
        if now >= next_check:
            if reason := hopeless() or _first_end(watched):
                # It may have done what the probe expects just before its end.
                if seen := call_probe():
                    return seen
                raise WaitFailed(_with_log_lines(f"waited for {what}: {reason}; last seen: {last}", watched))
            next_check = now + HOPELESS_INTERVAL_S
        if now > deadline:
            raise WaitFailed(_with_log_lines(f"waited {timeout_s:g} s for {what}; last seen: {last}", watched))
        time.sleep(interval_s)


@contextmanager
def _noting(watched: list[Watched]) -> Iterator[None]:
    token = _dependencies.set(watched)
    try:
        yield
    finally:
        _dependencies.reset(token)


def _first_end(watched: Sequence[Watched]) -> str | None:
    return next((why for each in watched if (why := each.why_ended())), None)


def _with_log_lines(text: str, watched: Sequence[Watched]) -> str:
    return "\n".join([text, *(each.last_log_lines() for each in watched)])
