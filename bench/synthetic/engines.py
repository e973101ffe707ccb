"""Thousands of engines in one process: the healthy ones on one port, the hanging ones on another.

Each engine has its own address in 127.0.0.0/8, as each container has one: a single address would share its ports.
Only this machine reaches them.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench import child
from bench.synthetic import games
from rtmanager.ports.watching import ProbeTarget

#: Pending connections; the kernel accepts at most net.core.somaxconn.
BACKLOG = 4096

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\nConnection: close\r\n\r\n"
    b'{"status":"ok"}'
)


@dataclass(frozen=True)
class Engines:
    """The two ports, and the probe targets on them."""

    healthy_port: int
    hanging_port: int

    def healthy(self, count: int) -> list[ProbeTarget]:
        """Targets of `count` engines that answer 200."""
        return _targets(count, self.healthy_port)

    def hanging(self, count: int) -> list[ProbeTarget]:
        """Targets of `count` engines that accept a connection and never answer."""
        return _targets(count, self.hanging_port)


@contextmanager
def running() -> Iterator[Engines]:
    """Start the process; stops it at the end."""
    with child.running(__name__) as ports:
        healthy, hanging = map(int, ports.split())
        yield Engines(healthy, hanging)


def _targets(count: int, port: int) -> list[ProbeTarget]:
    return [ProbeTarget(f"game-{number}", games.address(number), port) for number in range(count)]


class _Hanging(asyncio.Protocol):
    """One connection to a hanging engine: accepted and never answered."""


class _Healthy(asyncio.Protocol):
    """One connection to an engine that answers."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\r\n\r\n") and isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(_ANSWER)
            self._transport.close()


def _listener() -> socket.socket:
    """A socket bound to every address of the loopback device, and to no other device."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    made.bind(("", 0))
    return made


async def _serve() -> None:
    listeners = [_listener(), _listener()]
    for engine, listener in zip((_Healthy, _Hanging), listeners, strict=True):
        await asyncio.get_running_loop().create_server(engine, sock=listener, backlog=BACKLOG)
    ports = " ".join(str(listener.getsockname()[1]) for listener in listeners)
    await asyncio.to_thread(child.ready, ports)


if __name__ == "__main__":
    asyncio.run(_serve())
