"""The fault proxy, in front of the test's own server, on TCP and on unix sockets.

"Nothing passes" is checked without waiting. Bytes of a client are in the proxy's socket when the client's call returns.
A proxy that has polled its sockets since then has forwarded them, or holds them.
"""

import errno
import hashlib
import os
import random
import socket
import tempfile
import threading
import time
import unittest
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from unittest import mock

from harness.errors import HarnessError
from harness.fixtures import faults, listening, stateroot
from harness.fixtures.faults import Proxy
from harness.fixtures.faults.dialling import Dial
from harness.runs import identity
from harness.waiting import wait_until

TIMEOUT_S = 20.0

#: More than all sockets between both ends hold together.
MUCH = random.Random(1).randbytes(24 << 20)

#: A part of it; ten of them are less than the whole.
STEP = 1 << 20


class Faults:
    """The tests; subclasses define where the server is."""

    class Test(unittest.TestCase):
        proxy: Proxy

        def setUp(self) -> None:
            self.lines: list[socket.socket] = []
            self.listener = self.listen()
            self.addCleanup(lambda: self.listener.close())
            self.proxy = self.before_server()
            self.addCleanup(self.proxy.close)

        @abstractmethod
        def listen(self) -> socket.socket:
            """The server's socket, at the same address each time."""

        @abstractmethod
        def before_server(self) -> Proxy:
            """A proxy in front of the server."""

        @abstractmethod
        def connect(self) -> socket.socket:
            """A client of the proxy."""

        def accept(self) -> socket.socket:
            """The server's side of the next connection."""
            self.listener.settimeout(TIMEOUT_S)
            line, _ = self.listener.accept()
            return self._kept(line)

        def pair(self) -> tuple[socket.socket, socket.socket]:
            client = self.connect()
            return client, self.accept()

        def _kept(self, line: socket.socket) -> socket.socket:
            self.addCleanup(line.close)
            self.lines.append(line)
            line.settimeout(TIMEOUT_S)
            return line

        def _connect(self, family: int, address: object) -> socket.socket:
            line = self._kept(socket.socket(family))
            line.connect(address)  # type: ignore[arg-type]  # of either kind
            return line

        def assert_receives(self, line: socket.socket, expected: bytes) -> None:
            self.assertEqual(read(line, len(expected)), expected)

        def assert_receives_nothing(self, *lines: socket.socket) -> None:
            self.let_proxy_poll()
            for line in lines:
                line.setblocking(False)
                with self.assertRaises(BlockingIOError):
                    line.recv(1)
                line.settimeout(TIMEOUT_S)

        def assert_ended(self, *lines: socket.socket) -> None:
            for line in lines:
                self.assertEqual(line.recv(1), b"")

        def let_proxy_poll(self) -> None:
            """Call `connections` twice: between the two calls the proxy polls every socket."""
            self.assertGreaterEqual(self.proxy.connections + self.proxy.connections, 0)

        def wait_for_connections(self, count: int) -> None:
            wait_until(f"{count} connections", lambda: self.proxy.connections == count)

        # No fault

        def test_what_is_sent_is_received_on_the_other_side(self) -> None:
            client, server = self.pair()
            client.sendall(b"ask")
            self.assert_receives(server, b"ask")
            server.sendall(b"answer")
            self.assert_receives(client, b"answer")

        def test_connections_are_counted_until_both_sides_have_ended_them(self) -> None:
            self.assertEqual(self.proxy.connections, 0)
            (client, server), _ = self.pair(), self.connect()
            self.assertEqual(self.proxy.connections, 2)
            client.close()
            self.assert_ended(server)
            self.assertEqual(self.proxy.connections, 2)
            server.close()
            self.wait_for_connections(1)

        def test_a_half_close_leaves_the_other_direction_open(self) -> None:
            for closes_first in (0, 1):
                with self.subTest(closes_first=closes_first):
                    lines = self.pair()
                    first, second = lines[closes_first], lines[1 - closes_first]
                    first.sendall(b"all")
                    first.shutdown(socket.SHUT_WR)
                    self.assertEqual(read_all(second), b"all")
                    second.sendall(b"still")
                    self.assert_receives(first, b"still")
                    second.close()
                    self.assert_ended(first)
            self.wait_for_connections(0)

        def test_much_passes_whole_and_in_order(self) -> None:
            self.assert_transfers()

        def test_a_last_answer_arrives_though_the_client_goes_on_sending(self) -> None:
            client, server = self.pair()
            server.sendall(b"no more")
            server.close()
            self.assert_receives(client, b"no more")
            self.assert_ended(client)

            def send_fails() -> bool:
                try:
                    client.sendall(b"and another thing")
                except OSError:
                    return True
                return False

            wait_until("an error for a client that goes on sending", send_fails)
            self.wait_for_connections(0)

        def test_a_client_that_does_not_read_makes_the_server_wait(self) -> None:
            client, server = self.pair()
            sent = fill(server, self.let_proxy_poll)
            self.assertLess(sent, len(MUCH))
            self.assertEqual(digest(read(client, sent)), digest(MUCH[:sent]))

        def test_a_server_that_is_away_ends_the_connection_at_once(self) -> None:
            self.listener.close()
            self.assert_ended(self.connect())
            self.assertEqual(self.proxy.connections, 0)
            self.listener = self.listen()
            self.test_what_is_sent_is_received_on_the_other_side()

        def test_a_server_that_is_slow_to_accept_gets_all_clients(self) -> None:
            self.listener.listen(0)
            clients = [self.connect() for _ in range(5)]
            for number, client in enumerate(clients):
                client.sendall(bytes([number]))
            received = [read(self.accept(), 1)[0] for _ in clients]
            self.assertEqual(sorted(received), [0, 1, 2, 3, 4])

        # Faults

        def test_a_cut_ends_what_is_there_on_both_sides_and_nothing_new(self) -> None:
            client, server = self.pair()
            client.sendall(b"unread")
            self.proxy.black_hole()
            client.sendall(b"unread, too")
            waiting = self.connect()
            self.proxy.cut()
            self.assert_ended(client, waiting)
            self.assertEqual(read_all(server)[6:], b"")
            self.assertEqual(self.proxy.connections, 0)
            self.test_what_is_sent_is_received_on_the_other_side()

        def test_refused_clients_are_refused_until_it_passes_on_at_the_same_place(self) -> None:
            client, server = self.pair()
            for _ in range(3):
                self.proxy.refuse()
                with self.assertRaises(ConnectionRefusedError):
                    self.connect()
                self.assertEqual(self.proxy.connections, 0)
                self.proxy.refuse()
                self.proxy.pass_on()
                self.test_what_is_sent_is_received_on_the_other_side()
            self.assert_ended(client, server)

        def test_every_other_fault_lets_clients_connect_again(self) -> None:
            for fault in self.faults():
                self.proxy.refuse()
                fault()
                if fault != self.proxy.refuse:
                    self.connect()
                    self.assertEqual(self.proxy.connections, 1)

        def test_a_black_hole_keeps_connections_and_bytes_but_lets_nothing_pass(self) -> None:
            client, server = self.pair()
            self.proxy.black_hole()
            client.sendall(b"ask")
            server.sendall(b"answer")
            new = self.connect()
            new.sendall(b"new")
            new.shutdown(socket.SHUT_WR)
            self.assert_receives_nothing(client, server, new)
            self.listener.setblocking(False)
            with self.assertRaises(BlockingIOError):
                self.listener.accept()
            self.assertEqual(self.proxy.connections, 2)
            self.proxy.pass_on()
            self.assert_receives(server, b"ask")
            self.assert_receives(client, b"answer")
            self.assertEqual(read_all(self.accept()), b"new")

        def test_in_a_black_hole_no_end_is_seen(self) -> None:
            client, server = self.pair()
            self.proxy.black_hole()
            server.close()
            self.assert_receives_nothing(client)
            self.assertEqual(self.proxy.connections, 1)
            self.proxy.pass_on()
            self.assert_ended(client)

        def test_in_a_black_hole_not_even_an_absent_server_is_noticed(self) -> None:
            self.listener.close()
            self.proxy.black_hole()
            client = self.connect()
            self.assert_receives_nothing(client)
            self.proxy.pass_on()
            self.assert_ended(client)

        def test_half_open_clients_send_and_receive_nothing(self) -> None:
            (client, server), (quiet, quiet_server) = self.pair(), self.pair()
            self.proxy.half_open()
            client.sendall(b"ask")
            self.assert_receives(server, b"ask")
            server.sendall(b"answer")
            self.assert_receives_nothing(client)
            server.sendall(b"end")
            server.close()
            client.sendall(b"is anybody there?")
            self.assert_receives_nothing(client)
            client.sendall(b"really not?")
            self.assert_receives_nothing(client)
            self.proxy.black_hole()
            self.assert_receives_nothing(client)
            self.proxy.pass_on()
            self.assertEqual(read_all(client), b"")
            self.assertEqual(self.proxy.connections, 1)
            quiet_server.sendall(b"nothing lost")
            self.assert_receives(quiet, b"nothing lost")

        def test_half_open_loses_answers_under_way(self) -> None:
            client, server = self.pair()
            self.proxy.delay(3600)
            server.sendall(b"answer")
            client.sendall(b"ask")
            self.let_proxy_poll()
            self.proxy.half_open()
            self.assert_receives(server, b"ask")
            self.assert_receives_nothing(client)
            client.close()
            server.close()
            self.wait_for_connections(0)

        def test_delayed_bytes_come_later_and_in_order(self) -> None:
            self.proxy.delay(0.05)
            client, server = self.pair()
            began = time.monotonic()
            client.sendall(b"1")
            self.let_proxy_poll()
            client.sendall(b"2")
            self.assert_receives(server, b"12")
            self.assertGreaterEqual(time.monotonic() - began, 0.05)
            server.sendall(b"3")
            server.close()
            self.assertEqual(read_all(client), b"3")
            self.assertGreaterEqual(time.monotonic() - began, 0.1)

        def test_a_delay_does_not_make_the_sender_wait(self) -> None:
            client, server = self.pair()
            self.proxy.delay(3600)
            client.sendall(MUCH)
            client.shutdown(socket.SHUT_WR)
            self.assert_receives_nothing(server)
            self.proxy.pass_on()
            self.assertEqual(digest(read_all(server)), digest(MUCH))

        def test_slow_bytes_take_their_time(self) -> None:
            self.proxy.slow(100_000)
            client, server = self.pair()
            began = time.monotonic()
            client.sendall(MUCH[:20_000])
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(read_all(server), MUCH[:20_000])
            self.assertGreaterEqual(time.monotonic() - began, 0.17)

        def test_slow_bytes_make_the_sender_wait_and_are_not_lost(self) -> None:
            client, server = self.pair()
            self.proxy.slow(1)
            sent = fill(client, self.let_proxy_poll)
            self.assertLess(sent, len(MUCH))
            self.proxy.pass_on()
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(digest(read_all(server)), digest(MUCH[:sent]))

        def test_a_held_request_waits_with_what_comes_after_it_and_nothing_else_does(self) -> None:
            (client, server), (other, elsewhere) = self.pair(), self.pair()
            first, second = self.proxy.hold("/stop", "/start")
            for line in (client, other):
                line.sendall(b"GET /list ")
            self.assert_receives(server, b"GET /list ")
            client.sendall(b"POST /start ")
            self.assertTrue(second.arrived.wait(TIMEOUT_S))
            client.sendall(b"GET /later")
            client.shutdown(socket.SHUT_WR)
            server.sendall(b"answer")
            self.assert_receives(client, b"answer")
            self.assert_receives_nothing(server)
            self.assert_receives(elsewhere, b"GET /list ")
            first.release()
            self.assert_receives_nothing(server)
            self.assertFalse(first.arrived.is_set())
            second.release()
            self.assertEqual(read_all(server), b"POST /start GET /later")
            other.sendall(b"POST /start")
            self.assert_receives(elsewhere, b"POST /start")

        def test_a_held_request_never_arrives_once_its_connection_was_ended(self) -> None:
            client, server = self.pair()
            [held] = self.proxy.hold("ask")
            client.sendall(b"ask")
            self.assertTrue(held.arrived.wait(TIMEOUT_S))
            self.proxy.refuse()
            self.assert_ended(client, server)
            self.proxy.pass_on()
            client, server = self.pair()
            client.sendall(b"ask")
            self.assert_receives(server, b"ask")

        def test_the_next_fault_lets_held_requests_go(self) -> None:
            client, server = self.pair()
            [held] = self.proxy.hold("ask")
            client.sendall(b"ask")
            self.assertTrue(held.arrived.wait(TIMEOUT_S))
            self.proxy.pass_on()
            self.assert_receives(server, b"ask")

        def test_what_makes_no_sense_is_refused(self) -> None:
            with self.assertRaisesRegex(HarnessError, "-1"):
                self.proxy.delay(-1)
            with self.assertRaisesRegex(HarnessError, "black_hole"):
                self.proxy.slow(0)

        # Changes

        def test_a_transfer_survives_every_fault_that_loses_nothing(self) -> None:
            self.assert_transfers(
                lambda: self.proxy.delay(0.02),
                self.proxy.black_hole,
                lambda: self.proxy.slow(4_000_000),
                lambda: self.proxy.delay(0),
                self.proxy.black_hole,
                lambda: self.proxy.delay(0.01),
                lambda: self.proxy.slow(1e9),
            )

        def assert_transfers(self, *changes: Callable[[], None]) -> None:
            """Transfer MUCH in both directions at the same time while the changes are applied one after another."""
            lines = self.pair()
            received = [bytearray(), bytearray()]
            with ThreadPoolExecutor(2) as pool:
                jobs = [pool.submit(send_all, each, MUCH) for each in lines]
                for change in changes:
                    change()
                    if change == self.proxy.black_hole:
                        self.let_proxy_poll()
                        continue
                    for line, into in zip(lines, received, strict=True):
                        into += read(line, STEP)
                self.proxy.pass_on()
                for line, into in zip(lines, received, strict=True):
                    read_into(line, into)
                for job in jobs:
                    job.result(TIMEOUT_S)
            self.assertEqual([digest(each) for each in received], [digest(MUCH)] * 2)
            self.wait_for_connections(0)

        def test_any_thread_may_change_the_fault_at_any_time(self) -> None:
            def change(seed: int) -> None:
                choice = random.Random(seed)
                for _ in range(60):
                    choice.choice(self.faults())()
                    with suppress(OSError), self.connect() as client:
                        client.sendall(b"hello")

            self.listener.listen(1000)
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(change, range(4)))
            self.proxy.cut()
            self.assertEqual(self.proxy.connections, 0)
            self.listener.close()
            self.listener = self.listen()
            self.test_what_is_sent_is_received_on_the_other_side()

        # The end

        def faults(self) -> list[Callable[[], object]]:
            proxy = self.proxy
            return [
                proxy.pass_on,
                proxy.cut,
                lambda: proxy.cut(reset=True),
                proxy.refuse,
                proxy.black_hole,
                proxy.half_open,
                lambda: proxy.delay(3600),
                lambda: proxy.slow(1),
                lambda: proxy.hold("hello"),
            ]

        def test_closed_under_any_fault_it_leaves_nothing(self) -> None:
            self.proxy.close()
            before = left()
            for number in range(len(self.faults())):
                with self.subTest(fault=number), self.before_server() as self.proxy:
                    client, server = self.pair()
                    self.faults()[number]()
                    with suppress(OSError):  # it may have ended
                        client.sendall(bytes(100_000))
                        server.sendall(bytes(100_000))
                    with suppress(ConnectionRefusedError):
                        self.connect().sendall(b"new")
                    self.proxy.close()
                    with self.assertRaises((ConnectionRefusedError, FileNotFoundError)):
                        self.connect()
                for line in self.lines:
                    line.close()
                self.assertEqual(left(), before)

        def test_a_closed_proxy_says_so_and_may_be_closed_again(self) -> None:
            self.proxy.close()
            self.proxy.close()
            with self.assertRaisesRegex(HarnessError, "closed"):
                self.proxy.pass_on()
            with self.assertRaisesRegex(HarnessError, "closed"):
                self.let_proxy_poll()


