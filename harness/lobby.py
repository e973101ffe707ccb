"""A stand-in for the Game Lobby's internal HTTP: any request is answered 200 with `{}`.

On purpose it cannot be told to do anything else: the Runtime Manager's call to the Lobby is a diagnostic that
must change nothing, so no test may come to depend on what the Lobby answers.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class _Always200(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    # Head and body leave as one packet.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class Lobby:
    """The stand-in, on a port of the loopback address, from the moment it is made until `close`."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Always200)
        # A short poll keeps close() quick.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="lobby-stand-in", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> "Lobby":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """What RTMANAGER_LOBBY_INTERNAL_BASE_URL takes."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop answering; returns when the thread has ended."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
