"""One client's connection: its socket, the received part of its next request, the unsent part of its last answer.

A connection belongs to one thread at a time: to the poller while it waits for its client, to a worker while a request
is handled. Only `next_soon` and `flush_soon` block.

Head and body of an answer are sent in one call: as two small packets the second would wait for the acknowledgement of
the first (40 ms a request).
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from email.utils import formatdate
from enum import Enum
from functools import lru_cache
from http import HTTPStatus

from rtmanager import failpoints
from rtmanager.http.limits import HttpLimits
from rtmanager.http.messages import Request, Response
from rtmanager.http.request_reader import RequestReader

_REASON = {status.value: status.phrase for status in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RECEIVE_BYTES = 16 * 1024
#: Unsent bytes that the kernel buffers for a client; the largest page fits. Without a bound the kernel buffers 4 MB, so
#: a client that reads nothing could request ten pages, or ten thousand small answers.
_UNREAD_BYTES = 512 * 1024
#: Bytes that a refused client may still send before its connection is cut.
_LINGER_BYTES = 1 << 20


class ClientLeft(Exception):
    """The client closed its side, and no complete request is left to answer."""


class Waits(Enum):
    """What a connection waits for its client to do."""

    NEW = "begin its first request"
    IDLE = "begin a further request"
    REQUEST = "send the rest of its request"
    READER = "read its answer"
    END = "close its side after the last answer"


class Connection:
    """One client's connection.

    `peer` is the key of its client (`table.peer_of`), `address` the client's address. `waits` is what it waits for
    (None: a request of it is handled), `since` and `deadline` are in monotonic seconds.
    """

    def __init__(self, client: socket.socket, peer: str, limits: HttpLimits, address: str = "") -> None:
        self.socket = client
        self.peer = peer
        self.limits = limits
        self.reader = RequestReader(limits, address)
        self.waits: Waits | None = None
        self.since = self.deadline = 0.0
        #: Events that the poller watches its socket for (`selectors`), 0 when it does not.
        self.events = 0
        #: The part of an answer that the kernel has not accepted yet.
        self.unsent = memoryview(b"")
        #: The bytes that `unsent` keeps in memory: the whole answer.
        self.held_bytes = 0
        #: Whether no further request is read; whether the client cannot be answered any more.
        self.last = self.left = False
        #: The request that waits for a worker, and whether the client keeps the connection open.
        self.request: tuple[Request, bool] | None = None
        #: Whether its request waits behind those of other clients, since its client pipelines requests.
        self.later = False
        self._bounded_receive = False
        self._unread = _LINGER_BYTES
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNREAD_BYTES)

    def wait_for(self, what: Waits) -> None:
        """Begin to wait for the client."""
        limits = self.limits
        self.waits, self.since = what, time.monotonic()
        self.deadline = (
            self.since
            + {
                Waits.NEW: limits.receive_s,
                Waits.IDLE: limits.idle_s,
                Waits.REQUEST: limits.receive_s,
                Waits.READER: limits.send_s,
                Waits.END: limits.linger_s,
            }[what]
        )

    def waits_for(self, *what: Waits) -> bool:
        """Whether the connection waits for one of these."""
        return self.waits in what

    @property
    def is_closed(self) -> bool:
        """Whether the socket was closed on this side."""
        return self.socket.fileno() < 0

    def receive(self) -> bool:
        """Feed the reader with the received bytes; False when there are none. Raises `ClientLeft` or `OSError`."""
        try:
            data = self.socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if not data:
            raise ClientLeft
        self.reader.feed(data)
        return True

    def next_soon(self, patience_s: float) -> tuple[Request, bool] | None:
        """The next request if it is complete within this time, else None. Blocks its thread.

        Uses the kernel's timer, which is set once. Python's timeout needs two more system calls for each request, and
        each may wait for the interpreter lock. Raises what `receive` and the reader raise.
        """
        if not self._bounded_receive:
            self._bound(socket.SO_RCVTIMEO, patience_s)
            self._bounded_receive = True
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        if not data:
            raise ClientLeft
        self.reader.feed(data)
        return self.reader.next()

    def flush_soon(self, patience_s: float) -> None:
        """Send as much of the answer as the client accepts within this time. Blocks its thread. Raises `OSError`."""
        self._bound(socket.SO_SNDTIMEO, patience_s)
        self._send(self.unsent, 0)

    def _bound(self, option: int, patience_s: float) -> None:
        """Set the kernel's timer for each blocking receive or send."""
        timer = struct.pack("ll", int(patience_s), int(patience_s % 1 * 1_000_000))
        self.socket.setsockopt(socket.SOL_SOCKET, option, timer)

    def send_continue(self) -> None:
        """Send `100 Continue`. Raises `OSError`, also when the send buffer has no room for these bytes."""
        self.socket.send(_CONTINUE, socket.MSG_DONTWAIT)

    def answer(self, response: Response, *, keep: bool, body: bool = True) -> None:
        """Send what the kernel accepts at once, nearly always all; the rest is in `unsent`. Raises `OSError`."""
        self.last = not keep
        with failpoints.around("http.answer"):
            self._begin_to_send(response, body=body)

    def refuse(self, response: Response) -> None:
        """Send an answer of the HTTP layer, the last on this connection. Raises `OSError`."""
        self.last = True
        is_head = self.request[0].method == "HEAD" if self.request is not None else self.reader.is_head
        self.request = None
        self._begin_to_send(response, body=not is_head)

    def flush(self) -> None:
        """Send more of the answer. Raises `OSError`."""
        self._send(self.unsent)

    def _begin_to_send(self, response: Response, *, body: bool) -> None:
        head, content = encoded_head(response, keep=not self.last), response.body if body else b""
        try:
            sent = self.socket.sendmsg([head, content], [], socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        whole = len(head) + len(content)
        if sent < len(head):
            self.unsent = memoryview(head + content)[sent:]
        else:
            self.unsent = memoryview(content)[sent - len(head) :]
        self.held_bytes = whole if self.unsent else 0

    def _send(self, data: bytes | memoryview, flags: int = socket.MSG_DONTWAIT) -> None:
        try:
            sent = self.socket.send(data, flags)
        except BlockingIOError:
            sent = 0
        self.unsent = memoryview(data)[sent:] if sent < len(data) else memoryview(b"")

    def end_own_side(self) -> None:
        """Close the sending side after the last answer; the client can still read it. Raises `OSError`."""
        self.socket.shutdown(socket.SHUT_WR)

    def discard(self) -> bool:
        """Discard what the client still sends; False when it has closed its side or sends too much."""
        while True:
            try:
                data = self.socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            self._unread -= len(data)
            if not data or self._unread <= 0:
                return False

    def cut(self, logger: logging.Logger) -> None:
        """Shut the socket down, whatever the connection does. Any thread may call this."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:  # the connection ended by itself at the same moment
            logger.debug("http connection was closed already", extra={"reason": repr(error)})


def encoded_head(response: Response, *, keep: bool) -> bytes:
    """The encoded head of an answer, with the empty line that ends it."""
    lines = [
        f"HTTP/1.1 {response.status} {_REASON[response.status]}",
        f"Date: {_http_date(int(time.time()))}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        # HTTP/1.0 clients need `keep-alive`.
        "Connection: keep-alive" if keep else "Connection: close",
        *(f"{name}: {value}" for name, value in response.headers.items()),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
