"""A registry whose layers do not end, for tests of pulls that hang.

    with Stalling(shop) as slow:
        ref = slow.reference("game:1.0.0")  # pushed to `shop` before
        ...                                 # begin to pull it
        slow.wait_until_held()

It stands in front of a real registry and hands everything on, but of each layer only the first half, until
`release`. It is a thread of this process, so the daemon has to be on this machine.
"""

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from harness import listening, registry
from harness.errors import HarnessError
from harness.registry import Registry
from harness.waiting import INTERVAL_S, wait_until

#: A pull reaches its first layer within this many seconds, unless something is wrong.
HELD_TIMEOUT_S = 20.0

#: What of the registry's answer the daemon needs to see.
_HANDED_ON = ("Content-Type", "Content-Length", "Docker-Content-Digest", "Docker-Distribution-Api-Version")


class Stalling:
    """The front of `behind`, on a port of its own, from the moment it is made until `close`."""

    def __init__(self, behind: Registry) -> None:
        if not listening.shares_our_network():
            raise HarnessError("the Docker daemon does not reach this process: it must run on this machine")
        self._client = behind.container.client
        self._front = _Front(behind)
        self._thread = threading.Thread(
            target=self._front.serve_forever, args=(INTERVAL_S,), name="stalling registry", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> "Stalling":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens, on the loopback address."""
        return int(self._front.server_address[1])

    def reference(self, name: str) -> str:
        """The full reference, by way of this front, of what was pushed to the registry as `name`."""
        return registry.reference(self.port, name)

    def wait_until_held(self, layers: int = 1) -> None:
        """Wait until so many layers were held, each time that one was asked for counting.

        A pull that was given up counts for ever: Docker may keep its connection to the registry.
        """
        wait_until(f"{layers} held layers", lambda: self._front.held >= layers, timeout_s=HELD_TIMEOUT_S)

    def release(self) -> None:
        """Let all layers end, also those that are asked for from now on."""
        self._front.free.set()

    def close(self) -> None:
        """Break off what is held, stop answering, and remove every image that was pulled by this way."""
        self._front.closed = True
        self._front.free.set()
        self._front.shutdown()
        self._thread.join()
        self._front.server_close()
        registry.forget_images(self._client, f"{listening.LOOPBACK}:{self.port}/")


class _Front(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behind: Registry) -> None:
        super().__init__((listening.LOOPBACK, 0), _Handler)
        self.behind = (behind.host, behind.port)
        self.layers: set[str] = set()
        self.held = 0
        self.lock = threading.Lock()
        self.free = threading.Event()
        self.closed = False

    def hold(self) -> bool:
        """Wait for the release; False when it does not come."""
        with self.lock:
            self.held += 1
        self.free.wait()
        return not self.closed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = registry.ANSWER_TIMEOUT_S
    server: _Front

    def do_GET(self) -> None:
        self._hand_on()

    def do_HEAD(self) -> None:
        self._hand_on()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: Docker tries TLS first, which is a bad request here."""

    def _hand_on(self) -> None:
        # One request a connection: an idle one would hold its thread beyond `close`.
        self.close_connection = True
        body = self._ask()
        if self.path.rpartition("/")[2] in self.server.layers:
            middle = len(body) // 2
            self.wfile.write(body[:middle])
            if not self.server.hold():
                return
            body = body[middle:]
        self.wfile.write(body)

    def _ask(self) -> bytes:
        """Ask the registry behind, and pass on the head of its answer; the body."""
        connection = http.client.HTTPConnection(*self.server.behind, timeout=registry.ANSWER_TIMEOUT_S)
        try:
            accept = ", ".join(self.headers.get_all("Accept", ()))
            connection.request(self.command, self.path, headers={"Accept": accept})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if "/manifests/" in self.path and body:
            self.server.layers.update(layer["digest"] for layer in json.loads(body).get("layers", ()))
        self.send_response(answer.status)
        for name in _HANDED_ON:
            if value := answer.getheader(name):
                self.send_header(name, value)
        self.end_headers()
        return body
