"""The direct transport sends the same request and returns the same answer as the SDK's own."""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import docker
from docker.errors import APIError

from rtmanager.adapters.docker import transport
from rtmanager.adapters.docker.sockets import Address, Deadline, SocketRegistry, _Limited
from rtmanager.adapters.docker.transport import EngineAdapter, EngineClient
from rtmanager.tests.fake_daemon import Exchange, FakeDaemon

API_VERSION = "1.41"

#: Calls with a complete answer, as the adapters make them, with parameters of every kind.
CALLS: dict[str, Callable[[docker.APIClient], Any]] = {
    "GET /images/galaxy/game:1.0.0/json": lambda client: client.inspect_image("galaxy/game:1.0.0"),  # type: ignore[no-untyped-call]
    "GET /networks": lambda client: client.networks(names=["one & only"]),
    "GET /containers/json": lambda client: client.containers(all=True, filters={"label": ["a=b", "c=ü"]}),
    "POST /containers/create": lambda client: client.create_container_from_config(  # type: ignore[no-untyped-call]
        {"Image": "ü", "Labels": {"a": "b"}, "Cmd": None}, "a name"
    ),
    "POST /containers/c1/start": lambda client: client.start("c1"),
    "POST /containers/c1/stop": lambda client: client.stop("c1", timeout=3),
    "DELETE /containers/c1": lambda client: client.remove_container("c1", v=True),
}


class ShortWayTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()
        address = Address.parse(self.daemon.host)
        self.lines = SocketRegistry(address)
        adapter = EngineAdapter(address, self.lines, 4)
        self.addCleanup(adapter.close)
        self.addCleanup(self.lines.cut)
        self.ours = EngineClient("http://localhost:80", API_VERSION, adapter)
        self.theirs = docker.APIClient(self.daemon.host, version=API_VERSION)
        self.addCleanup(self.theirs.close)
        self.enterContext(self.lines.allowing(Deadline(5)))

    def test_a_call_reads_the_same(self) -> None:
        for request, call in CALLS.items():
            self.daemon.answers[request] = partial(Exchange.reply, status=200, body={"Id": "c1"})
            with self.subTest(request):
                self.assertEqual(call(self.ours), call(self.theirs))
                self.assertEqual(self.daemon.requests[-2:], [request, request])
                self.assertEqual(self.daemon.queries[-1], self.daemon.queries[-2])
                self.assertEqual(self.daemon.bodies[-1], self.daemon.bodies[-2])
                for name in ("User-Agent", "Content-Type"):
                    ours, theirs = (headers.get(name) for headers in self.daemon.headers[-2:])
                    self.assertEqual(ours, theirs, name)

    def test_a_refusal_reads_the_same(self) -> None:
        request = "POST /containers/c1/start"
        self.daemon.answers[request] = partial(Exchange.refuse, status=500, message="ü is not there")
        refusals = []
        for client in (self.ours, self.theirs):
            with self.assertRaises(APIError) as caught:
                client.start("c1")
            refusals.append((caught.exception.status_code, caught.exception.explanation))
        self.assertEqual(refusals, [(500, "ü is not there")] * 2)

    def test_the_time_for_a_connection_is_no_limit_of_the_whole_call(self) -> None:
        request = "GET /networks"
        self.daemon.answers[request] = partial(Exchange.reply, status=200, body=[])
        dial = self.lines.dial

        def dial_late() -> _Limited:
            line = dial()
            time.sleep(0.2)  # as a process that is frozen, or waits for a processor
            return line

        with mock.patch.object(transport, "CONNECT_S", 0.1), mock.patch.object(self.lines, "dial", dial_late):
            self.assertEqual(self.ours.networks(), [])

    def test_calls_one_after_the_other_share_a_connection(self) -> None:
        request = "GET /networks"
        self.daemon.answers[request] = partial(Exchange.reply, status=200, body=[])
        for _ in range(3):
            self.ours.networks()
        self.assertEqual(len(self.daemon.connections), 1)
