"""The slow clients connect, do what their kind defines, reconnect, and end at `close`."""

import socket
import threading
import unittest

from harness import SlowClients, SlowKind, wait_until


class SlowClientsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.listener.settimeout(20)
        self.addCleanup(self.listener.close)
        self.address = ("127.0.0.1", int(self.listener.getsockname()[1]))

    def first_bytes(self, kind: SlowKind) -> bytes:
        """What a client of that kind sends within a moment."""
        with SlowClients(self.address, kinds=[kind], number=1, path="/a", again=False):
            server, _ = self.listener.accept()
            with server:
                server.settimeout(20 if kind is not SlowKind.SILENT else 0.1)
                try:
                    return server.recv(10_000)
                except TimeoutError:
                    return b""

    def test_each_kind_stops_where_it_says(self) -> None:
        head = b"GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        self.assertEqual(self.first_bytes(SlowKind.SILENT), b"")
        self.assertEqual(self.first_bytes(SlowKind.IDLE), head + b"\r\n")
        self.assertEqual(self.first_bytes(SlowKind.HEAD), head + b"X-Slow: ")
        self.assertTrue(self.first_bytes(SlowKind.BODY).endswith(b"\r\n\r\n{"))
        self.assertEqual(self.first_bytes(SlowKind.TLS)[:1], b"\x16")
        for kind in (SlowKind.READER, SlowKind.PIPELINE):
            self.assertEqual(self.first_bytes(kind).count(b"\r\n\r\n"), 50)
        for kind in SlowKind:
            self.first_bytes(kind)

    def test_all_come_and_come_again_and_go(self) -> None:
        held = []
        with SlowClients(self.address, kinds=[SlowKind.HEAD, SlowKind.SILENT], number=20) as slow:
            slow.wait_until_open()
            self.assertEqual(slow.counts.open, 20)
            for _ in range(20):
                self.listener.accept()[0].close()
            wait_until("them to come again", lambda: slow.counts.opened == 40)
            self.assertEqual(slow.counts.closed_by_server, 20)
            held = [self.listener.accept()[0] for _ in range(20)]
        self.assertEqual(slow.counts.open, 0)
        for each in held:
            each.settimeout(20)
            while each.recv(1000):
                pass
            each.close()
        self.assertNotIn("slow clients", {thread.name for thread in threading.enumerate()})
