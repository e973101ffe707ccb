"""The HTTP/1.1 server: one thread reads from all clients, lanes of worker threads answer complete requests.

It serves a few long-lived clients, whose calls last as long as an operation. Slow, silent or hostile clients, in any
number, do not disturb them. Connections are bounded (`HttpLimits.connections`); one more replaces the one that has
waited longest for its client.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from rtmanager.config.parsers import Address
from rtmanager.domain.errors import ErrorCode
from rtmanager.http.connection import ClientLeft, Connection
from rtmanager.http.lanes import Lane
from rtmanager.http.limits import HttpLimits, LaneLimits
from rtmanager.http.listener import listen
from rtmanager.http.messages import Handler, HttpError, Request, Response, failure
from rtmanager.http.poller import Poller

#: Seconds that workers have to end after their connections were cut.
_CUT_S = 1.0
#: Seconds that a worker waits for a client to accept its answer, and then for its next request. That saves two thread
#: switches a request for a client that goes on at once. At most half of a lane's threads wait like this, and none while
#: other work is queued.
_PATIENCE_S = 0.05

T = TypeVar("T")

_ALL: Mapping[str, LaneLimits] = {"all": LaneLimits(threads=64, queue=256)}


class HttpServer:
    """Serves `handler` on `address`; an empty host means all interfaces, port 0 a free port.

    Many threads call the handler at once, those of the lane that `lane_of` names for a request. A server is started
    once and stopped once.
    """

    def __init__(
        self,
        address: Address,
        handler: Handler,
        *,
        logger: logging.Logger,
        limits: HttpLimits | None = None,
        lanes: Mapping[str, LaneLimits] = _ALL,
        lane_of: Callable[[Request], str] = lambda _: "all",
    ) -> None:
        self._wanted = address
        self._handler = handler
        self._logger = logger
        self._limits = limits or HttpLimits()
        self._lanes = {name: _ServingLane(limits, self._serve) for name, limits in lanes.items()}
        self._lane_of = lane_of
        self._poller: Poller | None = None
        self._stopping = threading.Event()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on. Raises `RuntimeError` before `start`."""
        if self._poller is None:
            raise RuntimeError("the HTTP server was not started")
        return self._address

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._poller) if self._poller is not None else 0

    @property
    def is_deaf(self) -> bool:
        """Whether the thread that reads from all clients ended although the server was not stopped."""
        return self._poller is not None and not self._stopping.is_set() and not self._poller.is_alive

    def start(self) -> None:
        """Listen and serve. Raises `OSError`, which names the address, when the server cannot listen."""
        listener = listen(self._wanted, self._limits.backlog)
        host, port = listener.getsockname()[:2]
        self._address = (str(host), int(port))
        self._poller = Poller(self._limits, self._hand_on, self._logger)
        self._poller.start(listener)

    def stop(self, timeout_s: float) -> None:
        """Stop listening, close idle connections, let requests in flight end within `timeout_s` seconds.

        Then their connections are cut; a handler that still does not return is logged and abandoned with its thread.
        """
        if self._poller is None or self._stopping.is_set():
            return
        self._stopping.set()
        self._poller.stop()
        if not self._poller.wait_until_empty(timeout_s):
            self._poller.cut()
            self._poller.wait_until_empty(_CUT_S)
        self._poller.finish()
        until = time.monotonic() + _CUT_S
        stuck = sum(lane.close(until) for lane in self._lanes.values())
        if stuck:
            self._logger.warning("http handlers still run", extra={"handlers": stuck})

    def _hand_on(self, connection: Connection, later: bool) -> Response | None:
        """Queue the connection's request; return the answer that refuses it when that is not possible."""
        assert connection.request is not None
        lane = self._lanes[self._lane_of(connection.request[0])]
        try:
            if lane.submit(connection, later=later):
                return None
            why = "as many requests as may wait are waiting already"
        except (RuntimeError, MemoryError) as error:
            self._logger.warning("no thread for an http request", extra={"reason": str(error)})
            why = "it gets no thread from the system"
        return failure(ErrorCode.SERVICE_UNAVAILABLE, f"the Runtime Manager is busy: {why}; try again later")

    def _serve(self, lane: _ServingLane, connection: Connection) -> None:
        """Answer the connection's request on a worker, and its next ones while no other client waits."""
        assert self._poller is not None
        try:
            while self._serve_one(lane, connection):
                pass
        except HttpError as refusal:
            self._refuse(connection, refusal)
        except (ClientLeft, OSError) as error:
            self._leave(connection, error)
        except Exception as defect:  # the connection is closed, the worker goes on
            self._logger.exception("an http connection failed by a defect")
            self._leave(connection, defect)
        self._poller.give_back(connection)

    def _serve_one(self, lane: _ServingLane, connection: Connection) -> bool:
        """Answer one request; return whether there is another one for this worker."""
        assert connection.request is not None
        request, keep = connection.request
        connection.request = None
        began = time.monotonic()
        response = self._answer(request)
        connection.answer(response, keep=keep and not self._stopping.is_set(), body=request.method != "HEAD")
        self._log(request, response.status, began)
        if connection.unsent:
            lane.stay(connection.flush_soon)
        if connection.unsent or connection.last or lane.crowded:
            return False
        if connection.reader.begun is not connection.later:
            return False
        connection.request = connection.reader.next() if connection.later else lane.stay(connection.next_soon)
        return connection.request is not None and self._lanes[self._lane_of(connection.request[0])] is lane

    def _answer(self, request: Request) -> Response:
        try:
            return self._handler(request)
        except Exception:  # a defect of the handler: its client gets an answer, other clients are not affected
            self._logger.exception("http handler failed", extra={"method": request.method, "path": request.path})
            return failure(
                ErrorCode.INTERNAL_ERROR, "the request failed by a defect of the service; its log has the cause"
            )

    def _refuse(self, connection: Connection, refusal: HttpError) -> None:
        try:
            connection.refuse(refusal.response())
        except OSError as error:
            self._leave(connection, error)
        self._logger.debug("http request", extra={"status": refusal.status})

    def _leave(self, connection: Connection, error: Exception) -> None:
        connection.left = True
        self._logger.debug("http client left", extra={"reason": repr(error)})

    def _log(self, request: Request, status: int, began: float) -> None:
        if not self._logger.isEnabledFor(logging.DEBUG):
            return
        elapsed_ms = round((time.monotonic() - began) * 1000, 2)
        self._logger.debug(
            "http request",
            extra={"method": request.method, "path": request.path, "status": status, "elapsed_ms": elapsed_ms},
        )


class _ServingLane(Lane[Connection]):
    """A lane whose workers may wait for a connection's next request."""

    def __init__(self, limits: LaneLimits, serve: Callable[[_ServingLane, Connection], None]) -> None:
        super().__init__("rtm-http-client", limits, lambda connection: serve(self, connection))
        self._may_stay = limits.threads // 2
        self._staying = 0
        self._lock = threading.Lock()

    def stay(self, step: Callable[[float], T]) -> T | None:
        """Wait for the client for up to `_PATIENCE_S`, unless other work is queued or too many threads wait already."""
        with self._lock:
            if self._staying >= self._may_stay or self.crowded:
                return None
            self._staying += 1
        try:
            return step(_PATIENCE_S)
        finally:
            with self._lock:
                self._staying -= 1
