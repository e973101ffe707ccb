"""Assembles requests from the bytes of a connection, however they are split; no I/O, no clock.

Bytes that cannot become a request are refused as soon as that is certain. Bytes after a request are kept for the next
one (pipelining).
"""

from __future__ import annotations

from rtmanager.http.chunks import ChunkedBody
from rtmanager.http.limits import HttpLimits
from rtmanager.http.messages import HttpError, Request, invalid
from rtmanager.http.parsing import Head, check_head_so_far, parse_head, parse_request_line

_HEAD_END = b"\r\n\r\n"
#: Empty lines that may precede a request.
MOST_EMPTY_LINES = 4
#: Bytes that a usual request stays below. As many bytes of tiny chunks take 0.2 ms to read.
_USUAL_BYTES = 1024
#: The first byte of a TLS handshake.
_TLS = 0x16


class RequestReader:
    """Reads the requests of one connection, one after the other; `address` is the client's."""

    def __init__(self, limits: HttpLimits, address: str = "") -> None:
        self._limits = limits
        self._address = address
        self._buffer = bytearray()
        #: Bytes of the head that have been checked.
        self._checked = 0
        self._empty_lines = 0
        self._head: Head | None = None
        self._chunks: ChunkedBody | None = None
        self._continue_owed = False

    @property
    def begun(self) -> bool:
        """Whether a part of the next request has arrived; the empty line of old clients after a body is none."""
        return self._head is not None or (bool(self._buffer) and self._buffer != b"\r\n")

    @property
    def is_costly(self) -> bool:
        """Whether the received bytes take longer to read than a usual request: they are many, or chunked."""
        return len(self._buffer) > _USUAL_BYTES or self._chunks is not None

    @property
    def is_head(self) -> bool:
        """Whether the request that is being read, or was refused, has the method HEAD: its answer has no body."""
        return self._head.method == "HEAD" if self._head is not None else self._buffer.startswith(b"HEAD ")

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def next(self) -> tuple[Request, bool] | None:
        """The next complete request, and whether the client keeps the connection open; None when it is incomplete.

        Raises `HttpError`; after that nothing more can be read from this connection.
        """
        head = self._head or self._take_head()
        if head is None:
            return None
        body = b"" if head.length == 0 else self._take_body(head)
        if body is None:
            return None
        self._head, self._chunks, self._continue_owed = None, None, False
        return Request(head.method, head.path, head.query, head.headers, body, self._address), head.keep_alive

    def takes_continue(self) -> bool:
        """Whether the client holds the body back until it receives 100 Continue; true once a request."""
        owed, self._continue_owed = self._continue_owed, False
        return owed and not self._buffer

    def _take_head(self) -> Head | None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # old clients send empty lines before a request (RFC 9112, 2.2)
            self._empty_lines += 1
            if self._empty_lines > MOST_EMPTY_LINES:
                raise invalid(f"more than {MOST_EMPTY_LINES} empty lines before a request")
            del buffer[:2]
            self._checked = 0
        end = buffer.find(_HEAD_END, max(0, self._checked - 3))
        if end < 0:
            self._check_so_far()
            return None
        if end > self._limits.head_bytes:
            raise self._head_too_large()
        head = parse_head(bytes(buffer[:end]), self._limits)
        del buffer[: end + len(_HEAD_END)]
        self._checked = self._empty_lines = 0
        if head.length != 0:
            self._head = head
            self._chunks = ChunkedBody(self._limits) if head.length is None else None
            self._continue_owed = head.awaits_continue
        return head

    def _check_so_far(self) -> None:
        buffer = self._buffer
        if buffer[:1] and buffer[0] == _TLS:
            raise invalid("this looks like TLS: expected plain HTTP/1.1 on this port")
        check_head_so_far(buffer, self._checked)
        if len(buffer) > self._limits.head_bytes:
            raise self._head_too_large()
        line_end = buffer.find(b"\r\n", max(0, self._checked - 1))
        if line_end >= 0 and line_end == buffer.find(b"\r\n"):
            parse_request_line(bytes(buffer[:line_end]).decode("latin-1"))
        self._checked = len(buffer)

    def _head_too_large(self) -> HttpError:
        return invalid(f"request line and headers are larger than {self._limits.head_bytes} bytes together", status=431)

    def _take_body(self, head: Head) -> bytes | None:
        if self._chunks is not None:
            return self._chunks.take(self._buffer)
        assert head.length is not None
        if len(self._buffer) < head.length:
            return None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        return body
