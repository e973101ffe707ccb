"""The HTTP/1.1 server: accepts connections, gives each a thread, and ends them all when it is stopped.

Made for a few long-lived clients and calls that last as long as an operation does. Connections are bounded
(`HttpLimits.connections`); when all are taken, idle ones are closed, busy ones are not kept after their answer,
and a new client waits. So neither idle nor slow clients can keep others out for longer than a request may last.
"""

from __future__ import annotations

import logging
import socket
import threading
import time

from rtmanager.http.clients import Clients
from rtmanager.http.connection import Connection
from rtmanager.http.limits import HttpLimits
from rtmanager.http.listening import listen
from rtmanager.http.messages import Handler
from rtmanager.values import Address

#: How long accepting pauses after it failed (no file descriptor or no thread to be had).
_PAUSE_S = 0.1
#: How long threads may take to notice that their connections were cut.
_CUT_S = 1.0


class HttpServer:
    """Serves `handler` on `address`; an empty host means all interfaces, port 0 a free port.

    The handler is called on many threads at once. A server is started once and stopped once.
    """

    def __init__(
        self, address: Address, handler: Handler, *, logger: logging.Logger, limits: HttpLimits | None = None
    ) -> None:
        self._wanted = address
        self._handler = handler
        self._logger = logger
        self._limits = limits or HttpLimits()
        self._listener: socket.socket | None = None
        self._acceptor = threading.Thread(target=self._accept_all, name="rtm-http", daemon=True)
        self._stopping = threading.Event()
        self._clients = Clients(self._limits.connections)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on."""
        if self._listener is None:
            raise RuntimeError("the HTTP server was not started")
        return self._address

    @property
    def is_deaf(self) -> bool:
        """Whether the thread that accepts connections has ended though nobody stopped the server."""
        return self._acceptor.ident is not None and not self._stopping.is_set() and not self._acceptor.is_alive()

    def start(self) -> None:
        """Listen and serve. Raises `OSError` naming the address when it cannot be had."""
        self._listener = listen(self._wanted, self._limits.backlog)
        host, port = self._listener.getsockname()[:2]
        self._address = (str(host), int(port))
        self._acceptor.start()

    def stop(self, timeout_s: float) -> None:
        """Stop listening, close idle connections, let requests in flight end within `timeout_s` seconds.

        Then their connections are cut; a handler that still does not return is reported and left to its thread.
        """
        if self._listener is None or self._stopping.is_set():
            return
        deadline = time.monotonic() + timeout_s
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._acceptor.join()
        self._listener.close()
        if self._clients.all_left_by(deadline, Connection.end_if_idle):
            return
        if not self._clients.all_left_by(time.monotonic() + _CUT_S, Connection.cut):
            self._logger.warning("http handlers still run", extra={"handlers": len(self._clients)})

    def _accept_all(self) -> None:
        assert self._listener is not None
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                if not self._stopping.is_set():
                    self._logger.warning("cannot accept an http connection", extra={"reason": str(error)})
                    self._stopping.wait(_PAUSE_S)
                continue
            if not self._clients.wait_for_room(self._stopping) or not self._serve(client):
                client.close()

    def _serve(self, client: socket.socket) -> bool:
        """Hand the client to a thread of its own; False when there is none to be had."""
        connection = Connection(
            client, self._handler, limits=self._limits, logger=self._logger, may_go_on=self._may_go_on
        )
        try:
            self._clients.serve(connection)
        except RuntimeError as error:
            self._logger.warning("no thread for an http connection", extra={"reason": str(error)})
            self._stopping.wait(_PAUSE_S)
            return False
        return True

    def _may_go_on(self) -> bool:
        return not self._clients.crowded and not self._stopping.is_set()
