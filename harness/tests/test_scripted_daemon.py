"""A scripted daemon sends the answers that a test defines, and forwards everything else."""

import http.client
import json
import socket
import threading
import unittest

from harness.errors import HarnessError
from harness.fixtures import scripted_daemon
from harness.fixtures.scripted_daemon import Reply, ScriptedDaemon

SOON_S = 5.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str) -> None:
        super().__init__("localhost", timeout=SOON_S)
        self._path = host.removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SOON_S)
        self.sock.connect(self._path)


class Scripted(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = self.started()

    def started(self, behind: str | None = None) -> ScriptedDaemon:
        made = scripted_daemon.start(behind)
        self.addCleanup(made.close)
        return made

    def request(self, method: str, path: str, body: bytes = b"", host: str = "") -> tuple[int, bytes]:
        connection = _Connection(host or self.daemon.host)
        self.addCleanup(connection.close)
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def test_the_last_rule_that_fits_answers_as_often_as_it_is_to(self) -> None:
        self.daemon.answer("GET /containers/*", Reply(200, [1]))
        self.daemon.answer("GET /containers/json", Reply(503, {"message": "not now"}), times=2)
        statuses = [self.request("GET", "/v1.41/containers/json?all=1")[0] for _ in range(3)]
        self.assertEqual(statuses, [503, 503, 200])
        self.assertEqual(self.daemon.count("GET /containers/*"), 3)
        self.daemon.forget("GET /containers/*")
        self.assertEqual(self.request("GET", "/containers/json")[0], 404)

    def test_a_body_is_json_or_bytes_and_may_be_cut(self) -> None:
        self.daemon.answer("GET /a", Reply(body={"x": 1}))
        self.daemon.answer("GET /b", Reply(body=b"<html>"))
        self.daemon.answer("GET /c", Reply(body=b"0123456789", cut_after=4))
        self.assertEqual(json.loads(self.request("GET", "/a")[1]), {"x": 1})
        self.assertEqual(self.request("GET", "/b")[1], b"<html>")
        with self.assertRaises(http.client.IncompleteRead) as caught:
            self.request("GET", "/c")
        self.assertEqual(caught.exception.partial, b"0123")

    def test_bytes_that_are_no_http_and_no_bytes_at_all(self) -> None:
        self.daemon.answer("POST /raw", Reply(raw=b"SSH-2.0\r\n"))
        self.daemon.answer("GET /silent", Reply(silent=True))
        with self.assertRaises(http.client.BadStatusLine):
            self.request("POST", "/raw", b"x" * 1_000_000)
        ended = threading.Event()

        def wait() -> None:
            with self.assertRaises((http.client.RemoteDisconnected, ConnectionError)):
                self.request("GET", "/silent")
            ended.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        while not self.daemon.count("GET /silent"):
            threading.Event().wait(0.005)
        self.daemon.close()
        self.assertTrue(ended.wait(SOON_S))
        waiting.join()

    def test_what_no_rule_fits_is_handed_on(self) -> None:
        front = self.started(self.daemon.host)
        self.daemon.answer("POST /containers/create", Reply(201, {"Id": "c1"}))
        self.daemon.answer("GET /big", Reply(200, b"x" * 3_000_000))
        front.answer("GET /info", Reply(500, {"message": "no"}))
        self.assertEqual(self.request("POST", "/v1.41/containers/create", b"y" * 500_000, front.host)[0], 201)
        self.assertEqual(len(self.request("GET", "/big", host=front.host)[1]), 3_000_000)
        self.assertEqual(self.request("GET", "/info", host=front.host)[0], 500)
        self.assertEqual(self.daemon.requests, ["POST /containers/create", "GET /big"])

    def test_a_daemon_that_cannot_be_addressed_is_named(self) -> None:
        with self.assertRaisesRegex(HarnessError, "ssh://x"):
            scripted_daemon.start("ssh://x")
