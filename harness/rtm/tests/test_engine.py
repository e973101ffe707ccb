"""The reference engine implements the engine contract (docs/contract.md); in this process, on its own port."""

import http.client
import json
import os
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from harness.rtm.engine import engine

RACES = {"races": [{"raceName": "Terrans"}, {"raceName": "Klingons"}]}


class EngineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(mock.patch.object(engine.Handler, "log_message"))
        self.serve()

    def serve(self) -> None:
        """Start an engine on the directory, as a new container does."""
        server = engine.Server(("127.0.0.1", 0), engine.Game(self.directory))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        self.port = server.server_address[1]

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        self.addCleanup(connection.close)
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def init(self) -> None:
        status, _ = self.call("POST", "/api/v1/admin/init", json.dumps(RACES).encode())
        self.assertEqual(status, 200)

    def test_it_is_healthy_before_and_after_init(self) -> None:
        self.assertEqual(self.call("GET", "/healthz"), (200, {"status": "ok"}))
        self.init()
        self.assertEqual(self.call("GET", "/healthz"), (200, {"status": "ok"}))

    def test_status_and_turn_need_an_initialised_game(self) -> None:
        self.assertEqual(self.call("GET", "/api/v1/admin/status")[0], 501)
        self.assertEqual(self.call("PUT", "/api/v1/admin/turn")[0], 501)

    def test_a_game_begins_at_turn_zero_with_its_races(self) -> None:
        self.init()
        self.assertEqual(self.call("GET", "/api/v1/admin/status")[1], RACES | {"turn": 0, "version": "1.0.0"})

    def test_a_turn_advances_the_game(self) -> None:
        self.init()
        self.assertEqual(self.call("PUT", "/api/v1/admin/turn")[1]["turn"], 1)
        self.assertEqual(self.call("GET", "/api/v1/admin/status")[1]["turn"], 1)

    def test_a_second_init_is_refused_and_changes_nothing(self) -> None:
        self.init()
        self.call("PUT", "/api/v1/admin/turn")
        self.assertEqual(self.call("POST", "/api/v1/admin/init", json.dumps(RACES).encode())[0], 409)
        self.assertEqual(self.call("GET", "/api/v1/admin/status")[1]["turn"], 1)

    def test_a_bad_init_is_refused(self) -> None:
        bodies = [
            b"",
            b"not JSON",
            b"[]",
            b'{"races": []}',
            b'{"races": [{}]}',
            b'{"races": [{"raceName": ""}]}',
            b'{"races": [{"raceName": 1}]}',
            b'{"races": ["Terrans"]}',
            b'{"races": [{"raceName": "a"}, {"raceName": "a"}]}',
        ]
        for body in bodies:
            with self.subTest(body):
                self.assertEqual(self.call("POST", "/api/v1/admin/init", body)[0], 400)

    def test_a_new_engine_on_the_same_state_goes_on_with_the_game(self) -> None:
        self.init()
        self.call("PUT", "/api/v1/admin/turn")
        self.serve()
        self.assertEqual(self.call("GET", "/api/v1/admin/status")[1], RACES | {"turn": 1, "version": "1.0.0"})

    def test_a_crash_while_writing_leaves_the_old_game(self) -> None:
        self.init()
        with mock.patch("os.fsync", side_effect=OSError("disk full")):
            game = engine.Game(self.directory)
            self.assertRaises(OSError, game.advance)
        self.assertEqual(engine.Game(self.directory).status()["turn"], 0)

    def test_an_unknown_route_is_not_found(self) -> None:
        self.assertEqual(self.call("GET", "/nowhere")[0], 404)

    def test_the_state_path_is_the_platforms_choice(self) -> None:
        with mock.patch.dict(os.environ, {"GAME_STATE_PATH": "/a", "STORAGE_PATH": "/b"}, clear=True):
            self.assertEqual(engine.state_directory(), Path("/a"))
        with mock.patch.dict(os.environ, {"STORAGE_PATH": "/b"}, clear=True):
            self.assertEqual(engine.state_directory(), Path("/b"))
        with mock.patch.dict(os.environ, {}, clear=True), self.assertRaises(SystemExit):
            engine.state_directory()
