"""The bench of the REST interface accepts only right answers, and measures each server's own processor time."""

import os
import socket
import threading
import time
import unittest
from collections.abc import Callable
from contextlib import closing, suppress
from unittest import mock

from bench.errors import BenchError
from bench.rest import games, pages, readers, reading
from bench.rest.servers import CPU, Server
from bench.rest.wire import Line, opened

ANSWER = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: %d\r\n\r\n%s"


def answer(body: bytes) -> bytes:
    return ANSWER % (len(body), body)


class Stub:
    """Answers each request of each connection with what `say` returns for its path."""

    def __init__(self, reply: Callable[[str], list[bytes]]) -> None:
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, suppress(ConnectionResetError):
            while request := client.recv(4096):
                for piece in self._reply(request.split()[1].decode()):
                    client.sendall(piece)


class WireTest(unittest.TestCase):
    def test_the_length_is_found_in_anybodys_spelling(self) -> None:
        self.assertEqual(opened(b"HTTP/1.1 200 OK\r\ncontent-length:12\r\nx: y\r\n\r\nab"), (b"ab", 12))
        self.assertEqual(opened(answer(b"abc")), (b"abc", 3))

    def test_anything_but_200_with_a_length_is_no_answer(self) -> None:
        for wrong in (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 2",
        ):
            with self.assertRaisesRegex(BenchError, "not 200 with a length"):
                opened(wrong)

    def test_an_answer_that_comes_in_pieces_is_put_together(self) -> None:
        whole = answer(b"x" * 300_000)
        with (
            closing(Stub(lambda _: [whole[:100], whole[100:7000], whole[7000:]])) as stub,
            closing(Line.to(stub.port)) as line,
        ):
            self.assertEqual(line.get("/"), b"x" * 300_000)
            self.assertEqual(len(line.get("/again")), 300_000)

    def test_a_silent_server_is_reported(self) -> None:
        with (
            mock.patch("bench.rest.wire.SILENCE_S", 1),
            closing(Stub(lambda _: [])) as stub,
            closing(Line.to(stub.port)) as line,
            self.assertRaisesRegex(BenchError, "has said nothing for 1 s"),
        ):
            line.get("/")

    def test_a_connection_that_ends_is_reported(self) -> None:
        def end(_: str) -> list[bytes]:
            raise ConnectionResetError

        with (
            closing(Stub(end)) as stub,
            closing(Line.to(stub.port)) as line,
            self.assertRaisesRegex(BenchError, "ended a connection"),
        ):
            line.get("/")


class ReadersTest(unittest.TestCase):
    def test_every_read_is_timed(self) -> None:
        with closing(Stub(lambda path: [answer(b'{"game_id":"%s"}' % path.rpartition("/")[2].encode())])) as stub:
            reading = readers.read(stub.port, clients=3, reads=20, seed=1)

        self.assertEqual(len(reading.each_s), 20)
        self.assertLessEqual(max(reading.each_s), reading.whole_s)

    def test_the_record_of_another_game_is_no_answer(self) -> None:
        with (
            closing(Stub(lambda _: [answer(b'{"game_id":"game-00000"}')])) as stub,
            closing(Line.to(stub.port)) as line,
            self.assertRaisesRegex(BenchError, "asked for game-00001"),
        ):
            client = readers.Client(line)
            client.request("game-00001")
            client.answered()

    def test_readers_that_fail_are_no_figure(self) -> None:
        with (
            mock.patch("bench.rest.readers.sys.executable", "/bin/false"),
            self.assertRaisesRegex(BenchError, "not answered as they should be"),
        ):
            readers.read(1, clients=1, reads=1, seed=1)


class PagesTest(unittest.TestCase):
    def test_the_cursor_is_at_the_end(self) -> None:
        self.assertEqual(pages.next_cursor(b'{"items":[{"next_cursor":"no"}],"next_cursor":"Zw"}'), "Zw")
        self.assertIsNone(pages.next_cursor(b'{"items":[],"next_cursor":null}'))
        with self.assertRaisesRegex(BenchError, "without a cursor"):
            pages.next_cursor(b'{"items":[]}')

    def test_a_list_is_gone_through_to_its_end(self) -> None:
        half = games.GAMES // 2
        with closing(Stub(lambda path: [answer(page("cursor=Zw" in path, half))])) as stub:
            self.assertGreater(pages.go_through(stub.port, half), 0)

    def test_a_game_that_is_missing_or_comes_twice_is_reported(self) -> None:
        ids = games.ids()
        for wrong in (ids[1:], [*ids, ids[0]], [ids[1], ids[0], *ids[2:]]):
            with self.assertRaisesRegex(BenchError, "in order"):
                pages.check(["".join(f'"game_id":"{each}"' for each in wrong).encode()])


class ServersTest(unittest.TestCase):
    def test_a_server_is_charged_with_what_it_worked_meanwhile(self) -> None:
        def work() -> dict[str, float]:
            until = time.process_time() + 0.1
            while time.process_time() < until:
                pass
            return {"the whole": 1.0}

        sample = Server("this process", 0, os.getpid()).loaded(work)

        self.assertEqual(sample["the whole"], 1.0)
        self.assertAlmostEqual(sample[CPU], 0.1, delta=0.06)

    def test_servers_that_differ_are_not_compared(self) -> None:
        servers = [Server("ours", 1, 0), Server("theirs", 2, 0)]
        with mock.patch("bench.rest.pages.content", side_effect=lambda port, path: {"next_cursor": "Zw"}):
            reading.check_that_they_agree(servers)
        with (
            mock.patch("bench.rest.pages.content", side_effect=lambda port, path: {"next_cursor": "Zw", "said": port}),
            self.assertRaisesRegex(BenchError, "the servers differ in .*/game-04711: .*said.: 1.* and .*said.: 2"),
        ):
            reading.check_that_they_agree(servers)


def page(last: bool, size: int) -> bytes:
    """One half of the list."""
    ids = games.ids()[size:] if last else games.ids()[:size]
    items = ",".join(f'{{"game_id":"{each}"}}' for each in ids)
    return f'{{"items":[{items}],"next_cursor":{"null" if last else chr(34) + "Zw" + chr(34)}}}'.encode()
