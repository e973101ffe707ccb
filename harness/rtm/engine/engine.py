"""A minimal game engine that implements the platform's engine contract.

HTTP on 8080. `GET /healthz` answers at any time. `POST /api/v1/admin/init` sets the races of the game; before it, `GET
/api/v1/admin/status` and `PUT /api/v1/admin/turn` answer 501. The game is one JSON file under GAME_STATE_PATH (else
STORAGE_PATH). The file is replaced atomically, so a new container (after a restart, or with a patched image) continues
the same game. It needs only the standard library; this file is all of the image.
"""

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

VERSION = os.environ.get("ENGINE_VERSION", "1.0.0")
PORT = 8080

#: Maximal length of a request body, in bytes.
MAX_BODY = 1 << 20

#: Seconds without data after which a client is disconnected.
CLIENT_TIMEOUT_S = 10


class Refused(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Game:
    """One game: its races and its turn, stored in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "game.json"
        self._lock = threading.Lock()
        self._state: dict[str, Any] | None = None
        if self._file.exists():
            self._state = json.loads(self._file.read_text())

    def init(self, body: Any) -> dict[str, Any]:
        """Begin the game with the races of `body`; raises Refused when it has begun."""
        races = _races(body)
        with self._lock:
            if self._state is not None:
                raise Refused(409, "the game is already initialised")
            self._save({"turn": 0, "races": races})
            return self._status()

    def status(self) -> dict[str, Any]:
        """The turn and the races; raises Refused before `init`."""
        with self._lock:
            return self._status()

    def advance(self) -> dict[str, Any]:
        """Play one turn; raises Refused before `init`."""
        with self._lock:
            now = self._status()
            self._save({"turn": now["turn"] + 1, "races": now["races"]})
            return self._status()

    def _status(self) -> dict[str, Any]:
        if self._state is None:
            raise Refused(501, "the game is not initialised")
        return {**self._state, "version": VERSION}

    def _save(self, state: dict[str, Any]) -> None:
        """Replace the file atomically: after a kill it holds the old game or the new one."""
        fresh = self._file.with_suffix(".tmp")
        with fresh.open("w") as out:
            json.dump(state, out)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self._file)
        directory = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._state = state


def _races(body: Any) -> list[dict[str, str]]:
    """The races of an init request; raises Refused when it is not `{"races":[{"raceName":"…"},…]}`."""
    races = body.get("races") if isinstance(body, dict) else None
    if not isinstance(races, list) or not races:
        raise Refused(400, "races must be a list that is not empty")
    names = [race.get("raceName") if isinstance(race, dict) else None for race in races]
    if not all(isinstance(name, str) and name for name in names):
        raise Refused(400, "each race needs a raceName")
    if len(set(names)) != len(names):
        raise Refused(400, "a raceName is there twice")
    return [{"raceName": str(name)} for name in names]


class Handler(BaseHTTPRequestHandler):
    """One HTTP connection."""

    protocol_version = "HTTP/1.1"
    timeout = CLIENT_TIMEOUT_S
    # Buffered, so that head and body are sent as one packet.
    wbufsize = -1
    disable_nagle_algorithm = True
    game: ClassVar[Game]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        if self.path != "/healthz":
            super().log_message(format, *args)

    def _answer(self) -> None:
        try:
            status, answer = 200, self._route(self._body())
        except Refused as refused:
            status, answer = refused.status, {"error": str(refused)}
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _route(self, body: bytes) -> dict[str, Any]:
        match self.command, self.path:
            case "GET", "/healthz":
                return {"status": "ok"}
            case "GET", "/api/v1/admin/status":
                return self.game.status()
            case "POST", "/api/v1/admin/init":
                return self.game.init(_json(body))
            case "PUT", "/api/v1/admin/turn":
                return self.game.advance()
        raise Refused(404, f"no such route: {self.command} {self.path}")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            raise Refused(400, f"Content-Length must be a number up to {MAX_BODY}, not {length!r}")
        return self.rfile.read(int(length))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}") from error


def state_directory() -> Path:
    """The directory of the game's state; exits when neither variable names it."""
    path = os.environ.get("GAME_STATE_PATH") or os.environ.get("STORAGE_PATH")
    if not path:
        raise SystemExit("GAME_STATE_PATH or STORAGE_PATH must name the directory of the game's state")
    return Path(path)


class Server(ThreadingHTTPServer):
    """The engine's HTTP server for one game."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], game: Game) -> None:
        super().__init__(address, type("GameHandler", (Handler,), {"game": game}))


def _end(_signal: int, _frame: FrameType | None) -> None:
    # Nothing is open between two requests and the file is replaced atomically, so there is nothing to wait for.
    os._exit(0)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    server = Server(("0.0.0.0", PORT), Game(state_directory()))
    sys.stderr.write(f"engine {VERSION} listens on {PORT}\n")
    server.serve_forever()


if __name__ == "__main__":
    main()
