"""Requests and answers as bytes, with little work: the clients share the processors that are measured."""

import re
import socket
import struct
from dataclasses import dataclass, field

from bench.errors import BenchError

RUNTIMES = "/api/v1/internal/runtimes"

#: Seconds without data after which an answer counts as missing.
SILENCE_S = 10.0

#: A larger buffer would be allocated from the kernel, and freed, each time.
_RECEIVE_BYTES = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


@dataclass
class Line:
    """A kept connection, with one request at a time."""

    connection: socket.socket
    _pieces: list[bytes] = field(default_factory=list)
    _left: int = 0

    @classmethod
    def to(cls, port: int) -> "Line":
        """Connect to a server of this machine."""
        connection = socket.create_connection(("127.0.0.1", port), SILENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel's own timer: Python's would add a system call to each request and each piece.
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(SILENCE_S), 0))
        return cls(connection)

    def request(self, path: str) -> None:
        """Send a GET."""
        self._pieces, self._left = [], 0
        self.connection.sendall(b"GET %s HTTP/1.1\r\nHost: rtmanager:8096\r\n\r\n" % path.encode())

    def receive(self) -> bytes | None:
        """Receive data: the body when it is complete, else None. Raises BenchError unless the status is 200."""
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
        """Send a GET, and wait for the body."""
        self.request(path)
        while (body := self.receive()) is None:
            pass
        return body

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def opened(answer: bytes) -> tuple[bytes, int]:
    """The received part of the body, and its length. Raises BenchError for another status or an incomplete head."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if not end or length is None or not head.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"the answer is not 200 with a length: {answer[:2000]!r}")
    return body, int(length[1])
