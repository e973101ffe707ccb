"""Threads whose start always returns, even if the process gets no memory.

`threading.Thread.start` waits without limit until the new thread runs Python code. A thread that gets no memory for
that ends before, and its starter would wait for ever. `Thread.start` detects it. It uses private names of `threading`
in Python 3.11 to 3.14; where they differ, a start is the usual one.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

#: The text of the `RuntimeError` of a thread that cannot be started.
NO_THREAD = "can't start new thread"
#: Longest time until a new thread runs. One that has ended before is detected after `_CHECK_S`.
BEGIN_S = 10.0
_CHECK_S = 0.02
#: How long `join` waits by default.
JOIN_S = 10.0
#: Pause before a lasting thread runs its target again after a MemoryError.
_PAUSE_S = 0.1

T = TypeVar("T")
R = TypeVar("R")


class Thread(threading.Thread):
    """A daemon thread; with `lasting` it runs its target again after a MemoryError."""

    _bootstrap: Callable[[], None]
    _started: threading.Event

    def __init__(
        self, target: Callable[..., object], name: str, args: Iterable[Any] = (), *, lasting: bool = False
    ) -> None:
        super().__init__(target=self._run_lasting if lasting else target, name=name, args=tuple(args), daemon=True)
        self._lasting_target = target if lasting else None
        self._started = _Unawaited()
        #: Decides the start: the thread acquires it to run, its starter to give up.
        self._decision = threading.Lock()
        #: Held until the thread has decided.
        self._begun = threading.Lock()
        self._begun.acquire()

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` when it does not run, and never will, as without free threads."""
        if self._decision.locked():
            raise RuntimeError("threads can only be started once")
        begin: Callable[[], None] | None = partial(self._bootstrap)
        alive = weakref.ref(begin)
        self._bootstrap = begin  # type: ignore[assignment]
        try:
            super().start()
            # From here on only the new thread refers to it.
            del self._bootstrap
            begin = None
            self._await(alive)
        except BaseException as error:
            self.__dict__.pop("_bootstrap", None)
            if not self._decision.acquire(blocking=False):
                return  # it runs
            if isinstance(error, MemoryError):
                raise RuntimeError(NO_THREAD) from error
            raise

    def _await(self, alive: Callable[[], object]) -> None:
        until = time.monotonic() + BEGIN_S
        while not self._begun.acquire(timeout=_CHECK_S):
            ended = alive() is None
            if self._begun.acquire(blocking=False):
                return
            if ended:
                getattr(threading, "_limbo", {}).pop(self, None)  # otherwise `threading.enumerate` lists it for ever
            if ended or time.monotonic() > until:
                raise RuntimeError(NO_THREAD)

    def run(self) -> None:
        """Run the target, unless the starter has given the thread up."""
        if self._decision.acquire(blocking=False):
            self._begun.release()
            super().run()

    def join(self, timeout: float | None = JOIN_S) -> None:
        """Wait until the thread has ended, at most `timeout` seconds; not at all for one that did not begin."""
        if self._started.is_set():
            super().join(timeout)

    def _run_lasting(self, *args: Any) -> None:
        assert self._lasting_target is not None
        while True:
            try:
                self._lasting_target(*args)
                return
            except MemoryError:
                time.sleep(_PAUSE_S)


class _Unawaited(threading.Event):
    """The event that `threading.Thread.start` waits for; `Thread.start` has a wait of its own."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set() if timeout is None else super().wait(timeout)


def side_by_side(work: Callable[[T], R], items: Sequence[T], threads: int, name: str) -> list[R]:
    """Run the work on each item, on at most `threads` threads, the caller's included; return the results.

    Raises the first error. If no thread is available, the caller does the remaining work.
    """
    results: dict[int, R] = {}
    errors: dict[int, BaseException] = {}
    todo = deque(enumerate(items))

    def work_off() -> None:
        while todo:
            try:
                number, item = todo.popleft()
            except IndexError:  # another thread has the last one
                return
            try:
                results[number] = work(item)
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                errors[number] = error

    helpers = []
    for _ in range(min(threads, len(items)) - 1):
        helper = Thread(work_off, name)
        try:
            helper.start()
        except RuntimeError:
            break
        helpers.append(helper)
    work_off()
    for helper in helpers:
        helper.join(None)
    for number in range(len(items)):
        if number not in results:
            raise errors.get(number) or MemoryError
    return [results[number] for number in range(len(items))]
