"""Names are resolved concurrently; one that hangs blocks only its own thread."""

from __future__ import annotations

import asyncio
import socket
import threading
import unittest
from unittest import mock

from rtmanager.adapters.resolver import Lookup, Resolver
from rtmanager.tests.operating import PATIENCE_S, wait_until

FOUND = (socket.AF_INET, ("10.0.0.1", 8080))


class NamesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.gate = threading.Event()
        self.resolved: list[str] = []
        resolver = mock.patch.object(socket, "getaddrinfo", self.resolve)
        resolver.start()
        self.addCleanup(resolver.stop)
        self.names = Resolver(2)
        self.addCleanup(self.names.close)
        self.addCleanup(self.gate.set)

    def resolve(self, host: str, port: int, **_: object) -> list[object]:
        self.resolved.append(host)
        if host.startswith("stuck"):
            self.gate.wait(PATIENCE_S)
        if "\x00" in host:
            raise ValueError("embedded null character")
        if host == "unknown":
            raise socket.gaierror(-2, "Name or service not known")
        return [(FOUND[0], socket.SOCK_STREAM, 6, "", FOUND[1])]

    def look_up(self, *hosts: str) -> list[Lookup]:
        loop = asyncio.get_running_loop()
        return [self.names.look_up(loop, host, 8080) for host in hosts]

    def test_a_name_is_found_or_its_error_is(self) -> None:
        async def run() -> None:
            known, unknown = self.look_up("known", "unknown")
            self.assertEqual(await known.found, [FOUND])
            with self.assertRaises(socket.gaierror):
                await unknown.found

        asyncio.run(run())

    def test_a_name_that_cannot_be_one_costs_no_thread(self) -> None:
        async def run() -> None:
            for _ in range(3):
                for lookup in self.look_up("a\x00b", "a\x00c"):
                    with self.assertRaisesRegex(OSError, "cannot be resolved"):
                        await asyncio.wait_for(lookup.found, PATIENCE_S)
            (known,) = self.look_up("known")
            self.assertEqual(await known.found, [FOUND])

        asyncio.run(run())

    def test_one_whose_turn_never_came_is_distinguished_from_one_that_is_slow_and_is_not_probed_later(self) -> None:
        async def run() -> None:
            first, second, third = self.look_up("stuck-1", "stuck-2", "waiting")
            self.assertTrue(await first.has_begun_within(PATIENCE_S))
            self.assertTrue(await second.has_begun_within(PATIENCE_S))
            self.assertFalse(await third.has_begun_within(0.01))
            self.gate.set()
            (last,) = self.look_up("last")
            self.assertEqual(await last.found, [FOUND])

        asyncio.run(run())
        self.assertNotIn("waiting", self.resolved)

    def test_threads_are_kept_are_daemons_and_end_with_a_close(self) -> None:
        async def run() -> None:
            for _ in range(5):
                (lookup,) = self.look_up("known")
                await lookup.found
                wait_until(lambda: self.names._idle._value > 0)

        def threads() -> list[threading.Thread]:
            return [thread for thread in threading.enumerate() if thread.name == "rtm-probe-names"]

        before = set(threads())
        asyncio.run(run())
        (thread,) = set(threads()) - before
        self.assertTrue(thread.daemon)
        self.names.close()
        thread.join(PATIENCE_S)
        self.assertFalse(thread.is_alive())
