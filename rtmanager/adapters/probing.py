"""Asks the health endpoints of many engines at once: one thread, one event loop, one small task per open socket.

The rule it keeps: an engine's fault becomes that engine's answer, never an exception, and a fault of our own (no
descriptor left, an interruption) is nobody's answer: a key that is missing was not asked. Sockets are driven with
the loop's `sock_*` calls and not with transports: that costs less, and a socket is closed the moment its task is
done with it, so that there are never more of them than allowed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

#: Sockets at once when nothing else is said and the descriptors suffice.
MOST_PARALLEL = 2000
#: What is read of an answer at most: its head, and what of the body came with it.
LONGEST_HEAD = 4096
#: Threads that resolve names. They mostly wait, and a few names that nobody knows must not hold up the others.
RESOLVERS = 32

_HEAD = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: [^\r\n]*)?\r?\n(?:[^\r\n]+\r?\n)*\r?\n")
_BEGINNING = b"HTTP/1."
#: What connecting fails with when it is we who lack something.
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_Address = tuple[socket.AddressFamily, tuple[str | int, ...]]


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask: `key` is the caller's name for it, `host` a name or an address, `port`."""

    key: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one engine said: `status` is the HTTP status (None: no complete answer), `error` why it is not good."""

    status: int | None
    error: str

    @property
    def good(self) -> bool:
        """Whether the engine is healthy: exactly 200."""
        return self.status == 200


class EngineProbes:
    """Asks `GET {path}` of engines, `parallel` of them at once; one `probe` at a time.

    The event loop is kept: it costs three descriptors, and no probe can fail for want of them.
    """

    def __init__(self, *, path: str = "/healthz", parallel: int | None = None) -> None:
        self._path = path
        self._parallel = parallel
        self._asking: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(RESOLVERS, "rtm-probe-names"))

    def probe(self, targets: Sequence[Target], timeout_s: float) -> Mapping[str, Answer]:
        """Ask all of them, each for at most `timeout_s` from its turn on; a key that is missing was not asked."""
        answers: dict[str, Answer] = {}
        if targets:
            self._loop.run_until_complete(self._ask_all(deque(targets), timeout_s, answers))
        return answers

    def interrupt(self) -> None:
        """Make a probe that runs on another thread return at once, with the answers it has."""
        with suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(self._stop_asking)

    def close(self) -> None:
        """Give the event loop back; when no probe runs."""
        self._loop.close()

    async def _ask_all(self, waiting: deque[Target], timeout_s: float, answers: dict[str, Answer]) -> None:
        at_once = min(len(waiting), self._parallel or _affordable())
        self._asking = [
            self._loop.create_task(self._ask_in_turn(waiting, timeout_s, answers)) for _ in range(at_once)
        ]
        try:
            await asyncio.wait(self._asking)
            for task in self._asking:
                if not task.cancelled():
                    task.result()  # a defect is not kept from the caller
        finally:
            self._stop_asking()

    def _stop_asking(self) -> None:
        for task in self._asking:
            task.cancel()
        self._asking = []

    async def _ask_in_turn(self, waiting: deque[Target], timeout_s: float, answers: dict[str, Answer]) -> None:
        while waiting:
            target = waiting.popleft()
            try:
                answers[target.key] = await self._answer_of(target, timeout_s)
            except OSError:
                # Ours. Others will have closed theirs by then, and it takes no longer than an engine that is silent.
                if waiting:
                    await asyncio.sleep(timeout_s)

    async def _answer_of(self, target: Target, timeout_s: float) -> Answer:
        answer = Answer(None, "the name has no address")
        asked = False
        try:
            async with asyncio.timeout(timeout_s):
                addresses = _literal(target) or await self._resolved(target)
                asked = True
                for address in addresses:
                    answer = await self._answer_at(address, self._question_for(target))
                    if answer.status is not None:
                        break
        except TimeoutError:
            return Answer(None, f"no answer within {timeout_s:g} s" if asked else f"not resolved within {timeout_s:g} s")
        except (socket.gaierror, UnicodeError) as error:
            # Without a descriptor no name is found either: this raises then.
            socket.socket().close()
            return Answer(None, f"the name cannot be resolved: {error}")
        return answer

    async def _resolved(self, target: Target) -> list[_Address]:
        found = await self._loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]

    def _question_for(self, target: Target) -> bytes:
        host = f"[{target.host}]" if ":" in target.host else target.host
        lines = (
            f"GET {self._path} HTTP/1.1",
            f"Host: {host}:{target.port}",
            "User-Agent: rtmanager",
            "Connection: close",
        )
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii", "replace")

    async def _answer_at(self, address: _Address, question: bytes) -> Answer:
        try:
            with socket.socket(address[0], socket.SOCK_STREAM) as connection:
                connection.setblocking(False)
                await self._loop.sock_connect(connection, address[1])
                await self._loop.sock_sendall(connection, question)
                return await self._answer_on(connection)
        except OverflowError:
            return Answer(None, "there is no such port")
        except OSError as error:
            if error.errno in _OUR_OWN:
                raise
            return Answer(None, os.strerror(error.errno or 0).lower())

    async def _answer_on(self, connection: socket.socket) -> Answer:
        head = b""
        while len(head) < LONGEST_HEAD:
            received = await self._loop.sock_recv(connection, LONGEST_HEAD - len(head))
            if not received:
                return Answer(None, "connection closed before the head was complete")
            head += received
            ...
        return Answer(None, "the head of the answer is too long")
