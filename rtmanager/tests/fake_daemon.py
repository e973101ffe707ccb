"""A fake Docker daemon: HTTP on a unix socket, with answers by method and path that a test defines.

It can do on demand what a real daemon cannot: hang, send slowly, break a connection, shut down during an answer.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from queue import SimpleQueue
from typing import Any
from urllib.parse import parse_qsl, urlsplit

#: Seconds after which a hanging answer ends, so that a failed test ends.
HANG_LIMIT_S = 30.0
#: Limit in seconds, on a busy machine, for events that are due within a second.
AT_ONCE_S = 5.0


class Exchange(BaseHTTPRequestHandler):
    """One connection; a test's answer is a function with it as argument."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def end_headers(self) -> None:
        """End the headers; like Docker, add `Connection: close` when the connection closes after the answer."""
        if self.close_connection:
            self.send_header("Connection", "close")
        super().end_headers()

    def reply(self, status: int, body: object) -> None:
        """Send a complete JSON answer; a 204 has no body, since the client would read it as the next answer."""
        self.reply_raw(status, b"" if status == 204 else json.dumps(body).encode(), "application/json")

    def reply_raw(self, status: int, content: bytes, content_type: str = "") -> None:
        """Send a complete answer with any bytes."""
        self.send_response(status)
        if content_type and content:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, status: int, message: str) -> None:
        """Send an error in Docker's format."""
        self.reply(status, {"message": message})

    def stream(self, lines: Iterable[dict[str, Any]], end: bool = True) -> None:
        """Send a 200 with one chunk for each line; without `end` the connection breaks after the last one."""
        self.chunks((json.dumps(line).encode() + b"\r\n" for line in lines), end)

    def chunks(self, contents: Iterable[bytes], end: bool = True) -> None:
        """As `stream`, with any bytes."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for content in contents:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        if end:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def hang(self) -> None:
        """Send nothing until the daemon is closed."""
        self.server.daemon_is_closed.wait(HANG_LIMIT_S)
        self.close_connection = True

    def drop(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` header of each answer: the daemon's clock."""
        date = self.server.owner.date
        return super().date_time_string(timestamp) if date is None else format_datetime(date, usegmt=True)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        daemon = self.server.owner
        parts = urlsplit(self.path)
        path = parts.path
        if path.startswith("/v1."):
            _, version, path = path.split("/", 2)
            path = f"/{path}"
            daemon.versions.append(version)
        request = f"{self.command} {path}"
        daemon.requests.append(request)
        daemon.queries.append(dict(parse_qsl(parts.query)))
        daemon.headers.append(dict(self.headers))
        daemon.bodies.append(body)
        daemon.connections.add(self)
        answer = daemon.answers.get(request)
        if answer is None and path.startswith("/containers/"):
            self.refuse(404, f"No such container: {path.split('/')[2]}")
        elif answer is None:
            self.refuse(404, f"page not found: {request}")
        else:
            answer(self)

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_DELETE = do_GET  # noqa: N815 - the names are http.server's


class Feed:
    """A stream that stays open until the test ends it; the test sends its chunks."""

    def __init__(self) -> None:
        self._chunks: SimpleQueue[bytes | None] = SimpleQueue()
        self._ends_well = True

    def serve(self, exchange: Exchange) -> None:
        """Answer a request with the stream."""
        exchange.chunks(iter(self._chunks.get, None), end=False)
        if self._ends_well:
            exchange.wfile.write(b"0\r\n\r\n")

    def send(self, chunk: bytes) -> None:
        """Send one chunk now."""
        self._chunks.put(chunk)

    @property
    def taken(self) -> bool:
        """Whether all chunks but the last are sent."""
        return self._chunks.empty()

    def end(self) -> None:
        """End the stream regularly."""
        self._chunks.put(None)

    def cut(self) -> None:
        """Break the stream off."""
        self._ends_well = False
        self._chunks.put(None)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: str, owner: FakeDaemon) -> None:
        self.owner = owner
        self.daemon_is_closed = threading.Event()
        self._connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        super().__init__(path, Exchange)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def break_off(self) -> None:
        """Break every connection, as a daemon that dies does."""
        for connection in list(self._connections):
            with suppress(OSError):  # ended already
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: in many tests the client closes its connection."""


class FakeDaemon:
    """Listens at `host` once started; `answers` maps `METHOD /path` (without version) to a function that answers."""

    def __init__(self, api_version: str = "1.41") -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self._directory.name, "docker.sock")
        self.host = f"unix://{self.path}"
        self.requests: list[str] = []
        self.versions: list[str] = []
        self.queries: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        #: The connections on which a request arrived.
        self.connections: set[Exchange] = set()
        self.api_version = api_version
        #: The time of the daemon's clock; None: the present time.
        self.date: datetime | None = None
        self.answers: dict[str, Callable[[Exchange], None]] = {
            "GET /version": lambda exchange: exchange.reply(200, {"Version": "0", "ApiVersion": self.api_version})
        }
        self._server: _Server | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._server = _Server(self.path, self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening, and break every open connection."""
        if self._server is not None:
            self._server.daemon_is_closed.set()
            self._server.shutdown()
            self._server.break_off()
            self._server.server_close()
            os.unlink(self.path)
            self._server = None

    def close(self) -> None:
        """Stop, and remove the socket's directory."""
        self.stop()
        self._directory.cleanup()

    def count(self, request: str) -> int:
        """The number of times that a request arrived."""
        return self.requests.count(request)


def until(true: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Poll until a condition holds; for what ends on other threads without an event to wait for."""
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {limit_s} s")
        time.sleep(0.005)