class TcpTest(Faults.Test):
    proxy: faults.TcpProxy
    port = 0

    def listen(self) -> socket.socket:
        self.port = self.port or listening.free_port()  # the port stays reserved while nothing listens
        return socket.create_server(("127.0.0.1", self.port))

    def before_server(self) -> Proxy:
        return faults.before(("127.0.0.1", self.port))

    def connect(self) -> socket.socket:
        return self._connect(socket.AF_INET, self.proxy.address)

    def test_it_says_where_it_is(self) -> None:
        self.assertEqual(self.proxy.address, (self.proxy.host, self.proxy.port))
        self.assertEqual(self.proxy.url, f"tcp://127.0.0.1:{self.proxy.port}")

    def test_a_name_with_several_addresses_is_tried_at_each(self) -> None:
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", deaf.getsockname()[1]))]
            found += [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self.port))]
            with mock.patch("socket.getaddrinfo", return_value=found):
                proxy = faults.before(("server.example", self.port))
            with proxy as self.proxy:
                self.test_what_is_sent_is_received_on_the_other_side()

    def test_led_to_another_server_it_is_for_new_connections_and_the_others_stay(self) -> None:
        client, server = self.pair()
        self.addCleanup(self.listener.close)
        with socket.create_server(("127.0.0.1", 0)) as self.listener:
            self.proxy.lead_to(self.listener.getsockname()[:2])
            newcomer, other = self.pair()
            newcomer.sendall(b"who is it")
            self.assert_receives(other, b"who is it")
            client.sendall(b"still you")
            self.assert_receives(server, b"still you")
            self.proxy.cut()
            self.assert_ended(client, newcomer)

    def test_a_line_that_the_system_connects_to_itself_is_no_server(self) -> None:
        target = (socket.AF_INET, ("127.0.0.1", listening.free_port()))
        dial = Dial([target])
        self.addCleanup(dial.line.close)
        dial.line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as for a server on a reserved port
        dial.line.bind(target[1])
        with self.assertRaises(ConnectionError):
            while not dial.go_on(0.0):
                self.assertTrue(dial.is_under_way)

    def test_a_cut_by_reset_is_one_for_both_sides(self) -> None:
        lines = self.pair()
        self.proxy.cut(reset=True)
        for line in lines:
            with self.assertRaises(ConnectionResetError):
                line.recv(1)

    def test_a_reset_is_passed_on_after_what_came_before_it(self) -> None:
        client, server = self.pair()
        self.proxy.delay(0.02)
        client.sendall(b"last words")
        self.let_proxy_poll()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        self.assert_receives(server, b"last words")
        with self.assertRaises(ConnectionResetError):
            server.recv(1)
        self.wait_for_connections(0)

    def test_nobody_else_can_have_the_port_while_clients_are_refused(self) -> None:
        self.proxy.refuse()
        with socket.socket() as other, self.assertRaises(OSError) as raised:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(self.proxy.address)
        self.assertEqual(raised.exception.errno, errno.EADDRINUSE)

    def test_a_client_of_a_lost_answer_gets_a_reset_and_no_orderly_end(self) -> None:
        client, server = self.pair()
        self.proxy.half_open()
        server.sendall(b"lost")
        self.let_proxy_poll()
        self.proxy.pass_on()
        with self.assertRaises(ConnectionResetError):
            client.recv(1)


