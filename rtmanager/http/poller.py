"""One thread for all connections that wait for their client: accepts, reads requests and sends the rest of answers.

So a client that is slow to send its request or to read its answer costs a descriptor and some memory, and no thread.
The poller passes a complete request to a worker, which returns the connection with `give_back`.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress

from rtmanager.http.connection import ClientLeft, Connection, Waits
from rtmanager.http.limits import HttpLimits, open_files
from rtmanager.http.messages import HttpError, Response, invalid
from rtmanager.http.table import ConnectionTable, address_of, peer_of
from rtmanager.threads import Thread

#: Connections that are accepted before other sockets are served.
_ACCEPTED_AT_ONCE = 64
#: Seconds that accepting pauses for want of file descriptors or memory, and the errors that show it.
_PAUSE_S = 0.1
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: Seconds for which a connection that waits for its client is not closed to make room: on a busy host a new client has
#: not sent its request yet. Other clients wait to be accepted until then.
_GRACE_S = 0.05
#: Least seconds between two checks of the deadlines, and of the room for another client.
_CHECK_S = 0.02
#: Seconds in one go for reading deferred requests, before other sockets are served.
_PUT_OFF_S = 0.005
#: Seconds that a client has to read its last answer while the server stops.
_LAST_CHECK_S = 0.05
#: Seconds between two log lines about connections closed for want of room, or clients not accepted.
_LOG_EVERY_S = 10.0
_NEVER = float("inf")


class Poller:
    """Runs on the thread `rtm-http` from `start` to `finish`. `hand_on` must not block."""

    def __init__(
        self, limits: HttpLimits, hand_on: Callable[[Connection, bool], Response | None], logger: logging.Logger
    ) -> None:
        self._limits = limits
        #: Queues a connection with a request, and whether that has low priority; returns an answer when it cannot.
        self._hand_on = hand_on
        self._logger = logger
        self._table = ConnectionTable(*limits.within(open_files()))
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._notified = False
        self._mail: deque[Connection] = deque()
        self._mail_lock = threading.Lock()
        #: Connections whose next request is read after the other sockets are served, in order.
        self._put_off: OrderedDict[Connection, None] = OrderedDict()
        self._listener: socket.socket | None = None
        #: An accepted client for which there is no room yet, with its address.
        self._held: tuple[socket.socket, str] | None = None
        self._thread = Thread(self._run, "rtm-http", lasting=True)
        self._readers: set[Connection] = set()
        #: When deadlines are to be checked; when accepting resumes after a pause.
        self._check_at = self._accept_at = _NEVER
        self._closed_for_room = 0
        self._logged_at = self._refused_logged_at = -_NEVER
        #: Clients that could not be accepted since the last log line about it.
        self._refused = 0
        self._stopping = False
        self._cutting = False
        self._finishing = False
        self._finished = False
        self._empty = threading.Event()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def start(self, listener: socket.socket) -> None:
        """Serve the clients of this listening socket, which `stop` closes."""
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain_wakes)
        self._thread.start()

    def give_back(self, connection: Connection) -> None:
        """Return a connection from a worker: answered, with a further request, or (`left`) without its client."""
        with self._mail_lock:
            if not self._finished:
                self._mail.append(connection)
                self._wake()
                return
        connection.socket.close()

    def stop(self) -> None:
        """Accept no more clients, close idle connections, answer requests that have begun. Any thread may call this."""
        self._stopping = True
        self._wake()

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Wait until all connections have ended; False when they have not within this time."""
        return self._empty.wait(timeout_s)

    def cut(self) -> None:
        """End all connections, whatever they do. Any thread may call this."""
        self._cutting = True
        self._wake()

    def finish(self) -> None:
        """End the thread and close its connections; `give_back` closes those that are returned later."""
        self._finishing = True
        self._wake()
        self._thread.join()
        if self._thread.is_alive():
            self._logger.error("the http thread does not end, it is left")
            return
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def _wake(self) -> None:
        if not self._notified:
            self._notified = True
            try:
                self._waker.send(b"\0")
            except BlockingIOError:
                self._logger.debug("the http thread is awake already")
            except BaseException:
                self._notified = False
                raise

    def _drain_wakes(self) -> None:
        self._woken.recv(4096)
        self._notified = False

    def _run(self) -> None:
        while not self._finishing:
            try:
                self._step()
            except Exception:  # a defect must not end the service for all clients
                self._logger.exception("the http thread met a defect")
                time.sleep(_PAUSE_S)
        with self._mail_lock:
            self._finished = True
        for connection in (*self._mail, *self._put_off, *self._table.waiting()):
            connection.socket.close()

    def _step(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            if isinstance(key.data, Connection):
                self._guarded(key.data, self._ready)
            else:
                key.data()
        for _ in range(len(self._mail)):  # a fixed number: more may arrive all the time
            self._guarded(self._mail.popleft(), self._taken_back)
        self._read_put_off()
        now = time.monotonic()
        if now >= self._accept_at:
            self._resume_accepting()
        if self._stopping and self._listener is not None:
            self._begin_to_stop()
        if self._cutting:
            self._cut_all()
        if now >= self._check_at:
            self._check(now)
        if self._stopping and not len(self._table):
            self._empty.set()

    def _timeout(self) -> float | None:
        if self._put_off:
            return 0.0
        soonest = min(self._check_at, self._accept_at)
        return None if soonest == _NEVER else max(0.0, soonest - time.monotonic())

    def _guarded(self, connection: Connection, step: Callable[[Connection], None]) -> None:
        """Run `step` for one connection; an error closes it and does not affect the others. A defect is logged."""
        try:
            step(connection)
        except (ClientLeft, OSError) as error:
            self._logger.debug("http client left", extra={"reason": repr(error)})
            self._close(connection)
        except Exception:
            self._logger.exception("an http connection failed by a defect")
            self._close(connection)

    # Accepting

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                client, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._count_refused(error)
                if error.errno in _NO_ROOM:
                    self._make_room(None)
                    self._pause(_PAUSE_S)
                return
            if not self._welcome(client, address_of(address[0])):
                return

    def _pause(self, pause_s: float) -> None:
        assert self._listener is not None
        self._accept_at = time.monotonic() + pause_s
        self._selector.unregister(self._listener)

    def _resume_accepting(self) -> None:
        assert self._listener is not None
        with suppress(KeyError):  # still registered: a lack of memory interrupted `_pause`
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._accept_at = _NEVER
        held, self._held = self._held, None
        if held is not None:
            self._welcome(*held)

    def _welcome(self, client: socket.socket, address: str) -> bool:
        """Add the client; False when there is no room: it waits, and so do later ones."""
        peer = peer_of(address)
        if self._table.crowded_for(peer) and not self._make_room(peer):
            self._held = (client, address)
            self._pause(_CHECK_S)
            return False
        try:
            client.setblocking(True)  # non-blocking calls pass MSG_DONTWAIT themselves
            connection = Connection(client, peer, self._limits, address)
        except OSError as error:
            self._logger.debug("http client left", extra={"reason": repr(error)})
            client.close()
            return True
        self._table.add(connection)
        self._wait(connection, Waits.NEW)
        return True

    def _make_room(self, peer: str | None) -> bool:
        """Close the connection that has waited longest for its client; False when none can be closed now."""
        until = time.monotonic() + _PUT_OFF_S
        while time.monotonic() < until and (connection := self._table.longest_waiting(peer)) is not None:
            # A request that has arrived by now is still answered.
            self._guarded(connection, self._take_what_came)
            if connection.is_closed or (peer is not None and not self._table.crowded_for(peer)):
                return True
            if connection is self._table.longest_waiting(peer):
                if connection.waits is not Waits.END and time.monotonic() < connection.since + _GRACE_S:
                    return False
                self._close(connection)
                self._count_closed()
                return True
        return False

    def _count_closed(self) -> None:
        self._closed_for_room += 1
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logger.warning(
                "http connections closed to make room for others",
                extra={"closed": self._closed_for_room, "connections": len(self._table)},
            )
            self._closed_for_room, self._logged_at = 0, now

    # Waiting for clients

    def _wait(self, connection: Connection, what: Waits) -> None:
        connection.wait_for(what)
        if self._stopping and what is Waits.END:
            connection.deadline = min(connection.deadline, connection.since + _LAST_CHECK_S)
        self._check_at = min(self._check_at, connection.deadline)
        self._table.note_wait(connection)
        self._watch(connection, selectors.EVENT_WRITE if what is Waits.READER else selectors.EVENT_READ)
        if what is Waits.READER:
            self._readers.add(connection)
            self._bound_unsent()
        else:
            self._readers.discard(connection)

    def _watch(self, connection: Connection, events: int) -> None:
        if connection.events == events:
            return
        if not connection.events:
            self._selector.register(connection.socket, events, connection)
        elif events:
            self._selector.modify(connection.socket, events, connection)
        else:
            self._selector.unregister(connection.socket)
        connection.events = events

    def _close(self, connection: Connection) -> None:
        self._watch(connection, 0)
        connection.waits = None
        self._put_off.pop(connection, None)
        self._readers.discard(connection)
        self._table.remove(connection)
        connection.socket.close()

    def _bound_unsent(self) -> None:
        """Close the slowest readers while all unsent answers together take more than `unsent_bytes`."""
        while len(self._readers) > 1 and sum(each.held_bytes for each in self._readers) > self._limits.unsent_bytes:
            self._close(min(self._readers, key=lambda each: each.since))
            self._count_closed()

    def _count_refused(self, error: OSError) -> None:
        self._refused += 1
        now = time.monotonic()
        if now - self._refused_logged_at >= _LOG_EVERY_S:
            extra = {"reason": str(error), "times": self._refused}
            self._logger.warning("cannot accept an http connection", extra=extra)
            self._refused, self._refused_logged_at = 0, now

    def _ready(self, connection: Connection) -> None:
        """Handle a socket that became readable or writable."""
        if connection.waits is Waits.READER:
            connection.flush()
            if not connection.unsent:
                self._go_on(connection)
        elif connection.waits is Waits.END:
            if not connection.discard():
                self._close(connection)
        elif connection.waits is not None and connection.receive():
            self._advance_or_put_off(connection)

    def _take_what_came(self, connection: Connection) -> None:
        """Before the connection is closed: send what its client can accept, and read all that has arrived."""
        if connection in self._put_off:
            del self._put_off[connection]
            self._advance(connection)
        if connection.waits_for(Waits.READER, Waits.END):
            self._ready(connection)
        while connection.waits_for(Waits.NEW, Waits.IDLE, Waits.REQUEST) and connection.receive():
            self._advance(connection)

    def _advance_or_put_off(self, connection: Connection) -> None:
        """Read a usual request at once; defer one that takes a hundred times as long, so that it delays no other."""
        if connection.waits is None or connection.reader.is_costly:
            self._watch(connection, 0)
            self._put_off[connection] = None
        else:
            self._advance(connection)

    def _read_put_off(self) -> None:
        until = time.monotonic() + _PUT_OFF_S
        while self._put_off:
            connection, _ = self._put_off.popitem(last=False)
            self._guarded(connection, self._advance)
            if time.monotonic() >= until:
                return

    def _advance(self, connection: Connection) -> None:
        """Read the received bytes: dispatch a complete request, or wait for the rest of it."""
        try:
            connection.request = connection.reader.next()
        except HttpError as refusal:
            self._refuse(connection, refusal.response())
            return
        if connection.request is not None:
            # A client that pipelines requests waits behind those that do not.
            self._dispatch(connection, later=connection.waits is None or connection.reader.begun)
            return
        if connection.reader.begun or connection.waits is Waits.NEW:
            if connection.waits is not Waits.REQUEST:
                self._wait(connection, Waits.REQUEST)
            self._watch(connection, selectors.EVENT_READ)
            if connection.reader.takes_continue():
                connection.send_continue()
        elif connection.waits is None:
            self._wait(connection, Waits.IDLE)
            if self._stopping:
                self._close_idle(connection)

    def _dispatch(self, connection: Connection, *, later: bool) -> None:
        connection.later = later
        self._watch(connection, 0)
        self._readers.discard(connection)
        self._table.forget_wait(connection)
        connection.waits = None
        instead = self._hand_on(connection, later)
        if instead is not None:
            self._refuse(connection, instead)

    def _refuse(self, connection: Connection, response: Response) -> None:
        connection.refuse(response)
        self._logger.debug("http request", extra={"status": response.status})
        self._go_on(connection)

    def _taken_back(self, connection: Connection) -> None:
        if connection.left:
            self._close(connection)
        else:
            self._go_on(connection)

    def _go_on(self, connection: Connection) -> None:
        """Continue after an answer: send its rest, end the connection, or go on with the next request."""
        if connection.unsent:
            self._wait(connection, Waits.READER)
        elif connection.last:
            connection.end_own_side()
            self._wait(connection, Waits.END)
        elif connection.request is not None:
            self._dispatch(connection, later=connection.later)
        else:
            self._table.forget_wait(connection)
            self._readers.discard(connection)
            connection.waits = None
            if connection.reader.begun:
                self._advance_or_put_off(connection)
            else:
                self._advance(connection)

    # Deadlines and the end

    def _check(self, now: float) -> None:
        for connection in self._table.waiting():
            if connection.deadline <= now:
                self._guarded(connection, self._too_late)
        soonest = min((each.deadline for each in self._table.waiting()), default=_NEVER)
        self._check_at = max(soonest, now + _CHECK_S)

    def _too_late(self, connection: Connection) -> None:
        if connection in self._put_off:  # the bytes that it sent are not read yet
            return
        if connection.waits is Waits.REQUEST:
            limit_s = self._limits.receive_s
            late = invalid(f"the request was not complete after {limit_s:g} seconds", status=408)
            self._refuse(connection, late.response())
        else:
            self._close(connection)

    def _begin_to_stop(self) -> None:
        assert self._listener is not None
        if self._accept_at == _NEVER:
            self._selector.unregister(self._listener)
        self._listener.close()
        self._listener, self._accept_at = None, _NEVER
        if self._held is not None:
            self._held[0].close()
        for connection in self._table.waiting():
            if connection.waits in (Waits.NEW, Waits.IDLE):
                self._close_idle(connection)
            elif connection.waits is Waits.END:
                self._wait(connection, Waits.END)

    def _close_idle(self, connection: Connection) -> None:
        """Close the connection, unless a request has begun to arrive by now, which is still answered."""
        self._guarded(connection, self._take_what_came)
        if connection.waits in (Waits.NEW, Waits.IDLE):
            self._close(connection)

    def _cut_all(self) -> None:
        for connection in self._table.waiting():
            self._close(connection)
        for connection in self._table:
            connection.cut(self._logger)
