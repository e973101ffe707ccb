"""Requests are read the same however they are split, and invalid ones are refused at once."""

from __future__ import annotations

import random
import unittest

from rtmanager.http.limits import HttpLimits
from rtmanager.http.messages import HttpError, Request
from rtmanager.http.request_reader import RequestReader

LIMITS = HttpLimits()
POST = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
#: A second request that must never be parsed when the first is rejected.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

#: Invalid chunked bodies. Most are in the test vectors of llhttp and h11, or in reports of request smuggling.
BAD_CHUNKS = (
    b"5\nabcde\n0\n\n",
    b"5\nabcde\r\n0\r\n\r\n",
    b"5\r\nabcde\n0\r\n\r\n",
    b"5\r\nabcde\r0\r\n\r\n",
    b"5\r\nabcde0\r\n\r\n",
    b"5\r\nabcdefg\r\n0\r\n\r\n",
    b"5\rabcde\r\n0\r\n\r\n",
    b"5;a\rb\r\nabcde\r\n0\r\n\r\n",
    b"5;a\nb\r\nabcde\r\n0\r\n\r\n",
    b"5;\x00\r\nabcde\r\n0\r\n\r\n",
    b"5;\r\nabcde\r\n0\r\n\r\n",
    b"5;=b\r\nabcde\r\n0\r\n\r\n",
    b"5;a=\r\nabcde\r\n0\r\n\r\n",
    b'5;a="b\r\nabcde\r\n0\r\n\r\n',
    b'5;a="b"c\r\nabcde\r\n0\r\n\r\n',
    b"5; a=b\r\nabcde\r\n0\r\n\r\n",
    b"5 \r\nabcde\r\n0\r\n\r\n",
    b" 5\r\nabcde\r\n0\r\n\r\n",
    b"5\t\r\nabcde\r\n0\r\n\r\n",
    b"+5\r\nabcde\r\n0\r\n\r\n",
    b"-5\r\nabcde\r\n0\r\n\r\n",
    b"0x5\r\nabcde\r\n0\r\n\r\n",
    b"5_0\r\nabcde\r\n0\r\n\r\n",
    b"5.0\r\nabcde\r\n0\r\n\r\n",
    b"g\r\nabcde\r\n0\r\n\r\n",
    b"\xb2\r\nabcde\r\n0\r\n\r\n",
    b"\r\nabcde\r\n0\r\n\r\n",
    b";a=b\r\nabcde\r\n0\r\n\r\n",
    b"10000000000000005\r\nabcde\r\n0\r\n\r\n",
    b"00000000000000005\r\nabcde\r\n0\r\n\r\n",
    b"0\n\n",
    b"0\r\n\n",
    b"0\r\n\rX",
    b"0\n\r\n",
    b"0\r\nnonsense\r\n\r\n",
    b"0\r\n: v\r\n\r\n",
    b"0\r\na b: v\r\n\r\n",
    b"0\r\na : v\r\n\r\n",
    b"0\r\n a: v\r\n\r\n",
    b"0\r\na: b\r\n folded\r\n\r\n",
    b"0\r\na: b\nc: d\r\n\r\n",
    b"0\r\na: b\rc: d\r\n\r\n",
    b"0\r\na: \x00\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
    b"0\r\ntransfer-encoding: chunked\r\n\r\n",
    b"0\r\nHost: y\r\n\r\n",
    b"0\r\nX-Galaxy-Caller: gm\r\n\r\n",
    b"0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    b"5\r\nabcde\r\n0\r\nX",
)

GOOD_CHUNKS = (
    (b"0\r\n\r\n", b""),
    (b"000\r\n\r\n", b""),
    (b"5\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    (b"0000000000000005\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    (b'1;a;b=c;d="e\\" ;f"\r\nx\r\n0;z\r\n\r\n', b"x"),
    (b"1\r\nx\r\n0\r\nX-Sum: a\r\nX-Empty:\r\n\r\n", b"x"),
)


def read(*pieces: bytes) -> list[Request]:
    """All complete requests; raises `HttpError`."""
    reader, found = RequestReader(LIMITS), []
    for piece in pieces:
        reader.feed(piece)
        while (request := reader.next()) is not None:
            found.append(request[0])
    return found


def cut(data: bytes, chooser: random.Random) -> list[bytes]:
    """Cut the data into pieces of random sizes."""
    places = sorted(chooser.choices(range(len(data) + 1), k=chooser.randrange(1, 12)))
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]