class UnixTest(Faults.Test):
    proxy: faults.UnixProxy

    def setUp(self) -> None:
        self.path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "server.sock"
        super().setUp()

    def listen(self) -> socket.socket:
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        return listener

    def before_server(self) -> Proxy:
        return faults.before(self.path)

    def connect(self) -> socket.socket:
        return self._connect(socket.AF_UNIX, self.proxy.address)

    def test_it_says_where_it_is(self) -> None:
        self.assertEqual(self.proxy.address, str(self.proxy.path))
        self.assertEqual(self.proxy.url, f"unix://{self.proxy.path}")
        self.assertEqual(self.proxy.path.name, "server.sock")

    def test_nobody_else_may_enter_its_directory(self) -> None:
        self.assertEqual(self.proxy.path.parent.stat().st_mode & 0o777, 0o700)

    def test_a_cut_by_reset_is_an_end_for_who_was_heard(self) -> None:
        lines = self.pair()
        self.proxy.cut(reset=True)
        self.assert_ended(*lines)

    def test_a_path_that_no_socket_can_have_is_reported_at_once(self) -> None:
        before = left()
        with self.assertRaisesRegex(HarnessError, "too long"):
            faults.before("/" + "long" * 30)
        with self.assertRaisesRegex(HarnessError, "too long"):
            faults.before("/" + "long" * 25)
        self.assertEqual(left(), before)


