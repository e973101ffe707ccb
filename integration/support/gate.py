"""A gate on the way to a server: while it is shut, the server is away for one manager and for nobody else.

    docker = gate.before_docker()
    self.addCleanup(docker.close)
    self.start_runtime(DOCKER_HOST=docker.url)
    docker.shut()

It can also keep requests back, so that a test knows exactly how far a manager has come. Bytes are passed on as
they are: what a manager sees through an open gate is the real server.
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
    """Requests that are kept back: their senders wait until they are let go, or the gate is shut before them."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.arrived = threading.Event()
        self.let_go = threading.Event()

    def hold(self) -> None:
        """For the gate: wait until they are let go."""
        self.arrived.set()
        self.let_go.wait()


class Gate:
    """Passes connections on to a server; open from the moment it is made."""

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
        """The port of the loopback address that it listens on."""
        return int(self._listener.getsockname()[1])

    def shut(self) -> None:
        """End every connection, and each new one at once. What is kept back never arrives."""
        with self._lock:
            self._is_open = False
            passages = list(self._passages)
            kept, self._kept = self._kept, []
        for passage in passages:
            passage.end()
        for each in kept:
            each.let_go.set()

    def open(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_open = True

    def keep_back(self, mark: str) -> Kept:
        """Keep back requests with `mark` in them, second tries included, and what follows them on their connections."""
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
        """Wait for its threads, once it was ended."""
        for thread in self._threads:
            thread.join()

    def end(self) -> None:
        """Hang up on both sides; their threads then end."""
        with self._lock:
            if self._open_directions:
                for each in self._ends:
                    with suppress(OSError):  # that side has left by itself
                        each.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, source: socket.socket, target: socket.socket, look_at: Callable[[bytes], None]) -> None:
        with suppress(OSError):  # one side has left, and so does the other
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
    """Answers are not looked at."""


class DockerGate(Gate):
    """A gate before the Docker daemon, at a socket of its own: shut, there is no such socket."""

    def __init__(self) -> None:
        # A socket's path may be no longer than some hundred bytes, so it is not below the test's own directory.
        self._directory = Path(tempfile.mkdtemp(prefix="rtm-gate-"))
        self._path = self._directory / "docker.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        listener.listen()
        super().__init__(listener, _dial_docker)

    @property
    def url(self) -> str:
        """What RTMANAGER_DOCKER_HOST takes."""
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
    """A gate before a TCP server."""
    return Gate(socket.create_server((LOOPBACK, 0)), lambda: socket.create_connection((host, port)))


def before_docker() -> DockerGate:
    """A gate before the Docker daemon in use."""
    return DockerGate()


def _dial_docker() -> socket.socket:
    where = urlsplit(daemon.host())
    if where.scheme != "unix":
        return socket.create_connection((where.hostname or LOOPBACK, where.port or 2375))
    line = socket.socket(socket.AF_UNIX)
    line.connect(where.path)
    return line
