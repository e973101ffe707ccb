"""One client's connection, on a thread of its own: requests in, answers out, until one side has enough.

An answer leaves as one piece: head and body in two small packets would wait for each other's acknowledgement
(40 ms a request). A handler's exception is answered and logged, and costs nobody the connection.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from rtmanager import failpoints
from rtmanager.domain.errors import ErrorCode
from rtmanager.http.limits import HttpLimits
from rtmanager.http.messages import Handler, Refused, Request, Response, failure
from rtmanager.http.reading import ClientLeft, Reader

_REASON = {status.value: status.phrase for status in HTTPStatus}
#: How much of what a refused client still sends is read before its connection is cut.
_LINGER_BYTES = 1 << 20


class Connection:
    """Serves one client. `may_go_on` says whether the connection may be kept after an answer."""

    def __init__(
        self,
        client: socket.socket,
        handler: Handler,
        *,
        limits: HttpLimits,
        logger: logging.Logger,
        may_go_on: Callable[[], bool],
    ) -> None:
        self._socket = client
        self._handler = handler
        self._limits = limits
        self._logger = logger
        self._may_go_on = may_go_on
        self._reader = Reader(client, limits)
        #: When the connection began to wait for its client (monotonic seconds); None while it serves a request.
        self.idle_since: float | None = time.monotonic()
        #: Whether it had an answer. A client that was not served yet is not sent away for another.
        self.served = False

    def run(self) -> None:
        """Serve requests until the connection ends; closes the socket."""
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client_is_here = True
            while client_is_here:
                client_is_here = self._serve_one()
        except (ClientLeft, OSError) as error:
            self._logger.debug("http client left", extra={"reason": repr(error)})
        finally:
            self._socket.close()

    def end_if_idle(self) -> None:
        """From another thread: no further request, unless one has arrived by now; that is still answered."""
        if self.idle_since is not None:
            self._shut(socket.SHUT_RD)

    def cut(self) -> None:
        """From another thread: end the connection, whatever it is doing."""
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError as error:  # the connection ended by itself in this very moment
            self._logger.debug("http connection was closed already", extra={"reason": repr(error)})

    def _serve_one(self) -> bool:
        """Answer the next request; False when there will be no other."""
        self.idle_since = time.monotonic()
        if not self._reader.wait(self._limits.idle_s if self.served else self._limits.receive_s):
            return False
        self.idle_since = None
        began = time.monotonic()
        try:
            request, keep = self._reader.read()
        except Refused as refusal:
            self._send(refusal.response(), keep=False)
            self._log(None, refusal.status, began)
            return self._linger()
        response = self._answer(request)
        keep = keep and self._may_go_on()
        self._send(response, keep=keep, body=request.method != "HEAD")
        self._log(request, response.status, began)
        return keep or self._linger()

    def _answer(self, request: Request) -> Response:
        try:
            return self._handler(request)
        except Exception:  # a defect of the handler: the client must hear of it, the others must not
            self._logger.exception("http handler failed", extra={"method": request.method, "path": request.path})
            return failure(
                ErrorCode.INTERNAL_ERROR, "the request failed by a defect of the service; its log has the cause"
            )

    def _send(self, response: Response, *, keep: bool, body: bool = True) -> None:
        lines = [
            f"HTTP/1.1 {response.status} {_REASON[response.status]}",
            f"Date: {_http_date(int(time.time()))}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            # HTTP/1.1 would not need `keep-alive`, HTTP/1.0 does.
            "Connection: keep-alive" if keep else "Connection: close",
            *(f"{name}: {value}" for name, value in response.headers.items()),
        ]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self._send_bytes(head + response.body if body else head)
        self.served = True

    def _send_bytes(self, data: bytes) -> None:
        """Nearly always one call that the kernel takes whole; only what it does not take is waited for."""
        with failpoints.around("http.answer"):
            try:
                sent = self._socket.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                self._socket.settimeout(self._limits.send_s)
                self._socket.sendall(data[sent:])

    def _linger(self) -> bool:
        """End our side and wait a moment for the client to end its own; always False."""
        self.idle_since = time.monotonic()
        deadline = self.idle_since + self._limits.linger_s
        self._socket.shutdown(socket.SHUT_WR)
        unread = _LINGER_BYTES
        while unread > 0 and (left_s := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            data = self._socket.recv(min(unread, 1 << 16))
            if not data:
                break
            unread -= len(data)
        return False

    def _log(self, request: Request | None, status: int, began: float) -> None:
        if not self._logger.isEnabledFor(logging.DEBUG):
            return
        asked = {"method": request.method, "path": request.path} if request else {}
        elapsed_ms = round((time.monotonic() - began) * 1000, 2)
        self._logger.debug("http request", extra={**asked, "status": status, "elapsed_ms": elapsed_ms})


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
