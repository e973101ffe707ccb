"""A gate in front of a server: while it is shut, the server is unreachable for one manager only.

    docker = gate.before_docker()
    self.addCleanup(docker.close)
    self.start_runtime(DOCKER_HOST=docker.url)
    docker.shut()

It can also hold requests, so that a test knows exactly how far a manager has come. It forwards bytes unchanged: through
an open gate a manager sees the real server.
"""

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from harness import daemon

LOOPBACK = "127.0.0.1"

_CHUNK_BYTES = 1 << 16


class Kept:
    """Held requests: their senders wait until `let_go` is set, or until the gate shuts."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.arrived = threading.Event()
        self.let_go = threading.Event()

    def hold(self) -> None:
        """Called by the gate: block until the requests are released."""
        self.arrived.set()
        self.let_go.wait()


class Gate:
    """Forwards connections to a server; open from its construction."""

    def __init__(self, listener: socket.socket, dial: Callable[[], socket.socket]) -> None:
        self._listener = listener
        self._dial = dial
        self._lock = threading.Lock()
        self._passages: list[_Passage] = []
        self._kept: list[Kept] = []
        self._is_open = True
        self._acceptor = threading.Thread(target=self._accept_all, name="gate", daemon=True)
        self._acceptor.start()

    @property
    def port(self) -> int:
        """Its port of the loopback address."""
        return int(self._listener.getsockname()[1])

    def shut(self) -> None:
        """End every connection, and each new one at once. Held requests never arrive."""
        with self._lock:
            self._is_open = False
            passages = list(self._passages)
            kept, self._kept = self._kept, []
        for passage in passages:
            passage.end()
        for each in kept:
            each.let_go.set()

    def open(self) -> None:
        """Forward connections again."""
        with self._lock:
            self._is_open = True

    def keep_back(self, mark: str) -> Kept:
        """Hold requests that contain `mark`, retries included, and everything after them on their connections."""
        kept = Kept(mark.encode())
        with self._lock:
            self._kept.append(kept)
        return kept

    def close(self) -> None:
        """Shut for good; returns when nothing of it is left."""
        self.shut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for passage in self._passages:
            passage.join()

    def _accept_all(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            with self._lock:
                if self._is_open:
                    passage = _Passage(client, self._dial(), self._look_at)
                    self._passages.append(passage)
                    passage.start()
                else:
                    client.close()

    def _look_at(self, request: bytes) -> None:
        with self._lock:
            kept = next((each for each in self._kept if each.mark in request), None)
        if kept is not None:
            kept.hold()


class _Passage:
    """One connection through the gate: two sockets, and a thread for each direction."""

    def __init__(self, client: socket.socket, server: socket.socket, look_at: Callable[[bytes], None]) -> None:
        self._ends = (client, server)
        self._lock = threading.Lock()
        self._open_directions = 2
        directions = ((client, server, look_at), (server, client, _let_pass))
        self._threads = [
            threading.Thread(target=self._pass_on, args=each, name="gate", daemon=True) for each in directions
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for its threads, after `end`."""
        for thread in self._threads:
            thread.join()

    def end(self) -> None:
        """Close both sides; the threads then end."""
        with self._lock:
            if self._open_directions:
                for each in self._ends:
                    with suppress(OSError):  # that side has already disconnected
                        each.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, source: socket.socket, target: socket.socket, look_at: Callable[[bytes], None]) -> None:
        with suppress(OSError):  # one side disconnected, and so does the other
            while data := source.recv(_CHUNK_BYTES):
                look_at(data)
                target.sendall(data)
        self.end()
        with self._lock:
            self._open_directions -= 1
            if not self._open_directions:
                for each in self._ends:
                    each.close()


def _let_pass(_data: bytes) -> None:
    """Ignore the data: answers are not searched."""


class DockerGate(Gate):
    """A gate in front of the Docker daemon, at its own socket; while shut, the socket does not exist."""

    def __init__(self) -> None:
        # Not below the test's own directory: a socket's path has a limit of about a hundred bytes.
        self._directory = Path(tempfile.mkdtemp(prefix="rtm-gate-"))
        self._path = self._directory / "docker.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        listener.listen()
        super().__init__(listener, _dial_docker)

    @property
    def url(self) -> str:
        """The value for RTMANAGER_DOCKER_HOST."""
        return f"unix://{self._path}"

    def shut(self) -> None:
        with suppress(FileNotFoundError):  # shut already
            self._path.rename(self._aside)
        super().shut()

    def open(self) -> None:
        super().open()
        self._aside.rename(self._path)

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._directory)

    @property
    def _aside(self) -> Path:
        return self._path.with_suffix(".shut")


def before(host: str, port: int) -> Gate:
    """A gate in front of a TCP server."""
    return Gate(socket.create_server((LOOPBACK, 0)), lambda: socket.create_connection((host, port)))


def before_docker() -> DockerGate:
    """A gate in front of the Docker daemon in use."""
    return DockerGate()


def _dial_docker() -> socket.socket:
    where = urlsplit(daemon.host())
    if where.scheme != "unix":
        return socket.create_connection((where.hostname or LOOPBACK, where.port or 2375))
    line = socket.socket(socket.AF_UNIX)
    line.connect(where.path)
    return line
