"""Worker threads for requests that have come whole: a bounded pool for each kind of request.

A request that waits long (an operation, a read while PostgreSQL is silent) holds a thread of its own lane, so it
delays no request of another. A lane starts threads as it needs them; one that has nothing to do for a while ends.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from rtmanager.http.limits import LaneLimits

#: A thread without work ends after so many seconds.
_SPARE_S = 10.0

W = TypeVar("W")


class Lane(Generic[W]):
    """Hands each piece of work to one of at most `limits.threads` threads, in the order of arrival."""

    def __init__(self, name: str, limits: LaneLimits, work: Callable[[W], None]) -> None:
        self._name = name
        self._limits = limits
        self._work = work
        self._queue: deque[W] = deque()
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        #: Threads that are done and gone in a moment.
        self._leaving: set[threading.Thread] = set()
        self._idle = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._threads)

    @property
    def crowded(self) -> bool:
        """Whether work waits for a thread."""
        return bool(self._queue)

    def submit(self, work: W) -> bool:
        """Queue the work; False when the queue is full. Raises `RuntimeError` when no thread at all can be had."""
        with self._changed:
            if len(self._queue) >= self._limits.queue:
                return False
            self._queue.append(work)
            if self._idle >= len(self._queue):
                self._changed.notify()
            elif len(self._threads) < self._limits.threads:
                self._add_thread(work)
        return True

    def _add_thread(self, work: W) -> None:
        self._leaving = {thread for thread in self._leaving if thread.is_alive()}
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.remove(thread)
            if not self._threads:
                self._queue.remove(work)
                raise

    def _run(self) -> None:
        try:
            while (work := self._next()) is not None:
                self._work(work)
        finally:
            with self._changed:
                thread = threading.current_thread()
                self._threads.discard(thread)
                self._leaving.add(thread)
                self._changed.notify_all()

    def _next(self) -> W | None:
        with self._changed:
            while not self._queue:
                if self._closed:
                    return None
                self._idle += 1
                try:
                    noticed = self._changed.wait(_SPARE_S)
                finally:
                    self._idle -= 1
                if not noticed and not self._queue:
                    return None
            return self._queue.popleft()

    def close(self, deadline: float) -> int:
        """Let the threads end once the queue is empty; the number of those that do not until then (monotonic)."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._threads, max(0.0, deadline - time.monotonic()))
            leaving, stuck = list(self._leaving), len(self._threads)
        for thread in leaving:
            thread.join()
        return stuck