def read(line: socket.socket, count: int) -> bytes:
    """Read `count` bytes, or fewer where the stream ends before."""
    received = bytearray()
    while len(received) < count and (data := line.recv(count - len(received))):
        received += data
    return bytes(received)


def read_all(line: socket.socket) -> bytes:
    """Read until the stream ends, orderly or not."""
    received = bytearray()
    with suppress(ConnectionResetError):
        read_into(line, received)
    return bytes(received)


def read_into(line: socket.socket, received: bytearray) -> None:
    while data := line.recv(1 << 16):
        received += data


def send_all(line: socket.socket, data: bytes) -> None:
    line.sendall(data)
    line.shutdown(socket.SHUT_WR)


def fill(line: socket.socket, let_proxy_poll: Callable[[], None]) -> int:
    """Send as much of MUCH as the sockets take without a reader; returns the number of bytes."""
    sent, line_was_full = 0, False
    line.setblocking(False)
    while sent < len(MUCH):
        try:
            sent += line.send(MUCH[sent : sent + (1 << 16)])
            line_was_full = False
        except BlockingIOError:
            if line_was_full:
                break
            line_was_full = True
            let_proxy_poll()
    line.settimeout(TIMEOUT_S)
    return sent


def digest(data: bytes | bytearray) -> str:
    """Length and hash, since a difference of megabytes is unreadable."""
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


def left() -> tuple[int, int, list[Path]]:
    """This process's threads, descriptors and directories."""
    directories = [each for each in stateroot.directories() if stateroot.owner(each) == identity.current()]
    return threading.active_count(), len(os.listdir("/proc/self/fd")), directories
