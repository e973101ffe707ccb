"""The Lobby stand-in answers every request with 200, and ends at `close`."""

import http.client
import unittest
import urllib.request

from harness.rtm.lobby import Lobby


class LobbyTest(unittest.TestCase):
    def test_any_game_is_known(self) -> None:
        with Lobby() as lobby:
            for path in ("/api/v1/internal/games/g1", "/"):
                with urllib.request.urlopen(lobby.base_url + path, timeout=5) as answer:
                    self.assertEqual((answer.status, answer.read()), (200, b"{}"))

    def test_any_request_is_answered_with_or_without_a_body_on_one_connection(self) -> None:
        with Lobby() as lobby:
            connection = http.client.HTTPConnection(lobby.base_url.removeprefix("http://"), timeout=5)
            self.addCleanup(connection.close)
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"):
                for body in (None, b'{"a": 1}', iter([b"in ", b"chunks"])):
                    with self.subTest(method, body=body):
                        connection.request(method, "/x", body)
                        answer = connection.getresponse()
                        expected = b"" if method == "HEAD" else b"{}"
                        self.assertEqual((answer.status, answer.read()), (200, expected))

    def test_after_close_nobody_listens(self) -> None:
        with Lobby() as lobby:
            address = lobby.base_url
        with self.assertRaises(OSError):
            urllib.request.urlopen(address, timeout=5)
