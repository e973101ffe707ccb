"""The Lobby stand-in answers everything with 200, and ends when told."""

import unittest
import urllib.request

from harness.fixtures.lobby import Lobby


class LobbyTest(unittest.TestCase):
    def test_any_game_is_known(self) -> None:
        with Lobby() as lobby:
            for path in ("/api/v1/internal/games/g1", "/"):
                with urllib.request.urlopen(lobby.base_url + path, timeout=5) as answer:
                    self.assertEqual((answer.status, answer.read()), (200, b"{}"))

    def test_after_close_nobody_listens(self) -> None:
        with Lobby() as lobby:
            address = lobby.base_url
        with self.assertRaises(OSError):
            urllib.request.urlopen(address, timeout=5)