class ReadingTest(unittest.TestCase):
    def test_good_chunks_are_put_together_and_the_next_request_is_found(self) -> None:
        for chunks, body in GOOD_CHUNKS:
            with self.subTest(chunks=chunks):
                first, second = read(CHUNKED + chunks + SMUGGLED)
                self.assertEqual((first.body, second.path), (body, "/smuggled"))

    def test_an_empty_line_behind_a_request_begins_no_other(self) -> None:
        for line_end, begun in ((b"\r\n", False), (b"\r\nG", True), (b"\r", True)):
            reader = RequestReader(LIMITS)
            reader.feed(POST + b"Content-Length: 1\r\n\r\na" + line_end)
            self.assertIsNotNone(reader.next())
            self.assertEqual(reader.begun, begun)

    def test_bad_chunks_are_refused_at_once_and_hide_no_request(self) -> None:
        for chunks in BAD_CHUNKS:
            with self.subTest(chunks=chunks):
                reader = RequestReader(LIMITS)
                reader.feed(CHUNKED + chunks + SMUGGLED)
                with self.assertRaises(HttpError) as caught:
                    reader.next()
                self.assertEqual(caught.exception.status, 400)

    def test_a_bad_chunk_is_refused_before_its_line_has_come_whole(self) -> None:
        for begun in (
            b"x",
            b"5 ",
            b"+",
            b"5\n",
            b"5\rX",
            b"5;a\n",
            b"5\r\nabcdeX",
            b"5\r\nabcde\n",
            b"0\r\n ",
            b"0\r\na b",
        ):
            with self.subTest(begun=begun), self.assertRaises(HttpError):
                read(CHUNKED + begun)

    def test_a_bad_head_is_refused_before_it_has_come_whole(self) -> None:
        for begun in (
            b"\n",
            b"\rG",
            b"GET /\n",
            b"GET / HTTP/1.1\rX",
            b"GET / HTTP/1.1\r\na: \x00",
            b"\x16",
            b"SSH-2.0-x\r\n",
        ):
            with self.subTest(begun=begun), self.assertRaises(HttpError):
                read(begun)

    def test_sizes_beyond_the_limits_are_refused_before_they_are_sent(self) -> None:
        for data, status in (
            (CHUNKED + b"10001\r\n", 413),
            (CHUNKED + b"FFFFFFFFFFFFFFFF\r\n", 413),
            (CHUNKED + b"8000\r\n" + b"x" * 0x8000 + b"\r\n8001\r\n", 413),
            (CHUNKED + b"1;a=" + b"x" * 300, 400),
            (CHUNKED + b"0\r\n" + b"a: b\r\n" * 101, 431),
            (CHUNKED + b"0\r\na: " + b"x" * 5000, 400),
            (POST + b"Content-Length: 65537\r\n\r\n", 413),
            (b"GET /" + b"x" * 20_000, 431),
        ):
            with self.subTest(data=data[-40:]), self.assertRaises(HttpError) as caught:
                read(data)
            self.assertEqual(caught.exception.status, status)

    def test_requests_are_read_alike_however_they_are_cut(self) -> None:
        chooser = random.Random(9112)
        streams = [
            POST + b"Content-Length: 5\r\n\r\nabcde" + SMUGGLED,
            b"\r\n\r\n" + SMUGGLED * 3,
            *(CHUNKED + chunks + SMUGGLED for chunks, _ in GOOD_CHUNKS),
        ]
        for stream in streams:
            whole = read(stream)
            self.assertEqual(read(*(stream[at : at + 1] for at in range(len(stream)))), whole)
            for _ in range(50):
                self.assertEqual(read(*cut(stream, chooser)), whole)

    def test_bad_requests_are_refused_however_they_are_cut(self) -> None:
        chooser = random.Random(7230)
        for chunks in BAD_CHUNKS:
            stream = CHUNKED + chunks + SMUGGLED
            for pieces in (
                [stream[at : at + 1] for at in range(len(stream))],
                *(cut(stream, chooser) for _ in range(20)),
            ):
                with self.subTest(chunks=chunks, pieces=pieces), self.assertRaises(HttpError):
                    read(*pieces)

    def test_any_bytes_are_a_request_or_refused_and_never_a_defect(self) -> None:
        chooser = random.Random(1)
        alphabet = [b"\r\n", b"\n", b"\r", b":", b" ", b"0", b"5", b"chunked", b"a", b"\x00", b"\xff", b";", b'"', b"/"]
        for _ in range(3000):
            parts = [POST, b"Transfer-Encoding: ", b"Content-Length: ", *chooser.choices(alphabet, k=12)]
            chooser.shuffle(parts)
            try:
                read(*parts)
            except HttpError as refusal:
                self.assertIn(refusal.status, (400, 413, 431, 501, 505))

    def test_a_client_that_waits_for_100_continue_gets_it_once(self) -> None:
        reader = RequestReader(LIMITS)
        reader.feed(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        self.assertIsNone(reader.next())
        self.assertTrue(reader.takes_continue())
        self.assertFalse(reader.takes_continue())
        reader.feed(b"ok")
        found = reader.next()
        assert found is not None
        self.assertEqual(found[0].body, b"ok")
        for head in (
            b"Content-Length: 0\r\nExpect: 100-continue\r\n\r\n",
            b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\no",
        ):
            reader.feed(POST + head)
            reader.next()
            self.assertFalse(reader.takes_continue())
            reader = RequestReader(LIMITS)


class CostlyTest(unittest.TestCase):
    """Input that is cheap to send and costly to parse is rejected before it adds up."""

    def test_any_number_of_empty_lines_before_a_request(self) -> None:
        reader = RequestReader(LIMITS)
        reader.feed(b"\r\n" * 4 + b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIsNotNone(reader.next())
        reader.feed(b"\r\n" * 5)
        with self.assertRaisesRegex(HttpError, "empty lines"):
            reader.next()

    def test_a_body_in_very_many_chunks(self) -> None:
        for chunks, refused in ((200, False), (300, True)):
            reader = RequestReader(LIMITS)
            reader.feed(CHUNKED + b"1\r\na\r\n" * chunks + b"0\r\n\r\n")
            with self.subTest(chunks):
                if refused:
                    with self.assertRaisesRegex(HttpError, "chunks"):
                        reader.next()
                else:
                    self.assertIsNotNone(reader.next())
