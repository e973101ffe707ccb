"""Requests out of a socket: whatever the client sends, and however slowly, reading it ends.

A request has one deadline from its first byte to its last, so a client that sends a byte now and then holds a
thread no longer than one that sends nothing. What arrives beyond a request is kept for the next (pipelining).
"""

from __future__ import annotations

import re
import socket
import struct
import time

from rtmanager.http.limits import HttpLimits
from rtmanager.http.messages import Refused, Request, invalid
from rtmanager.http.parsing import Head, body_too_large, parse_head

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RECEIVE_BYTES = 16 * 1024
_CHUNK_LINE_BYTES = 256
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")


class ClientLeft(Exception):
    """The client closed its side in the middle of a request: nobody can be answered."""


class Reader:
    """Reads the requests of one connection, one after another."""

    def __init__(self, connection: socket.socket, limits: HttpLimits) -> None:
        self._socket = connection
        self._limits = limits
        self._idle_s = 0.0
        self._buffer = b""
        self._deadline = 0.0

    def wait(self, timeout_s: float) -> bool:
        """Wait for the first byte of a request; False when none comes: the client left, or idles too long."""
        if not self._buffer:
            self._let_kernel_wait(timeout_s)
            try:
                self._buffer = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return False
        self._deadline = time.monotonic() + self._limits.receive_s
        return bool(self._buffer)

    def read(self) -> tuple[Request, bool]:
        """The whole request, and whether the client wants to keep the connection.

        Raises `Refused` (nothing more can be read from this connection), `ClientLeft`, or `OSError`.
        """
        head = parse_head(self._read_head(), self._limits)
        return Request(head.method, head.path, head.query, head.headers, self._read_body(head)), head.keep_alive

    def _let_kernel_wait(self, timeout_s: float) -> None:
        """Bound the next `recv` by the kernel's own timer, which is set once and costs nothing after that.

        Python's timeout would be two more system calls for each request, and with each the chance to wait for
        the interpreter lock.
        """
        if self._socket.gettimeout() is not None:
            self._socket.settimeout(None)
        if timeout_s != self._idle_s:
            seconds = int(timeout_s)
            timer = struct.pack("ll", seconds, int((timeout_s - seconds) * 1_000_000))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timer)
            self._idle_s = timeout_s

    def _read_head(self) -> bytes:
        # An empty line before a request is a habit of old clients (RFC 9112, 2.2).
        self._buffer = self._buffer.lstrip(b"\r\n")
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._give_up_early()
            self._receive()
            self._buffer = self._buffer.lstrip(b"\r\n")
        if end > self._limits.head_bytes:
            raise self._head_too_large()
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return head

    def _give_up_early(self) -> None:
        """Raise at once what would otherwise be found out only when the deadline is over."""
        if len(self._buffer) > self._limits.head_bytes:
            raise self._head_too_large()
        if b"\n\n" in self._buffer:
            raise invalid("the request's lines end with LF: expected CR LF")
        if self._buffer[:1] == b"\x16":
            raise invalid("this looks like TLS: expected plain HTTP/1.1 on this port")

    def _head_too_large(self) -> Refused:
        return invalid(f"request line and headers are larger than {self._limits.head_bytes} bytes together", status=431)

    def _read_body(self, head: Head) -> bytes:
        if head.length == 0:
            return b""
        if head.awaits_continue and not self._buffer:
            self._socket.settimeout(self._limits.send_s)
            self._socket.sendall(_CONTINUE)
        return self._read_chunks() if head.length is None else self._take(head.length)

    def _read_chunks(self) -> bytes:
        """The chunks' data put together; extensions and trailers mean nothing here (RFC 9112, 7.1)."""
        body = bytearray()
        while True:
            line = self._take_line()
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise invalid(f"chunk size {line[:40]!r}: expected a hexadecimal number")
            size = int(match[1], 16)
            if size == 0:
                break
            if len(body) + size > self._limits.body_bytes:
                raise body_too_large(self._limits)
            body += self._take(size)
            if self._take(2) != b"\r\n":
                raise invalid(f"a chunk is longer than its size {size}")
        for _ in range(self._limits.header_fields):
            if not self._take_line():
                return bytes(body)
        raise invalid("the request has too many trailer fields", status=431)

    def _take_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _CHUNK_LINE_BYTES:
                break
            self._receive()
        if not 0 <= end <= _CHUNK_LINE_BYTES:
            raise invalid(f"a line of a chunked body is longer than {_CHUNK_LINE_BYTES} bytes")
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _receive(self) -> None:
        left_s = self._deadline - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            data = self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError:
            raise invalid(
                f"the request was not complete after {self._limits.receive_s:g} seconds", status=408
            ) from None
        if not data:
            raise ClientLeft
        self._buffer += data
