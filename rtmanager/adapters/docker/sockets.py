"""Sockets to the daemon, plain or with TLS: dials them, enforces deadlines and cuts them.

The SDK counts a timeout from byte to byte, uses none for a pull, and offers no way to abort a call from another
thread. Here every answer has a `Deadline`, and `SocketRegistry.cut` aborts the wait on every socket.
"""

from __future__ import annotations

import errno
import math
import socket
import ssl
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rtmanager.adapters.docker.tls import ClientTls, explained, never_answered
from rtmanager.config.parsers import can_be_looked_up
from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.game import shown

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

#: Seconds to connect; a local socket answers at once, a network in milliseconds.
CONNECT_S = 5.0


#: Docker's default TCP ports: plain, and with TLS.
PORT = 2375
TLS_PORT = 2376

#: Most bytes read from a socket at once.
READ_AHEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Deadline:
    """Time that one answer may take, in seconds: as a whole, and without a single byte.

    With `begin_s` the first byte may take that long, and `total_s` counts from it.
    """

    total_s: float
    silence_s: float = math.inf
    begin_s: float | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """The daemon's address: the path of a socket, or a host and a port."""

    path: str | None
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int = PORT) -> Address:
        """Parse `unix:///path` or `tcp://host[:port]`; raises `InvalidValue`."""
        try:
            parts = urlsplit(text)
            if parts.scheme == "unix" and parts.netloc + parts.path not in ("", "/"):
                return cls(parts.netloc + parts.path, "localhost", 80)
            port = default_port if parts.port is None else parts.port
            is_plain = parts.scheme in ("tcp", "http") and parts.path in ("", "/")
            if is_plain and port and parts.hostname and can_be_looked_up(parts.hostname):
                return cls(None, parts.hostname, port)
        except ValueError:
            pass  # our own message says more about a bad port or bracket
        raise InvalidValue(f"Docker host {shown(text)}: expected unix:///path/to/socket or tcp://host:port")

    def candidates(self) -> list[tuple[int, Any]]:
        """Return the socket families and addresses to try, in order."""
        if self.path is not None:
            return [(socket.AF_UNIX, self.path)]
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(family, target) for family, _, _, _, target in found]


class _Limited(socket.socket):
    """A socket that limits the time of a whole answer, not only from byte to byte."""

    _until = math.inf
    _silence_s = math.inf
    _from_first_byte_s: float | None = None

    def allow(self, deadline: Deadline) -> None:
        """Start the time of one answer."""
        self._until = monotonic() + (deadline.total_s if deadline.begin_s is None else deadline.begin_s)
        self._from_first_byte_s = None if deadline.begin_s is None else deadline.total_s
        self._silence_s = deadline.silence_s

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = 0, flags: int = 0) -> int:
        left = min(self._until - monotonic(), self._silence_s)
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(None if left == math.inf else left)
        received = self._receive(buffer, nbytes or 0, flags)
        if self._from_first_byte_s is not None:
            self._until, self._from_first_byte_s = monotonic() + self._from_first_byte_s, None
        return received

    def _receive(self, buffer: WriteableBuffer, nbytes: int, flags: int) -> int:
        return super().recv_into(buffer, nbytes, flags)

    def makefile(self, *args: Any, **how: Any) -> Any:
        """Like every socket's, with a larger read buffer."""
        return super().makefile(*args, **{"buffering": READ_AHEAD, **how})

    def hang_up(self) -> None:
        """Abort the wait of another thread on this socket; that thread closes it."""
        with suppress(OSError):  # not connected, or just closed: no thread waits
            # A TLS socket's own `shutdown` removes the session while another thread reads.
            socket.socket.shutdown(self, socket.SHUT_RDWR)


class DeadlineSocket(_Limited):
    """A socket to the daemon without TLS."""


class EngineTlsSocket(_Limited, ssl.SSLSocket):
    """A socket to the daemon with TLS.

    With TLS 1.3 the client's handshake ends before the daemon has checked the client's certificate. A rejection shows
    as an alert or as the end of the connection at the first send or receive.
    """

    _was_answered = False

    def _receive(self, buffer: WriteableBuffer, nbytes: int, flags: int) -> int:
        try:
            received = ssl.SSLSocket.recv_into(self, buffer, nbytes or None, flags)
            self._was_answered = self._was_answered or received > 0
            failure: OSError | None = None if self._was_answered else never_answered()
        except ssl.SSLError as error:
            failure = explained(error)
        except ConnectionResetError as error:
            failure = error if self._was_answered else never_answered()
        if failure is not None:
            raise failure
        return received

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        try:
            ssl.SSLSocket.sendall(self, data, flags)
            return
        except (ssl.SSLError, BrokenPipeError, ConnectionResetError) as error:
            if self._was_answered:
                raise
            failure = never_answered() if not isinstance(error, ssl.SSLError) else explained(error, handshake=False)
        raise failure


