"""Resolves host names on threads of its own, for an event loop.

A look-up cannot be cancelled: it may occupy its thread as long as the system's resolver takes. So the threads are
daemons, which do not delay an exit, and a caller can tell a slow name from one that no thread has begun.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from contextlib import suppress
from typing import Any

from rtmanager.threads import Thread

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


class Lookup:
    """The look-up of one name. `found` fails with the exceptions of `getaddrinfo`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        self._loop = loop
        self._host = host
        self._port = port
        self._begun = loop.create_future()
        self.found: asyncio.Future[list[Address]] = loop.create_future()

    async def has_begun_within(self, timeout_s: float) -> bool:
        """Wait until a thread has begun; after `timeout_s` cancel and return False."""
        await asyncio.wait([self._begun], timeout=timeout_s)
        if not self._begun.done():
            self._begun.cancel()
        return not self._begun.cancelled()

    def run(self) -> None:
        """Resolve the name on a worker thread, unless it was cancelled."""
        if self._begun.cancelled() or self._loop.is_closed():
            return
        self._set(self._begun, None)
        try:
            answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._set(self.found, [(family, address) for family, _, _, _, address in answers])
        except (OSError, UnicodeError, OverflowError) as error:
            self._set(self.found, error)
        except Exception as error:  # noqa: BLE001 - a name with a NUL: the thread is there for the next ones, too
            self._set(self.found, OSError(f"the name cannot be resolved: {error}"))

    def _set(self, future: asyncio.Future[Any], outcome: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(_end, future, outcome)


class Resolver:
    """A pool of resolver threads, started on demand up to `threads`."""

    def __init__(self, threads: int) -> None:
        self._most = threads
        self._started = 0
        self._idle = threading.Semaphore(0)
        self._wanted: queue.SimpleQueue[Lookup | None] = queue.SimpleQueue()

    def look_up(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> Lookup:
        """Queue a look-up; called on the loop's thread."""
        lookup = Lookup(loop, host, port)
        if not self._idle.acquire(blocking=False) and self._started < self._most:
            with suppress(RuntimeError):  # no thread can be started: the name stays queued and counts as not begun
                Thread(self._work, "rtm-probe-names", lasting=True).start()
                self._started += 1
        self._wanted.put(lookup)
        return lookup

    def close(self) -> None:
        """End the threads; one that hangs ends after its look-up."""
        for _ in range(self._started):
            self._wanted.put(None)

    def _work(self) -> None:
        while (lookup := self._wanted.get()) is not None:
            try:
                lookup.run()
            finally:
                self._idle.release()


def _end(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return  # cancelled
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
