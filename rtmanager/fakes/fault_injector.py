"""Injects faults into a dependency in memory, by the number of the call, so that a seed reproduces them.

trouble.available = False        # every call raises Unavailable
trouble.fail_call(3)             # the third call from now is not done and raises Unavailable
trouble.fail_call(3, done=True)  # it is done, but its answer is lost
trouble.before = hook            # is called with the name of each call first; the caller gets what it raises
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from rtmanager.domain.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")


class FaultInjector:
    """The faults of one dependency; `lock` serialises its calls."""

    def __init__(self, dependency: str) -> None:
        self.dependency = dependency
        self.available = True
        self.calls = 0
        self.before: Callable[[str], None] | None = None
        self.lock = threading.RLock()
        self._faults: dict[int, bool] = {}

    def fail_call(self, number: int, *, done: bool = False) -> None:
        """Let the `number`-th call from now (the next is 1) raise `Unavailable`, after it is done or instead."""
        with self.lock:
            self._faults[self.calls + number] = done

    def heal(self) -> None:
        """Cancel the faults that have not occurred yet."""
        with self.lock:
            self._faults.clear()

    def enter(self, name: str) -> bool:
        """Count a call; return whether its answer is to be lost. Raises `Unavailable`, or what the hook raises."""
        self.calls += 1
        if self.before is not None:
            self.before(name)
        if not self.available:
            raise self.unavailable(name)
        if not self._faults:
            return False
        done = self._faults.pop(self.calls, None)
        if done is False:
            raise self.unavailable(name)
        return bool(done)

    def unavailable(self, name: str) -> Unavailable:
        """The error of a call that gets no answer."""
        return Unavailable(self.dependency, f"{self.dependency} in memory does not answer to {name}")


class Troubled(Protocol):
    """A dependency with injected faults."""

    @property
    def trouble(self) -> FaultInjector: ...


T = TypeVar("T", bound=Troubled)


def call(method: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """Decorate a method as one call of the dependency: counted, serialised, and subject to injected faults."""
    name = method.__name__

    @wraps(method)
    def guarded(self: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
        trouble = self.trouble
        with trouble.lock:
            if not trouble.enter(name):
                return method(self, *args, **kwargs)
            try:
                method(self, *args, **kwargs)
            finally:
                # The answer is lost, whatever it was.
                raise trouble.unavailable(name)

    return guarded
