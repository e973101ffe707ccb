"""The server withstands every kind of client: slow, disconnecting, too large, contradictory, too many."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import select
import socket
import threading
import time
import unittest
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPConnection, HTTPMessage, parse_headers
from typing import Any, NamedTuple
from unittest import mock

from rtmanager.config.parsers import Address
from rtmanager.domain.errors import ErrorCode
from rtmanager.http.limits import HttpLimits, LaneLimits
from rtmanager.http.listener import listen
from rtmanager.http.messages import Request, Response, failure, success
from rtmanager.http.request_reader import RequestReader
from rtmanager.http.server import HttpServer

#: Limit in seconds for every wait, on a busy machine; only a failing test waits so long.
PATIENCE_S = 20.0
LIMITS = HttpLimits(connections=16, receive_s=PATIENCE_S, idle_s=PATIENCE_S, send_s=PATIENCE_S, linger_s=PATIENCE_S)
#: Limits for tests with slow clients.
STRICT = replace(LIMITS, receive_s=0.25, send_s=0.25)
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Answer(NamedTuple):
    status: int
    headers: HTTPMessage
    content: Any


class Client:
    """A raw connection: the test sends any bytes, and reads the answers one by one."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=PATIENCE_S, source_address=(host, 0))
        self.send = self.socket.sendall
        self._received = self.socket.makefile("rb")

    def answer(self, *, body: bool = True) -> Answer:
        """Read the next answer; `body` is False where only the head is sent."""
        status = int(self._received.readline().split()[1])
        headers = parse_headers(self._received)
        text = self._received.read(int(headers["Content-Length"])) if body else b""
        return Answer(status, headers, json.loads(text) if text else None)

    def rest_of(self, size: int) -> bytes:
        """Skip the head of an answer; read so many bytes of its body."""
        while self._received.readline() != b"\r\n":
            pass
        return self._received.read(size)

    def rest(self) -> bytes:
        """Read until the server closes the connection."""
        try:
            return self._received.read()
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        self._received.close()
        self.socket.close()


def echo(request: Request) -> Response:
    """The server's decoded form of a request."""
    return success(
        {"method": request.method, "path": request.path, "query": request.query, "body": request.body.decode()}
    )


class ServerTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.logger = logging.Logger("http-test", logging.DEBUG)
        self.logger.addHandler(logging.NullHandler())

    def serve(
        self,
        handler: Callable[[Request], Response] = echo,
        limits: HttpLimits = LIMITS,
        host: str = "127.0.0.1",
        **options: Any,
    ) -> HttpServer:
        server = HttpServer(Address(host, 0), handler, logger=self.logger, limits=limits, **options)
        server.start()
        self.addCleanup(server.stop, 1.0)
        self.port = server.address[1]
        return server

    def client(self, host: str = "127.0.0.1") -> Client:
        client = Client(self.port, host)
        self.addCleanup(client.close)
        return client

    def request(self, request: bytes) -> Answer:
        """Send one request on its own connection; returns the answer."""
        client = self.client()
        client.send(request)
        return client.answer()

    def assert_refused(self, request: bytes, status: int, *expected: str) -> None:
        client = self.client()
        client.send(request)
        answer = client.answer()
        self.assertEqual((answer.status, answer.content["error"]["code"]), (status, "invalid_request"), answer)
        for text in expected:
            self.assertIn(text, answer.content["error"]["message"])
        self.assertEqual(answer.headers["Content-Type"], "application/json; charset=utf-8")
        self.assertEqual(answer.headers["Connection"], "close")
        self.assertEqual(client.rest(), b"")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it did not come")
            time.sleep(0.005)


