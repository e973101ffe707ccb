"""The HTTP/1.1 server: accepts connections, gives each a thread, and ends them all when it is stopped.

Made for a few long-lived clients and calls that last as long as an operation does. Connections are bounded
(`HttpLimits.connections`); when all are taken, idle ones are closed, busy ones are not kept after their answer,
and a new client waits. So neither idle nor slow clients can keep others out for longer than a request may last.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time

from rtmanager.http.connection import Connection
from rtmanager.http.limits import HttpLimits
from rtmanager.http.messages import Handler
from rtmanager.values import Address

#: How long accepting pauses after it failed (no file descriptor or no thread to be had).
_PAUSE_S = 0.1
#: How long threads may take to notice that their connections were cut.
_CUT_S = 1.0

_REMEDIES = {
    errno.EADDRINUSE: "another process has it: stop that one, or choose another port",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.EACCES: "a port below 1024 needs privilege: choose a higher one",
}


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
        self._crowded = False
        self._connections: dict[Connection, threading.Thread] = {}
        #: Threads that are done with their connection, and gone in a moment.
        self._leaving: list[threading.Thread] = []
        self._room = threading.Condition()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on."""
        if self._listener is None:
            raise RuntimeError("the HTTP server was not started")
        return self._address

    def start(self) -> None:
        """Listen and serve. Raises `OSError` naming the address when it cannot be had."""
        self._listener = _listen(self._wanted, self._limits.backlog)
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
        with self._room:
            self._room.notify_all()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._acceptor.join()
        self._listener.close()
        for connection in self._present():
            if connection.idle_since is not None:
                connection.end_idle()
        if not self._all_left_by(deadline):
            for connection in self._present():
                connection.cut()
            if not self._all_left_by(time.monotonic() + _CUT_S):
                self._logger.warning("http handlers still run", extra={"handlers": len(self._present())})

    def _present(self) -> list[Connection]:
        with self._room:
            return list(self._connections)

    def _all_left_by(self, deadline: float) -> bool:
        with self._room:
            empty = self._room.wait_for(lambda: not self._connections, max(0.0, deadline - time.monotonic()))
            leaving = list(self._leaving)
        for thread in leaving:
            thread.join()
        return empty

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
            if not self._wait_for_room() or not self._serve(client):
                client.close()

    def _wait_for_room(self) -> bool:
        """Wait until one more connection is allowed; False when the server is stopped before."""
        with self._room:
            self._crowded = len(self._connections) >= self._limits.connections
            if self._crowded:
                self._end_longest_idle()
                self._room.wait_for(
                    lambda: len(self._connections) < self._limits.connections or self._stopping.is_set()
                )
                self._crowded = False
        return not self._stopping.is_set()

    def _end_longest_idle(self) -> None:
        since = {c: c.idle_since for c in self._connections if c.served}
        idle = {connection: moment for connection, moment in since.items() if moment is not None}
        if idle:
            min(idle, key=idle.__getitem__).end_idle()

    def _serve(self, client: socket.socket) -> bool:
        """Hand the client to a thread of its own; False when there is none to be had."""
        connection = Connection(
            client, self._handler, limits=self._limits, logger=self._logger, may_go_on=self._may_go_on
        )
        thread = threading.Thread(target=self._run, args=(connection,), name="rtm-http-client", daemon=True)
        with self._room:
            self._leaving = [leaving for leaving in self._leaving if leaving.is_alive()]
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError as error:
            self._logger.warning("no thread for an http connection", extra={"reason": str(error)})
            with self._room:
                del self._connections[connection]
            self._stopping.wait(_PAUSE_S)
            return False
        return True

    def _run(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._room:
                self._leaving.append(self._connections.pop(connection))
                self._room.notify_all()

    def _may_go_on(self) -> bool:
        return not self._crowded and not self._stopping.is_set()


def _listen(address: Address, backlog: int) -> socket.socket:
    try:
        return _bind(address, backlog)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else str(error.strerror)
        remedy = _REMEDIES.get(number, "choose another address")
        raise OSError(number, f"cannot listen for HTTP on {address}: {reason}; {remedy}") from error


def _bind(address: Address, backlog: int) -> socket.socket:
    """A listening socket that may be taken over at once by the next process (SO_REUSEADDR)."""
    if not address.host:
        return _bind_everywhere(address.port, backlog)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # Of a name's several addresses an IPv4 one, as Go's listeners choose.
    family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return socket.create_server(where, family=family, backlog=backlog)


def _bind_everywhere(port: int, backlog: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # that one: IPv6 is built in, but switched off
                raise
    return socket.create_server(("", port), backlog=backlog)
