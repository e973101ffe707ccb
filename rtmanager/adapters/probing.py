"""Probes the health endpoints of many engines at once, on the calling thread.

An engine's fault becomes its result, never an exception. A local fault, such as a lack of descriptors or an
interruption, gives no result: a missing key was not probed. Sockets use the loop's `sock_*` calls instead of
transports. That costs less for thousands of probes every few seconds. And each socket is closed before its task opens
the next, so their number stays within the limit.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import socket
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from rtmanager.adapters.resolver import Address, Resolver
from rtmanager.ports.watching import ProbeTarget

#: Sockets at once by default, if the descriptors suffice.
MOST_PARALLEL = 2000
#: Bytes read of an answer: its head, and what arrived of the body with it.
LONGEST_HEAD = 4096
#: Threads that resolve names. They mostly wait, and a few names without an answer must not delay the others.
RESOLVERS = 32

_STATUS_LINE = re.compile(rb"HTTP/1\.\d ([1-9]\d\d)(?: [^\r\n]*)?\r?\n")
_STATUS_LINE_BEGINS = b"HTTP/1."
_EMPTY_LINE = re.compile(rb"\n\r?\n")
#: Errors of opening a socket that mean a lack of local resources.
_OUR_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """The result of one probe: `status` is the HTTP status, None without a complete answer; `error` is the fault."""

    status: int | None
    error: str

    @property
    def good(self) -> bool:
        """Whether the engine is healthy: exactly 200."""
        return self.status == 200


class EngineProbes:
    """Sends `GET {path}` to engines, at most `parallel` at once; one `probe` at a time.

    The event loop is kept open: it takes three descriptors, and so no probe fails for lack of them.
    """

    def __init__(self, *, path: str = "/healthz", parallel: int | None = None) -> None:
        self._path = path
        self._parallel = parallel
        self._asking: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._names = Resolver(RESOLVERS)
        # Also for an object that is dropped without `close`.
        self._give_back = weakref.finalize(self, _give_back, self._loop, self._names)
        self._give_back.atexit = False

    def probe(self, targets: Sequence[ProbeTarget], timeout_s: float) -> Mapping[str, EngineAnswer]:
        """Probe all targets, each for at most `timeout_s` from its start; a missing key was not probed."""
        answers: dict[str, EngineAnswer] = {}
        if targets:
            self._loop.run_until_complete(self._probe_all(deque(targets), timeout_s, answers))
        return answers

    def interrupt(self) -> None:
        """End a `probe` on another thread at once with its results so far; later probes are unaffected."""
        with suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(self._stop_asking)

    def close(self) -> None:
        """Close the loop and the resolver; only while no probe runs."""
        self._give_back()

    async def _probe_all(self, waiting: deque[ProbeTarget], timeout_s: float, answers: dict[str, EngineAnswer]) -> None:
        at_once = min(len(waiting), self._parallel or _affordable())
        asking = [self._loop.create_task(self._probe_in_turn(waiting, timeout_s, answers)) for _ in range(at_once)]
        self._asking = asking
        try:
            await asyncio.wait(asking)
        finally:
            self._stop_asking()
        for task in asking:
            if not task.cancelled():
                task.result()  # raises a defect to the caller

    def _stop_asking(self) -> None:
        for task in self._asking:
            task.cancel()
        self._asking = []

    async def _probe_in_turn(
        self, waiting: deque[ProbeTarget], timeout_s: float, answers: dict[str, EngineAnswer]
    ) -> None:
        while waiting:
            target = waiting.popleft()
            answer = await self._answer_of(target, timeout_s)
            if answer is not None:
                answers[target.key] = answer
            elif waiting:
                # Meanwhile others close their sockets; the pause is as long as a silent engine's probe.
                await asyncio.sleep(timeout_s)

    async def _answer_of(self, target: ProbeTarget, timeout_s: float) -> EngineAnswer | None:
        """Return the probe's result; None when a local fault prevented it."""
        late = "name not resolved"
        addresses = _literal(target)
        lookup = None if addresses else self._names.look_up(self._loop, target.host, target.port)
        if lookup is not None and not await lookup.has_begun_within(timeout_s):
            return None  # names that hang occupy all threads, which says nothing about this one
        try:
            async with asyncio.timeout(timeout_s):
                if lookup is not None:
                    addresses = await lookup.found
                late = "no answer"
                return await self._first_answer(addresses, _question(target, self._path))
        except socket.gaierror as error:
            return EngineAnswer(None, f"name cannot be resolved: {error.strerror}") if _descriptor_left() else None
        except UnicodeError:
            return EngineAnswer(None, "name cannot be resolved: not a valid name")
        except OverflowError:
            return EngineAnswer(None, "there is no such port")
        except OSError as error:
            if error.errno in _OUR_LACK:
                return None
            return EngineAnswer(
                None, os.strerror(error.errno).lower() if error.errno else f"{late} within {timeout_s:g} s"
            )

    async def _first_answer(self, addresses: list[Address], question: bytes) -> EngineAnswer:
        for address in addresses[:-1]:
            with suppress(OSError):
                return await self._answer_at(address, question)
        return await self._answer_at(addresses[-1], question)

    async def _answer_at(self, address: Address, question: bytes) -> EngineAnswer:
        with socket.socket(address[0], socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
            failure = connection.connect_ex(address[1])
            if failure not in (0, errno.EINPROGRESS):
                raise OSError(failure, os.strerror(failure))
            # Also waits for the connection, which on a near network is mostly made by now: one wait less.
            await self._loop.sock_sendall(connection, question)
            received = b""
            while True:
                more = await self._loop.sock_recv(connection, LONGEST_HEAD - len(received))
                received += more
                if answer := _answer_in(received, ended=not more):
                    return answer


def _give_back(loop: asyncio.AbstractEventLoop, names: Resolver) -> None:
    names.close()
    loop.close()


def _question(target: ProbeTarget, path: str) -> bytes:
    host = f"[{target.host}]" if ":" in target.host else target.host
    text = (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
        "User-Agent: rtmanager\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    return text.encode("ascii", "replace")


def _answer_in(received: bytes, *, ended: bool) -> EngineAnswer | None:
    """Parse the bytes so far; None while more are needed."""
    begin = 0
    while line := _STATUS_LINE.match(received, begin):
        end = _EMPTY_LINE.search(received, line.end() - 1)
        if end is None:
            break
        status = int(line[1])
        if status >= 200 or status == 101:
            return EngineAnswer(status, "" if status == 200 else f"status {status}")
        begin = end.end()  # an interim answer: the final one follows
    rest = received[begin:]
    if line is None and (b"\n" in rest or not rest.startswith(_STATUS_LINE_BEGINS[: len(rest)])):
        return EngineAnswer(None, "not an HTTP answer")
    if ended:
        return EngineAnswer(None, "connection closed before the answer was complete")
    if len(received) >= LONGEST_HEAD:
        return EngineAnswer(None, "the head of the answer is too long")
    return None


def _literal(target: ProbeTarget) -> list[Address]:
    """Return the address when the host is a literal one, which needs no look-up; else empty."""
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    try:
        socket.inet_pton(family, target.host)
    except (OSError, ValueError):
        return []
    return [(family, (target.host, target.port))]


def _descriptor_left() -> bool:
    """Return whether a socket can be opened: without a descriptor, a failed look-up says nothing about the name."""
    try:
        socket.socket().close()
    except OSError:
        return False
    return True


def _affordable() -> int:
    """Return half of the free descriptors, at most `MOST_PARALLEL`; the other half is for the rest of the manager."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST_PARALLEL
    try:
        left = limit - len(os.listdir("/proc/self/fd"))
    except OSError:  # no descriptor is left for the directory
        left = 0
    return max(1, min(MOST_PARALLEL, left // 2))
