"""Host names looked up on threads of their own, for an event loop.

A look-up cannot be ended: one that hangs holds its thread for as long as the system's resolver likes. So the threads
are daemons, which hold up no exit, and who asks can tell a name that is slow from one whose turn never came.
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
    """One name. `found` fails with what `getaddrinfo` raises."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        self._loop = loop
        self._host = host
        self._port = port
        self._begun = loop.create_future()
        self.found: asyncio.Future[list[Address]] = loop.create_future()

    async def has_begun_within(self, timeout_s: float) -> bool:
        """Whether a thread has taken it; afterwards none will."""
        await asyncio.wait([self._begun], timeout=timeout_s)
        if not self._begun.done():
            self._begun.cancel()
        return not self._begun.cancelled()

    def run(self) -> None:
        """On a thread: look it up, unless nobody waits any more."""
        if self._begun.cancelled() or self._loop.is_closed():
            return
        self._tell(self._begun, None)
        try:
            answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._tell(self.found, [(family, address) for family, _, _, _, address in answers])
        except (OSError, UnicodeError, OverflowError) as error:
            self._tell(self.found, error)
        except Exception as error:  # noqa: BLE001 - a name with a NUL: the thread is there for the next ones, too
            self._tell(self.found, OSError(f"the name cannot be looked up: {error}"))

    def _tell(self, future: asyncio.Future[Any], outcome: object) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(_end, future, outcome)


class Resolver:
    """As many threads as names are looked up at once, started when they are needed."""

    def __init__(self, threads: int) -> None:
        self._most = threads
        self._started = 0
        self._idle = threading.Semaphore(0)
        self._wanted: queue.SimpleQueue[Lookup | None] = queue.SimpleQueue()

    def look_up(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> Lookup:
        """Look a name up as soon as a thread is free; called on the loop's own thread."""
        lookup = Lookup(loop, host, port)
        if not self._idle.acquire(blocking=False) and self._started < self._most:
            with suppress(RuntimeError):  # no thread is to be had: the name counts as not asked for
                Thread(self._work, "rtm-probe-names", lasting=True).start()
                self._started += 1
        self._wanted.put(lookup)
        return lookup

    def close(self) -> None:
        """Let the threads end; those that hang do so when they can."""
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
        return  # given up
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
