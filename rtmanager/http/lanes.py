"""Worker threads for complete requests: a bounded pool for each kind of request.

A request that waits long (an operation, a read while PostgreSQL is silent) holds a thread of its own lane only. So it
delays no request of another lane. A lane starts threads on demand; an idle thread ends after a while.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from rtmanager.http.limits import LaneLimits
from rtmanager.threads import Thread

#: Seconds after which an idle thread ends.
_SPARE_S = 10.0

#: Threads of a lane that work on low-priority requests; more would contend with the others for the interpreter lock.
_AT_LATER = 2

W = TypeVar("W")


class Lane(Generic[W]):
    """Passes each piece of work to one of at most `limits.threads` threads, in the order of arrival.

    Low-priority work (`later`) has an unbounded queue of its own, and at most two of the threads when nothing else is
    due.
    """

    def __init__(self, name: str, limits: LaneLimits, work: Callable[[W], None]) -> None:
        self._name = name
        self._limits = limits
        self._work = work
        self._queue: deque[W] = deque()
        self._later: deque[W] = deque()
        #: Threads at work on low-priority work, and how many of them there may be.
        self._at_later, self._most_at_later = 0, min(_AT_LATER, limits.threads)
        self._changed = threading.Condition()
        self._threads: set[threading.Thread | None] = set()
        #: Threads that are about to end.
        self._leaving: set[threading.Thread] = set()
        self._idle = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._threads)

    @property
    def crowded(self) -> bool:
        """Whether work waits for a thread."""
        return bool(self._queue or self._later)

    def submit(self, work: W, *, later: bool = False) -> bool:
        """Queue the work; False when the queue is full.

        Raises `RuntimeError` or `MemoryError` when the lane has no thread and none can be started.
        """
        with self._changed:
            if later:
                queue, room = self._later, self._at_later < self._most_at_later
            else:
                queue, room = self._queue, True
                if len(queue) >= self._limits.queue:
                    return False
            queue.append(work)
            if self._idle >= len(self._queue) + len(self._later):
                self._changed.notify()
            elif room and len(self._threads) < self._limits.threads:
                self._add_thread(queue, work)
        return True

    def _add_thread(self, queue: deque[W], work: W) -> None:
        self._leaving = {thread for thread in self._leaving if thread.is_alive()}
        thread = None
        try:
            thread = Thread(self._run, self._name)
            self._threads.add(thread)
            thread.start()
        except (RuntimeError, MemoryError):
            self._threads.discard(thread)
            if not self._threads:
                queue.remove(work)
                raise

    def _run(self) -> None:
        try:
            while (found := self._next()) is not None:
                work, later = found
                try:
                    self._work(work)
                finally:
                    if later:
                        with self._changed:
                            self._at_later -= 1
        finally:
            with self._changed:
                thread = threading.current_thread()
                self._threads.discard(thread)
                self._leaving.add(thread)
                self._changed.notify_all()

    def _next(self) -> tuple[W, bool] | None:
        """The next piece of work, and whether it is low-priority work; None when the thread is to end."""
        with self._changed:
            while True:
                if self._queue:
                    return self._queue.popleft(), False
                if self._later and self._at_later < self._most_at_later:
                    self._at_later += 1
                    return self._later.popleft(), True
                if self._closed and not self._later:
                    return None
                self._idle += 1
                try:
                    noticed = self._changed.wait(_SPARE_S)
                finally:
                    self._idle -= 1
                if not noticed and not self.crowded:
                    return None

    def close(self, deadline: float) -> int:
        """End the threads once the queues are empty; return how many still run at `deadline` (monotonic seconds)."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._threads, max(0.0, deadline - time.monotonic()))
            leaving, stuck = list(self._leaving), len(self._threads)
        for thread in leaving:
            thread.join()
        return stuck
