"""The request to the Lobby at a start is for the log only: no answer, or none at all, changes anything."""

import socket
from contextlib import closing

from harness import start_services
from harness.rtm import RuntimeTestCase

LIMIT_S = 60.0


def setUpModule() -> None:
    start_services()


class Diagnostic(RuntimeTestCase):
    def listener(self) -> tuple[socket.socket, str]:
        """A listener in the Lobby's place, and its URL."""
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(LIMIT_S)
        self.addCleanup(listener.close)
        return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"

    def test_a_start_does_not_wait_for_a_silent_lobby(self) -> None:
        silent, url = self.listener()
        self.start_runtime(LOBBY_INTERNAL_BASE_URL=url, LOBBY_INTERNAL_TIMEOUT=f"{LIMIT_S:g}s")

        self.assertEqual(self.post("start", {"image_ref": self.engine.ref})["status"], "running")

        question, _ = silent.accept()
        with closing(question):
            request_line = question.recv(4096).decode().splitlines()[0]
        self.assertEqual(request_line, f"GET /api/v1/internal/games/{self.game_id} HTTP/1.1")

    def test_a_lobby_that_has_no_such_game_changes_nothing(self) -> None:
        lobby, url = self.listener()
        self.start_runtime(LOBBY_INTERNAL_BASE_URL=url)
        self.add_start_job()

        question, _ = lobby.accept()
        with closing(question):
            question.recv(4096)
            question.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        self.assertEqual(self.results()[0]["outcome"], "success")
        self.wait_until("the answer in the log", lambda: "lobby=404" in self.log.read_text())