class Call:
    """A call that another thread may abort."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: _Limited | None = None
        self._broken_off = False

    @property
    def broken_off(self) -> bool:
        """Whether `break_off` was called."""
        return self._broken_off

    def took(self, line: _Limited) -> None:
        """Bind the call to the socket that receives its answer."""
        with self._lock:
            self._line = line
            if self._broken_off:
                line.hang_up()

    def ended(self) -> None:
        """Release the socket, which another call may use next."""
        with self._lock:
            self._line = None

    def break_off(self) -> None:
        """Abort the call with an error, now or when it begins to wait for its answer."""
        with self._lock:
            self._broken_off = True
            if self._line is not None:
                self._line.hang_up()


class SocketRegistry:
    """All sockets to one daemon, and each thread's deadline for its next answer."""

    def __init__(self, address: Address, tls: ClientTls | None = None) -> None:
        self._address = address
        self._tls = tls
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[_Limited] = weakref.WeakSet()
        self._is_cut = False
        #: Number of sockets created so far.
        self.begun = 0
        self._thread = threading.local()

    @contextmanager
    def allowing(self, deadline: Deadline) -> Iterator[None]:
        """Set the deadline of the answers for which the calling thread waits inside the block."""
        before = getattr(self._thread, "deadline", None)
        self._thread.deadline = deadline
        try:
            yield
        finally:
            self._thread.deadline = before

    @property
    def deadline(self) -> Deadline:
        """The calling thread's deadline; raises `RuntimeError` outside `allowing`."""
        deadline: Deadline | None = getattr(self._thread, "deadline", None)
        if deadline is None:
            raise RuntimeError("a call to the daemon outside SocketRegistry.allowing would have no deadline")
        return deadline

    @contextmanager
    def breakable(self, call: Call) -> Iterator[None]:
        """Let `call` abort the waits of the calling thread inside the block."""
        self._thread.call = call
        try:
            yield
        finally:
            self._thread.call = None
            call.ended()

    def begin_answer(self, line: _Limited) -> None:
        """Start the deadline of an answer on this socket, for the calling thread."""
        line.allow(self.deadline)
        call: Call | None = getattr(self._thread, "call", None)
        if call is not None:
            call.took(line)

    def dial(self) -> _Limited:
        """Return a connected socket; raises `OSError` when no address connects, TLS fails or the registry is cut."""
        failure = OSError(f"{self._address.host}: no address")
        for family, target in self._address.candidates():
            line: _Limited = DeadlineSocket(family, socket.SOCK_STREAM)
            try:
                self._register(line)
                line.settimeout(CONNECT_S)
                line.connect(target)
                if family != socket.AF_UNIX:
                    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return line if self._tls is None else self._secured(line, self._tls)
            except TimeoutError:
                line.close()
                failure = OSError(errno.EHOSTUNREACH, f"no connection within {CONNECT_S:g} s")
            except ssl.SSLError as error:
                line.close()
                failure = explained(error)
            except OSError as error:
                line.close()
                failure = error
        with self._lock:
            self._check()  # urllib3 misreads the errors of a dial that was cut
        raise failure

    def _secured(self, line: _Limited, tls: ClientTls) -> _Limited:
        """Wrap the connection in TLS; the plain socket object is detached."""
        secured = tls.context(EngineTlsSocket).wrap_socket(
            line, server_hostname=self._address.host, do_handshake_on_connect=False
        )
        if not isinstance(secured, EngineTlsSocket):
            raise TypeError("the TLS context made a socket of another kind")
        try:
            self._register(secured)
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured

    def _register(self, line: _Limited) -> None:
        with self._lock:
            self._check()
            self._open.add(line)
            self.begun += 1

    def _check(self) -> None:
        if self._is_cut:
            raise ConnectionAbortedError("the connections to Docker were closed by this process")

    def cut(self) -> None:
        """Hang up every socket for good."""
        with self._lock:
            self._is_cut = True
        self.hang_up()

    def hang_up(self) -> None:
        """Abort every wait on any socket with an error."""
        with self._lock:
            lines = list(self._open)
        for line in lines:
            line.hang_up()