class RequestsTest(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.serve()

    def test_a_connection_serves_one_request_after_another(self) -> None:
        client = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        self.addCleanup(client.close)
        for number in range(3):
            client.request("POST", f"/p/{number}?q=1", body=f"b{number}")
            response = client.getresponse()
            self.assertEqual(response.status, 200)
            self.assertEqual(
                json.load(response), {"method": "POST", "path": f"/p/{number}", "query": "q=1", "body": f"b{number}"}
            )

    def test_the_whole_answer_leaves_at_once(self) -> None:
        client = self.client()
        client.send(GET)
        whole = client.socket.recv(65536)
        self.assertTrue(whole.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(whole.endswith(b"}"))
        self.assertIn(b"\r\nDate: ", whole)

    def test_pipelined_requests_are_answered_in_their_order(self) -> None:
        client = self.client()
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20)))
        paths = [client.answer().content["path"] for _ in range(20)]
        self.assertEqual(paths, [f"/{number}" for number in range(20)])

    def test_a_half_closed_client_gets_its_answer(self) -> None:
        client = self.client()
        client.send(GET)
        client.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(client.answer().status, 200)
        self.assertEqual(client.rest(), b"")

    def test_head_has_the_length_and_not_the_body(self) -> None:
        client = self.client()
        client.send(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        self.assertGreater(int(client.answer(body=False).headers["Content-Length"]), 10)
        self.assertEqual(client.answer().content["method"], "GET")

    def test_an_answer_may_have_another_content_type_for_head_as_well(self) -> None:
        self.serve(lambda _: Response(200, b"a 1\n", content_type="text/plain; version=0.0.4"))
        for method, body in ((b"GET", b"a 1\n"), (b"HEAD", b"")):
            client = self.client()
            client.send(method + b" /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            head, _, rest = client.rest().partition(b"\r\n\r\n")
            self.assertIn(b"Content-Type: text/plain; version=0.0.4\r\nContent-Length: 4\r\n", head)
            self.assertEqual(rest, body)

    def test_http_1_0_ends_the_connection_unless_it_requests_otherwise(self) -> None:
        client = self.client()
        client.send(b"GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        self.assertEqual(client.answer().headers["Connection"], "keep-alive")
        client.send(b"GET /a HTTP/1.0\r\n\r\n")
        self.assertEqual(client.answer().headers["Connection"], "close")
        self.assertEqual(client.rest(), b"")

    def test_connection_close_is_obeyed(self) -> None:
        client = self.client()
        client.send(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: x-y, Close\r\n\r\n")
        self.assertEqual(client.answer().headers["Connection"], "close")
        self.assertEqual(client.rest(), b"")

    def test_nothing_is_read_behind_the_last_request(self) -> None:
        client = self.client()
        client.send(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET)
        self.assertEqual(client.answer().status, 200)
        self.assertEqual(client.rest(), b"")

    def test_a_bad_request_behind_a_good_one_costs_it_no_answer(self) -> None:
        client = self.client()
        client.send(GET + b"nonsense\r\n\r\n" + GET)
        self.assertEqual([client.answer().status for _ in range(2)], [200, 400])
        self.assertEqual(client.rest(), b"")

    def test_a_body_that_is_not_complete_when_its_client_leaves_is_not_answered(self) -> None:
        client = self.client()
        client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(client.rest(), b"")

    def test_an_absolute_target_is_a_path_with_a_host(self) -> None:
        for target, path, query in (
            (b"http://x:1/a/b?c=d", "/a/b", "c=d"),
            (b"HTTP://x", "/", ""),
            (b"http://x?c", "/", "c"),
        ):
            with self.subTest(target=target):
                content = self.request(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n").content
                self.assertEqual((content["path"], content["query"]), (path, query))

    def test_options_of_a_host_are_those_of_the_whole_server(self) -> None:
        for target, path in ((b"*", "*"), (b"http://x", "*"), (b"http://x/", "/"), (b"http://x?", "/")):
            with self.subTest(target=target):
                self.assertEqual(
                    self.request(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n").content["path"], path
                )

    def test_an_empty_line_before_a_request_is_forgiven(self) -> None:
        client = self.client()
        client.send(b"\r\n" + GET + b"\r\n" + GET)
        self.assertEqual([client.answer().status for _ in range(2)], [200, 200])

    def test_a_request_may_arrive_byte_by_byte(self) -> None:
        client = self.client()
        for byte in b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc":
            client.send(bytes([byte]))
        self.assertEqual(client.answer().content["body"], "abc")


class HeadTest(ServerTestCase):
    """No answer to HEAD has a body, whatever sends it: a client would read a body as the next answer."""

    def assert_head_alone(self, client: Client, status: int) -> None:
        """The answer has a head only, and the server closes the connection."""
        answer = client.answer(body=False)
        self.assertEqual((answer.status, answer.headers["Connection"]), (status, "close"))
        self.assertGreater(int(answer.headers["Content-Length"]), 0)
        self.assertEqual(client.rest(), b"")

    def test_answers_of_any_status_have_none_and_the_connection_goes_on(self) -> None:
        self.serve(lambda request: failure(ErrorCode.INVALID_REQUEST, "no", status=int(request.path[1:])))
        client = self.client()
        for status in (200, 400, 403, 404, 405, 409, 413, 415, 421, 500, 503):
            client.send(b"HEAD /%d HTTP/1.1\r\nHost: x\r\n\r\n" % status + GET.replace(b"a", b"400"))
            self.assertEqual([client.answer(body=False).status, client.answer().status], [status, 400])

    def test_refusals_of_http_itself_have_none(self) -> None:
        self.serve()
        head = b"HEAD /a HTTP/1.1\r\nHost: x\r\n"
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        for request, status in (
            (b"HEAD /a HTTP/1.1\r\n\r\n", 400),
            (b"HEAD /a\r\n\r\n", 400),
            (b"HEAD a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"\r\n" + head + b"a b\r\n\r\n", 400),
            (head + b"a: b\n", 400),
            (head + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (chunked + b"x\r\n", 400),
            (chunked + b"1\r\nab", 400),
            (chunked + b"fffff\r\n", 413),
            (head + b"Content-Length: 99999999\r\n\r\n", 413),
            (head + b"Expect: tea\r\n\r\n", 417),
            (head + b"a: b\r\n" * 200 + b"\r\n", 431),
            (head + b"a: " + b"b" * 20_000, 431),
            (head + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (b"HEAD /a HTTP/2.0\r\n", 505),
        ):
            for before in (b"", GET):
                with self.subTest(request=request[:80], before=before):
                    client = self.client()
                    client.send(before + request)
                    if before:
                        client.answer()
                    self.assert_head_alone(client, status)

    def test_a_request_that_is_late_has_none(self) -> None:
        self.serve(limits=STRICT)
        for request in (b"HEAD ", b"HEAD /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"):
            client = self.client()
            client.send(request)
            self.assert_head_alone(client, 408)

    def test_a_request_for_which_there_is_no_worker_has_none(self) -> None:
        self.serve(lanes={"all": LaneLimits(threads=1, queue=0)})
        client = self.client()
        client.send(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assert_head_alone(client, 503)


class BodiesTest(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.serve()

    def chunked(self, body: bytes, more: bytes = b"") -> bytes:
        return b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + more + b"\r\n" + body

    def test_chunks_are_put_together_and_their_decoration_is_dropped(self) -> None:
        client = self.client()
        client.send(self.chunked(b"3;x=y\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX-Sum: t\r\n\r\n") + GET)
        self.assertEqual(client.answer().content["body"], "abc0123456789")
        self.assertEqual(client.answer().content["method"], "GET")

    def test_bad_chunks_are_refused(self) -> None:
        self.assert_refused(self.chunked(b"x\r\nabc\r\n0\r\n\r\n"), 400, "chunk size")
        self.assert_refused(self.chunked(b"-1\r\nabc\r\n0\r\n\r\n"), 400, "chunk size")
        self.assert_refused(self.chunked(b"2\r\nabc\r\n0\r\n\r\n"), 400, "longer than its size")
        self.assert_refused(self.chunked(b"1;" + b"x" * 300), 400, "line of a chunked body")
        self.assert_refused(self.chunked(b"0\r\n" + b"T: t\r\n" * 101), 431, "trailer")

    def test_chunks_may_not_exceed_the_limit_together(self) -> None:
        self.assert_refused(self.chunked(b"8000\r\n" + b"x" * 0x8000 + b"\r\n8001\r\n"), 413, "65536")
        self.assert_refused(self.chunked(b"ffffffff\r\n"), 413, "65536")

    def test_a_body_over_the_limit_is_refused_before_it_is_sent(self) -> None:
        self.assert_refused(
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\nExpect: 100-continue\r\n\r\n", 413, "65536"
        )

    def test_a_client_that_sends_too_much_anyway_still_reads_why(self) -> None:
        self.assert_refused(
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000, 413, "65536"
        )

    def test_the_largest_allowed_body_is_read(self) -> None:
        answer = self.request(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n" + b"x" * 65536)
        self.assertEqual(len(answer.content["body"]), 65536)

    def test_who_waits_for_100_continue_gets_it(self) -> None:
        client = self.client()
        client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n")
        self.assertEqual(client.socket.recv(1000), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"ok")
        self.assertEqual(client.answer().content["body"], "ok")

    def test_any_other_expectation_is_refused(self) -> None:
        self.assert_refused(b"GET /a HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 417, "'tea'")

    def test_lengths_that_contradict_are_refused(self) -> None:
        post = b"POST /a HTTP/1.1\r\nHost: x\r\n"
        for fields, status in (
            (b"Content-Length: 1\r\nContent-Length: 1\r\n", 400),
            (b"Content-Length: 1\r\nContent-Length: 2\r\n", 400),
            (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
            (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            (b"Content-Length: 1, 1\r\n", 400),
            (b"Content-Length: +1\r\n", 400),
            (b"Content-Length: -1\r\n", 400),
            (b"Content-Length: 1_0\r\n", 400),
            (b"Content-Length: \xb2\r\n", 400),
            (b"Content-Length:\r\n", 400),
            (b"Transfer-Encoding: gzip, chunked\r\n", 501),
            (b"Transfer-Encoding: gzip\r\n", 400),
            (b"Transfer-Encoding: identity\r\n", 400),
            (b"Transfer-Encoding: chunked, chunked\r\n", 400),
            (b"Transfer-Encoding: xchunked\r\n", 400),
            (b"Transfer-Encoding: \xa0chunked\x85\r\n", 400),
            (b"Transfer-Encoding\xa0: chunked\r\n", 400),
            (b"Content-Length\x85: 5\r\n", 400),
            (b"Transfer-Encoding: chunked;q=1\r\n", 400),
            (b"Transfer-Encoding: ,chunked\r\n", 400),
            (b"Transfer-Encoding: chunked,\r\n", 400),
            (b"Transfer-Encoding: \x0bchunked\r\n", 400),
            (b"Transfer-Encoding:\r\n", 400),
            (b"Transfer-Encoding:\r\n chunked\r\n", 400),
            (b"Transfer-Encoding : chunked\r\n", 400),
        ):
            with self.subTest(fields=fields):
                self.assert_refused(post + fields + b"\r\n0\r\n\r\n", status)
        self.assert_refused(b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "HTTP/1.0")


class BadHeadsTest(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.serve()

    def test_request_lines_that_are_none_are_refused(self) -> None:
        for line, status in (
            (b"GET", 400),
            (b"GET /a", 400),
            (b"GET  /a HTTP/1.1", 400),
            (b"GET /a b HTTP/1.1", 400),
            (b"GET /\xc3\xa9 HTTP/1.1", 400),
            (b"GE(T /a HTTP/1.1", 400),
            (b"GET a HTTP/1.1", 400),
            (b"GET * HTTP/1.1", 400),
            (b"CONNECT x:80 HTTP/1.1", 400),
            (b"GET ftp://x/ HTTP/1.1", 400),
            (b"GET https://x/ HTTP/1.1", 400),
            (b"GET http://y/ HTTP/1.1", 400),
            (b"GET http://u@x/ HTTP/1.1", 400),
            (b"GET http:///a HTTP/1.1", 400),
            (b"GET /a#b HTTP/1.1", 400),
            (b"GET /a http/1.1", 400),
            (b"GET /a HTTP/11", 400),
            (b"PRI * HTTP/2.0", 505),
        ):
            with self.subTest(line=line):
                self.assert_refused(line + b"\r\nHost: x\r\n\r\n", status)

    def test_header_lines_that_are_none_are_refused(self) -> None:
        for field in (
            b"nonsense",
            b": v",
            b"a b: v",
            b"a : v",
            b" a: v",
            b"a: b\r\n folded",
            b"a: \x00",
            b"a: b\rc: d",
        ):
            with self.subTest(field=field):
                self.assert_refused(b"GET /a HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n\r\n", 400)

    def test_lines_that_end_with_lf_are_refused_at_once(self) -> None:
        self.assert_refused(b"GET /a HTTP/1.1\nHost: x\n\n", 400, "CR LF")
        self.assert_refused(b"GET /a HTTP/1.1\r\nHost: x\nb: c\r\n\r\n", 400, "CR LF")

    def test_tls_is_recognised_at_once(self) -> None:
        self.assert_refused(b"\x16\x03\x01\x02\x00\x01", 400, "TLS")

    def test_one_host_is_required_of_http_1_1(self) -> None:
        self.assert_refused(b"GET /a HTTP/1.1\r\n\r\n", 400, "Host")
        self.assert_refused(b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "twice")

    def test_a_huge_head_is_refused(self) -> None:
        self.assert_refused(b"GET /" + b"a" * 20_000, 431, "16384")
        self.assert_refused(b"GET /a HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 200_000, 431, "16384")
        self.assert_refused(b"GET /a HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431, "100")

    def test_repeated_headers_are_one_list(self) -> None:
        self.serve(lambda request: success(request.headers))
        answer = self.request(b"GET /a HTTP/1.1\r\nHost: x\r\nAccept: a\r\naccept:\t b \r\n\r\n")
        self.assertEqual(answer.content["accept"], "a, b")


class SlowClientsTest(ServerTestCase):
    def assert_dripping_is_ended(self, first: bytes, drop: bytes) -> None:
        client = self.client()
        client.send(first)
        began = time.monotonic()
        data = b""
        while not data and time.monotonic() - began < PATIENCE_S:
            client.send(drop)
            if select.select([client.socket], [], [], 0.01)[0]:
                data = client.socket.recv(1000)
        self.assertTrue(data.startswith(b"HTTP/1.1 408 "), data)

    def test_a_trickle_of_headers_or_body_has_one_deadline(self) -> None:
        self.serve(limits=STRICT)
        self.assert_dripping_is_ended(b"GET /a HTTP/1.1\r\n", b"a: b\r\n")
        post = b"POST /a HTTP/1.1\r\nHost: x\r\n"
        self.assert_dripping_is_ended(post + b"Content-Length: 9999\r\n\r\n", b"x")
        self.assert_dripping_is_ended(post + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n")

    def test_a_new_client_that_sends_nothing_is_left(self) -> None:
        self.serve(limits=STRICT)
        self.assertEqual(self.client().rest(), b"")

    def test_an_idle_connection_is_ended_without_an_answer(self) -> None:
        self.serve(limits=replace(LIMITS, idle_s=0.05))
        client = self.client()
        client.send(GET)
        client.answer()
        self.assertEqual(client.rest(), b"")

    def test_a_client_that_does_not_read_is_left(self) -> None:
        server = self.serve(lambda _: Response(200, b"x" * 30_000_000), STRICT)
        client = self.client()
        client.send(GET)
        self.assertTrue(client.socket.recv(10))
        self.wait_until(lambda: server.connections == 0)

    def test_clients_that_leave_at_any_moment_harm_nobody(self) -> None:
        server = self.serve()
        for part in (
            b"",
            b"G",
            b"GET /a HTTP/1.1\r\n",
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
            GET,
        ):
            client = self.client()
            client.send(part)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
            client.close()
        self.assertEqual(self.request(GET).status, 200)
        server.stop(1.0)
        self.assertEqual(server.connections, 0)


class CrowdTest(ServerTestCase):
    def served(self, server: HttpServer, others: int) -> Client:
        """A client that has had an answer, on an idle connection, as `others` are."""
        client = self.client()
        client.send(GET)
        client.answer()
        # All of these connections are idle.
        self.wait_until(lambda: server._poller is not None and len(server._poller._table.waiting()) == others + 1)
        return client

    def half_open(self, server: HttpServer, number: int) -> list[Client]:
        """Clients that have sent part of a request."""
        before = server.connections
        clients = [self.client() for _ in range(number)]
        for client in clients:
            client.send(b"GET /a HTTP/1.1\r\n")
        self.wait_until(lambda: server.connections == before + number)
        return clients

    def test_a_new_client_takes_the_place_of_the_one_that_has_waited_longest(self) -> None:
        server = self.serve(limits=replace(LIMITS, connections=8, connections_of_a_peer=8))
        first, *others = [self.served(server, number) for number in range(8)]
        self.assertEqual(self.request(GET).status, 200)
        self.assertEqual(first.rest(), b"")
        for other in others:
            other.send(GET)
            self.assertEqual(other.answer().status, 200)

    def test_half_open_clients_do_not_keep_a_good_one_out(self) -> None:
        server = self.serve(limits=replace(LIMITS, connections=8, connections_of_a_peer=8))
        with self.assertLogs(self.logger, logging.WARNING) as logs:
            slow = self.half_open(server, 8)
            for _ in range(20):
                self.assertEqual(self.request(GET).status, 200)
        self.assertEqual(slow[0].rest(), b"")
        self.assertIn("make room", logs.output[0])

    def test_a_request_that_has_arrived_is_answered_whoever_needs_room(self) -> None:
        stalled, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def lane_of(_: Request) -> str:  # runs on the thread that reads from all clients
            stalled.set()
            go_on.wait(PATIENCE_S)
            return "all"

        limits = replace(LIMITS, connections=8, connections_of_a_peer=8)
        self.serve(limits=limits, lanes={"all": LaneLimits(threads=2, queue=100)}, lane_of=lane_of)
        clients = [self.client()]
        clients[0].send(CLOSE)
        self.assertTrue(stalled.wait(PATIENCE_S))
        clients += [self.client() for _ in range(39)]
        for client in clients[1:]:  # longer than one read
            client.send(
                b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40000
            )
        go_on.set()
        self.assertEqual([client.answer().status for client in clients], [200] * 40)

    def test_a_client_that_has_just_connected_is_not_closed_to_make_room(self) -> None:
        with mock.patch("rtmanager.http.poller._GRACE_S", PATIENCE_S):
            server = self.serve(limits=replace(LIMITS, connections=8, connections_of_a_peer=8))
            clients = [self.client() for _ in range(20)]
            self.wait_until(lambda: server.connections == 8)
            for client in clients:
                client.send(CLOSE)
            self.assertEqual([client.answer().status for client in clients], [200] * 20)

    def test_one_address_cannot_have_all_connections(self) -> None:
        server = self.serve(host="", limits=replace(LIMITS, connections=12, connections_of_a_peer=8))
        good = self.client("127.0.0.2") if self.two_addresses() else self.client()
        good.send(GET)
        good.answer()
        slow = [self.client() for _ in range(20)]
        for client in slow:
            client.send(b"GET")
        self.wait_until(lambda: server.connections <= 9)
        for client in slow[:11]:
            self.assertEqual(client.rest(), b"")
        good.send(GET)
        self.assertEqual(good.answer().status, 200)

    def two_addresses(self) -> bool:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.2", 0))
            except OSError:
                return False
        return True

    def test_requests_wait_in_a_bounded_queue_and_more_are_rejected(self) -> None:
        busy, go_on = threading.Semaphore(0), threading.Event()
        self.addCleanup(go_on.set)

        def slow(request: Request) -> Response:
            if request.path != "/other":
                busy.release()
                go_on.wait(PATIENCE_S)
            return echo(request)

        lanes = {"slow": LaneLimits(threads=2, queue=3), "other": LaneLimits(threads=1, queue=1)}
        self.serve(slow, lanes=lanes, lane_of=lambda request: "other" if request.path == "/other" else "slow")
        clients = [self.client() for _ in range(5)]
        for number, client in enumerate(clients):
            client.send(GET)
            if number < 2:
                self.assertTrue(busy.acquire(timeout=PATIENCE_S))
        other = GET.replace(b"/a", b"/other")
        self.wait_until(lambda: self.request(other).status == 200 and self.request(GET).status == 503)
        self.assertFalse(busy.acquire(timeout=0.05), "more requests are handled at once than allowed")
        refused = self.request(GET)
        self.assertEqual((refused.status, refused.content["error"]["code"]), (503, "service_unavailable"))
        go_on.set()
        for client in clients:
            self.assertEqual(client.answer().status, 200)

    def test_slow_readers_hold_no_thread_and_a_bounded_amount_of_memory(self) -> None:
        big = Response(200, b"x" * 30_000_000)
        limits = replace(LIMITS, unsent_bytes=70_000_000)
        server = self.serve(
            lambda request: big if request.path == "/big" else echo(request),
            limits,
            lanes={"all": LaneLimits(threads=2, queue=100)},
        )
        readers = [self.client() for _ in range(5)]
        for reader in readers:
            reader.send(GET.replace(b"/a", b"/big"))
            self.assertEqual(self.request(GET).status, 200)
        self.wait_until(lambda: server.connections <= 7)  # two readers, and those that sent a request in between
        self.assertEqual(len(readers[-1].rest_of(30_000_000)), 30_000_000)


class BusyClientsTest(ServerTestCase):
    """Requests that are cheap to send and costly to answer delay no other client."""

    def test_who_reads_nothing_has_a_bounded_number_of_requests_answered(self) -> None:
        self.assertLess(self.answered_to_who_reads_nothing(100_000), 12)
        self.assertLess(self.answered_to_who_reads_nothing(100), 10_000)

    def answered_to_who_reads_nothing(self, size: int) -> int:
        """The number of requests handled, with answers of `size` bytes, before the server waits for the reader."""
        answered = itertools.count()

        def handle(_: Request) -> Response:
            next(answered)
            return Response(200, b"x" * size)

        server = self.serve(handle)
        client = socket.socket()
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", self.port))
        threading.Thread(target=self.send_all, args=(client, GET * 20_000), daemon=True).start()
        self.wait_until(lambda: server._poller is not None and bool(server._poller._readers))
        return next(answered)

    def send_all(self, client: socket.socket, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the test ends before all is sent
            client.sendall(data)

    def test_who_sends_before_the_answer_waits_behind_others_with_the_first_request_too(self) -> None:
        held, go_on = threading.Semaphore(0), threading.Event()
        self.addCleanup(go_on.set)

        def handle(request: Request) -> Response:
            if request.path == "/hold":
                held.release()
                go_on.wait(PATIENCE_S)
            return echo(request)

        self.serve(handle, lanes={"all": LaneLimits(threads=3, queue=10)})
        clients = [self.client() for _ in range(5)]
        for client in clients:
            client.send(GET.replace(b"/a", b"/hold") * 3)
        for _ in range(2):
            self.assertTrue(held.acquire(timeout=PATIENCE_S))
        self.assertEqual(self.request(GET).status, 200)
        self.assertFalse(held.acquire(timeout=0.05))
        go_on.set()
        for client in clients:
            self.assertEqual([client.answer().status for _ in range(3)], [200] * 3)

    def test_usual_requests_are_read_before_costly_ones(self) -> None:
        blocked, go_on, order = threading.Event(), threading.Event(), []

        def lane_of(request: Request) -> str:
            """Runs on the thread that reads."""
            order.append(request.path)
            if request.path == "/block":
                blocked.set()
                go_on.wait(PATIENCE_S)
            return "all"

        self.serve(lane_of=lane_of, limits=replace(LIMITS, connections=64, connections_of_a_peer=64))
        costly = [self.client() for _ in range(20)]
        usual, first = self.client(), self.client()
        first.send(GET.replace(b"/a", b"/block"))
        self.assertTrue(blocked.wait(PATIENCE_S))
        for client in costly:
            client.send(b"GET /costly HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 98 + b"b: " + b"c" * 1000 + b"\r\n\r\n")
        usual.send(GET)
        time.sleep(0.05)  # all of it has arrived
        go_on.set()
        self.assertEqual([client.answer().status for client in (first, usual, *costly)], [200] * 22)
        self.assertEqual(order[:2], ["/block", "/a"])

    def test_a_costly_request_may_come_in_pieces_and_while_the_server_stops(self) -> None:
        server = self.serve()
        client, other = self.client(), self.client()
        request = b"GET /costly HTTP/1.1\r\nHost: x\r\n" + b"a: bcd\r\n" * 95 + b"b: " + b"c" * 3000 + b"\r\n\r\n"
        for begin in range(0, len(request), 100):
            client.send(request[begin : begin + 100])
            time.sleep(0.001)
        self.assertEqual(client.answer().status, 200)
        other.send(request[:2000])
        self.wait_until(lambda: server.connections == 2)
        time.sleep(0.05)
        stopping = threading.Thread(target=server.stop, args=(PATIENCE_S,))
        stopping.start()
        other.send(request[2000:])
        self.assertEqual(other.answer().status, 200)
        stopping.join()


class FailuresTest(ServerTestCase):
    def test_a_failing_handler_is_answered_logged_and_survived(self) -> None:
        def handler(request: Request) -> Response:
            if request.path == "/bad":
                raise ZeroDivisionError("seventeen")
            return echo(request)

        self.serve(handler)
        client = self.client()
        with self.assertLogs(self.logger, logging.ERROR) as logs:
            client.send(b"GET /bad HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = client.answer()
        self.assertEqual((answer.status, answer.content["error"]["code"]), (500, "internal_error"))
        self.assertNotIn("seventeen", answer.content["error"]["message"])
        self.assertIn("ZeroDivisionError: seventeen", logs.output[0])
        client.send(GET)
        self.assertEqual(client.answer().status, 200)

    def test_each_request_is_a_line_of_the_debug_log(self) -> None:
        self.serve()
        with self.assertLogs(self.logger, logging.DEBUG) as logs:
            client = self.client()
            client.send(GET.replace(b"Host", b"Connection: close\r\nHost"))
            client.rest()
        line = vars(logs.records[0])
        self.assertEqual((line["method"], line["path"], line["status"]), ("GET", "/a", 200))

    def test_no_file_descriptor_to_accept_with_is_survived(self) -> None:
        failures = iter([OSError(errno.EMFILE, "Too many open files"), OSError(errno.ECONNABORTED, "aborted")])

        def listening(*arguments: Any) -> object:
            listener = listen(*arguments)

            def accept() -> object:
                if failure := next(failures, None):
                    raise failure
                return listener.accept()

            return mock.Mock(wraps=listener, accept=accept, fileno=listener.fileno)

        with (
            mock.patch("rtmanager.http.server.listen", listening),
            self.assertLogs(self.logger, logging.WARNING) as logs,
        ):
            self.serve()
            self.assertEqual(self.request(GET).status, 200)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("cannot accept", logs.output[0])

    def test_no_thread_for_a_request_is_survived(self) -> None:
        self.serve()
        with (
            mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")),
            self.assertLogs(self.logger, logging.WARNING) as logs,
        ):
            self.assertEqual(self.request(GET).status, 503)
        self.assertIn("no thread", logs.output[0])
        self.assertEqual(self.request(GET).status, 200)

    def test_a_defect_of_the_http_layer_ends_one_connection_only(self) -> None:
        self.serve()
        with (
            mock.patch.object(RequestReader, "next", side_effect=ZeroDivisionError("seventeen")),
            self.assertLogs(self.logger, logging.ERROR) as logs,
        ):
            client = self.client()
            client.send(GET)
            self.assertEqual(client.rest(), b"")
        self.assertIn("ZeroDivisionError: seventeen", logs.output[0])
        self.assertEqual(self.request(GET).status, 200)


class ListeningTest(ServerTestCase):
    def test_an_address_in_use_is_named_with_the_remedy(self) -> None:
        port = self.serve().address[1]
        with self.assertRaisesRegex(OSError, f"127.0.0.1:{port}: .*in use; .*another port") as caught:
            HttpServer(Address("127.0.0.1", port), echo, logger=self.logger).start()
        self.assertEqual(caught.exception.errno, errno.EADDRINUSE)

    def test_an_address_that_is_not_ours_is_named(self) -> None:
        with self.assertRaisesRegex(OSError, "192.0.2.1:0: .*no interface"):
            HttpServer(Address("192.0.2.1", 0), echo, logger=self.logger).start()
        with self.assertRaisesRegex(OSError, "cannot listen for HTTP on no-such-host.invalid:0"):
            HttpServer(Address("no-such-host.invalid", 0), echo, logger=self.logger).start()

    def test_without_a_host_every_interface_is_served(self) -> None:
        self.serve(host="")
        self.assertEqual(self.request(GET).status, 200)
        if socket.has_dualstack_ipv6() and os.path.exists("/proc/net/if_inet6"):
            client = self.client("::1")
            client.send(GET)
            self.assertEqual(client.answer().status, 200)

    def test_without_ipv6_ipv4_is_served(self) -> None:
        with mock.patch("socket.has_dualstack_ipv6", return_value=False):
            self.serve(host="")
        self.assertEqual(self.request(GET).status, 200)

    def test_a_name_is_served_on_ipv4(self) -> None:
        self.serve(host="localhost")
        self.assertEqual(self.request(GET).status, 200)

    def test_the_address_is_known_once_it_is_started(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "not started"):
            HttpServer(Address("127.0.0.1", 0), echo, logger=self.logger).address  # noqa: B018
        self.assertEqual(self.serve().address, ("127.0.0.1", self.port))


class StoppingTest(ServerTestCase):
    def test_idle_connections_end_at_once(self) -> None:
        server = self.serve()
        fresh, served = self.client(), self.client()
        served.send(GET)
        served.answer()
        began = time.monotonic()
        server.stop(PATIENCE_S)
        self.assertLess(time.monotonic() - began, PATIENCE_S / 2)
        self.assertEqual((served.rest(), fresh.rest()), (b"", b""))
        with self.assertRaises(ConnectionRefusedError):
            self.client()

    def test_a_request_in_flight_is_answered_and_is_the_last(self) -> None:
        working, go_on = threading.Event(), threading.Event()

        def slow(request: Request) -> Response:
            working.set()
            go_on.wait(PATIENCE_S)
            return echo(request)

        server = self.serve(slow)
        client = self.client()
        client.send(GET)
        self.assertTrue(working.wait(PATIENCE_S))
        stopper = threading.Thread(target=server.stop, args=(PATIENCE_S,))
        stopper.start()
        self.wait_until(self.refuses_connections)
        self.assertTrue(stopper.is_alive())
        go_on.set()
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers["Connection"]), (200, "close"))
        client.close()
        stopper.join(PATIENCE_S)
        self.assertFalse(stopper.is_alive())

    def refuses_connections(self) -> bool:
        try:
            Client(self.port).close()
        except OSError:
            return True
        return False

    def test_a_client_is_cut_when_the_time_is_over(self) -> None:
        server = self.serve()
        client = self.client()
        client.send(GET + b"POST ")
        client.answer()
        began = time.monotonic()
        server.stop(0.05)
        self.assertLess(time.monotonic() - began, PATIENCE_S / 2)
        self.assertEqual(server.connections, 0)

    def test_a_handler_that_does_not_end_is_reported(self) -> None:
        working, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def stuck(request: Request) -> Response:
            working.set()
            go_on.wait(PATIENCE_S)
            return echo(request)

        server = self.serve(stuck)
        self.client().send(GET)
        self.assertTrue(working.wait(PATIENCE_S))
        with mock.patch("rtmanager.http.server._CUT_S", 0.02), self.assertLogs(self.logger, "WARNING") as logs:
            server.stop(0.01)
        self.assertEqual(vars(logs.records[0])["handlers"], 1)

    def test_stopping_twice_or_before_starting_does_nothing(self) -> None:
        HttpServer(Address("127.0.0.1", 0), echo, logger=self.logger).stop(1.0)
        server = self.serve()
        server.stop(1.0)
        server.stop(1.0)

    def test_two_hundred_starts_and_stops_leave_nothing_behind(self) -> None:
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        port = 0
        for _ in range(200):
            server = HttpServer(Address("127.0.0.1", port), echo, logger=self.logger, limits=LIMITS)
            server.start()
            port = server.address[1]
            client = Client(port)
            client.send(GET)
            client.answer()
            server.stop(1.0)
            client.close()
        self.assertEqual(threading.active_count(), threads)
        self.assertEqual(len(os.listdir("/proc/self/fd")), files)
