"""Waiting for something that another process does: by looking often, and never longer than it makes sense.

A wait ends when its probe answers, when `hopeless` knows that it never will, or at its deadline; a failure
says what was waited for, for how long, and what was last seen.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from harness import timing
from harness.errors import WaitFailed, shortened

T = TypeVar("T")

#: Seconds between two questions whether a wait is hopeless, which may cost more than a look.
HOPELESS_INTERVAL_S = 0.1

#: What takes longer, on a busy machine too, does not come.
TIMEOUT_S = 30.0

#: Seconds between two looks: often enough that a wait costs little, seldom enough to leave the CPU alone.
INTERVAL_S = 0.02


class Watched(Protocol):
    """Something that a wait depends on and that may end: a container."""

    def why_ended(self) -> str | None:
        """Why nothing more comes of it; None while it runs."""

    def last_words(self) -> str:
        """Its last log lines, as a text for a failure."""


#: What the probe of the wait under way has looked at.
_looked_at: ContextVar[list[Watched] | None] = ContextVar("looked_at", default=None)


def looks_at(thing: Watched) -> None:
    """Say that the probe under way asks for something that `thing` does: the wait ends when `thing` does."""
    seen = _looked_at.get()
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

    An exception of `retry_on` counts as "not yet" (those of the Docker SDK are OSErrors, too); any other ends the
    wait. A wait in vain ends when a container ends that is in `watch`, or whose log, address or exec the probe asks
    for; and when `hopeless`, which is asked now and then, returns why waiting on is of no use. Raises WaitFailed then,
    and after `timeout_s` s; `describe` puts what was last seen into its words.
    """
    began = time.monotonic()
    deadline, ask_again = began + timeout_s, began
    watched = list(watch)
    last = ""

    def look() -> T | None:
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
        if seen := look():
            return seen
        now = time.monotonic()
        if now >= ask_again:
            if reason := hopeless() or _first_end(watched):
                # It may have done what is waited for just before its end.
                if seen := look():
                    return seen
                raise WaitFailed(_with_last_words(f"waited for {what}: {reason}; last seen: {last}", watched))
            ask_again = now + HOPELESS_INTERVAL_S
        if now > deadline:
            raise WaitFailed(_with_last_words(f"waited {timeout_s:g} s for {what}; last seen: {last}", watched))
        time.sleep(interval_s)


@contextmanager
def _noting(watched: list[Watched]) -> Iterator[None]:
    token = _looked_at.set(watched)
    try:
        yield
    finally:
        _looked_at.reset(token)


def _first_end(watched: Sequence[Watched]) -> str | None:
    return next((why for each in watched if (why := each.why_ended())), None)


def _with_last_words(text: str, watched: Sequence[Watched]) -> str:
    return "\n".join([text, *(each.last_words() for each in watched)])
