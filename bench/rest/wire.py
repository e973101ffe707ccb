"""Requests and answers as bytes: as little work as possible, for it is done on the processors that are measured."""

import re
import socket
import struct
from dataclasses import dataclass, field

from bench.errors import BenchError

RUNTIMES = "/api/v1/internal/runtimes"

#: A server that says nothing for so many seconds does not answer at all.
SILENCE_S = 10.0

#: For a larger piece memory would be had from the kernel, and given back, each time.
_RECEIVE_BYTES = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


@dataclass
class Line:
    """A connection that is kept, with one request under way at a time."""

    connection: socket.socket
    _pieces: list[bytes] = field(default_factory=list)
    _left: int = 0

    @classmethod
    def to(cls, port: int) -> "Line":
        """To a server of this machine."""
        connection = socket.create_connection(("127.0.0.1", port), SILENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel's own timer: Python's would be a system call more for each request and for each piece.
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(SILENCE_S), 0))
        return cls(connection)

    def ask(self, path: str) -> None:
        """Send a GET."""
        self._pieces, self._left = [], 0
        self.connection.sendall(b"GET %s HTTP/1.1\r\nHost: rtmanager:8096\r\n\r\n" % path.encode())

    def receive(self) -> bytes | None:
        """Take what has come: the answer's body when that is all, else None. Raises BenchError unless it is 200."""
        try:
            piece = self.connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            raise BenchError(f"the server has said nothing for {SILENCE_S:g} s") from None
        if not piece:
            raise BenchError(f"the server ended a connection, after {b''.join(self._pieces)!r}")
        if not self._pieces:
            piece, self._left = opened(piece)
        self._pieces.append(piece)
        self._left -= len(piece)
        return None if self._left else b"".join(self._pieces)

    def get(self, path: str) -> bytes:
        """Ask, and wait for the body."""
        self.ask(path)
        while (body := self.receive()) is None:
            pass
        return body

    def close(self) -> None:
        """Leave."""
        self.connection.close()


def opened(answer: bytes) -> tuple[bytes, int]:
    """What has come of the body, and how long it is. Raises BenchError for anything but 200, and for half a head."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if not end or length is None or not head.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"the answer is not 200 with a length: {answer[:2000]!r}")
    return body, int(length[1])
