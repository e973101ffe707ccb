"""A request to the Lobby never delays or fails a start, whatever the Lobby does."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import unittest
from collections.abc import Callable
from unittest import mock

from rtmanager.adapters.lobby import WAITING, LobbyDiagnostics
from rtmanager.tests.making import LogCapture
from rtmanager.tests.operating import PATIENCE_S, wait_until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class Lobby:
    """A socket that answers by a test's function; `over` ends it."""

    def __init__(self, answer: Callable[[socket.socket, threading.Event], None]) -> None:
        self.requests: list[str] = []
        self.over = threading.Event()
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                self.requests.append(client.recv(65536).decode("latin-1").splitlines()[0])
                with contextlib.suppress(OSError):
                    self._answer(client, self.over)

    def close(self) -> None:
        self.over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(PATIENCE_S)


def reply(text: bytes) -> Callable[[socket.socket, threading.Event], None]:
    return lambda client, over: client.sendall(text)


def silence(client: socket.socket, over: threading.Event) -> None:
    over.wait(PATIENCE_S)


def trickle(client: socket.socket, over: threading.Event) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not over.wait(0.01):
        client.sendall(b"x")


class LobbyTest(unittest.TestCase):
    def setUp(self) -> None:
        self.captured = LogCapture()

    def serve(self, answer: Callable[[socket.socket, threading.Event], None]) -> Lobby:
        lobby = Lobby(answer)
        self.addCleanup(lobby.close)
        return lobby

    def diagnostics(self, url: str, timeout_s: float = PATIENCE_S) -> LobbyDiagnostics:
        made = LobbyDiagnostics(url, timeout_s, self.captured.logger)
        made.start()
        return made

    def answers(self) -> list[str]:
        return [vars(r)["lobby"] for r in self.captured.records if r.getMessage() == "lobby answered"]

    def query(self, url: str, timeout_s: float = PATIENCE_S) -> str:
        lobby = self.diagnostics(url, timeout_s)
        self.addCleanup(lobby.close)
        lobby.query("g1")
        wait_until(lambda: bool(self.answers()))
        return self.answers()[0]

    def test_the_game_is_queried_and_the_answer_is_in_the_log(self) -> None:
        lobby = self.serve(reply(OK))
        self.assertEqual(self.query(lobby.url), "200")
        self.assertEqual(lobby.requests, ["GET /api/v1/internal/games/g1 HTTP/1.1"])
        (logged,) = self.captured.records
        self.assertEqual((vars(logged)["asked_about"], logged.levelno), ("g1", logging.DEBUG))

    def test_any_answer_is_only_logged(self) -> None:
        for answer, expected in (
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404"),
            (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "500"),
            (b"nonsense\r\n\r\n", "no answer"),
            (b"", "no answer"),
        ):
            with self.subTest(answer):
                self.captured.records.clear()
                self.assertTrue(self.query(self.serve(reply(answer)).url).startswith(expected))

    def test_a_lobby_that_is_not_there_is_only_logged(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        self.assertTrue(self.query(f"http://127.0.0.1:{port}").startswith("no answer"))

    def test_a_silent_lobby_is_given_up_after_the_timeout(self) -> None:
        self.assertTrue(self.query(self.serve(silence).url, 0.02).startswith("no answer"))

    def test_no_proxy_of_the_environment_is_used(self) -> None:
        lobby = self.serve(reply(OK))
        with mock.patch.dict(os.environ, {"http_proxy": "http://127.0.0.1:1", "no_proxy": ""}):
            self.assertEqual(self.query(lobby.url), "200")

    def test_querying_a_slow_lobby_returns_at_once_and_drops_what_is_too_much(self) -> None:
        server = self.serve(silence)
        lobby = self.diagnostics(server.url)
        lobby.query("g0")
        wait_until(lambda: len(server.requests) == 1)
        for n in range(WAITING + 3):
            lobby.query(f"g{n}")
        self.assertEqual(self.captured.messages, ["lobby is slow, question dropped"] * 3)
        server.over.set()
        lobby.close()

    def close_within(self, lobby: LobbyDiagnostics) -> bool:
        closing = threading.Thread(target=lobby.close, daemon=True)
        closing.start()
        closing.join(PATIENCE_S)
        return not closing.is_alive()

    def test_a_close_drops_what_waits(self) -> None:
        server = self.serve(silence)
        lobby = self.diagnostics(server.url, 0.05)
        for n in range(5):
            lobby.query(f"g{n}")
        wait_until(lambda: len(server.requests) == 1)
        self.assertTrue(self.close_within(lobby))
        self.assertEqual(len(server.requests), 1)

    def test_a_close_does_not_wait_for_a_lobby_that_sends_byte_after_byte(self) -> None:
        server = self.serve(trickle)
        lobby = self.diagnostics(server.url, 0.05)
        lobby.query("g1")
        wait_until(lambda: len(server.requests) == 1)
        self.assertTrue(self.close_within(lobby))
