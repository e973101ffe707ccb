"""Clients that are slow on purpose."""

import socket
import unittest

from harness import SlowClients, SlowKind


class Connected(unittest.TestCase):
    def test_twenty_slow_clients_are_connected(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
            address = ("127.0.0.1", server.getsockname()[1])
            with SlowClients(address, kinds=[SlowKind.HEAD, SlowKind.SILENT], number=20) as slow:
                slow.wait_until_open()
                self.assertEqual(slow.counts.open, 20)
