"""Accepted hosts, origins and content types; requests of a foreign page in a browser are refused."""

from __future__ import annotations

import unittest

from rtmanager.domain.operation import OpKind
from rtmanager.http.api import RUNTIMES
from rtmanager.http.authority import foreign_origin, host_is_ours, split_authority
from rtmanager.http.messages import Request
from rtmanager.http.table import peer_of
from rtmanager.tests.test_http_api import ApiTestCase

LISTED = frozenset({"rtm.example.org"})


class HostsTest(unittest.TestCase):
    def test_addresses_names_without_dots_and_listed_names_are_ours(self) -> None:
        for host in (
            "127.0.0.1",
            "10.0.0.7:8096",
            "[::1]",
            "[2001:DB8::7]:8096",
            "[::ffff:10.0.0.7]",
            "localhost",
            "rtmanager:8096",
            "RTManager",
            "rtmanager.",
            "galaxy_rtmanager_1",
            "rtm.example.org",
            "RTM.Example.ORG.:443",
        ):
            with self.subTest(host=host):
                self.assertTrue(host_is_ours(host, LISTED))

    def test_every_other_name_may_have_been_rebound(self) -> None:
        for host in (
            "evil.example",
            "rtm.example.org.evil.example",
            "x.rtm.example.org",
            "example.org",
            "127.0.0.1.nip.io",
            "127.1",
            "0x7f.0.0.1",
            "010.0.0.1",
            "256.0.0.1",
            "localhost.evil.example",
            "a.localhost",
            "",
            ":8096",
        ):
            with self.subTest(host=host):
                self.assertFalse(host_is_ours(host, LISTED))

    def test_what_is_no_host_is_none(self) -> None:
        for host in (
            "u@x",
            "x,y",
            "x y",
            "x:y",
            "x:99999",
            "x:1:2",
            "::1",
            "[::1",
            "[127.0.0.1]",
            "[::1]x",
            "[v1.x]",
            "x/",
            "x?",
            "x%00",
            "käse",
            ".",
            ".x",
            "a..b",
            "x..",
            "a" * 400,
        ):
            with self.subTest(host=host):
                self.assertIsNone(split_authority(host))

    def test_a_client_is_an_address_or_a_network_of_ipv6(self) -> None:
        self.assertEqual(peer_of("10.0.0.7"), peer_of("::ffff:10.0.0.7"))
        self.assertEqual(peer_of("2001:db8::1"), peer_of("2001:db8::ffff:1"))
        self.assertNotEqual(peer_of("2001:db8::1"), peer_of("2001:db8:0:1::1"))
        self.assertEqual(peer_of("fe80::1%eth0"), peer_of("fe80::2"))


class OriginsTest(unittest.TestCase):
    def test_requests_of_programs_and_of_the_services_own_pages_pass(self) -> None:
        for headers in (
            {},
            {"host": "rtm:8096"},
            {"host": "rtm:8096", "origin": "http://rtm:8096"},
            {"host": "rtm:8096", "origin": "http://RTM:8096"},
            {"host": "rtm", "origin": "http://rtm"},
            {"host": "rtm:80", "origin": "http://rtm"},
            {"host": "rtm", "origin": "https://rtm"},
            {"host": "[::1]:1", "origin": "http://[::1]:1"},
            {"host": "rtm", "sec-fetch-site": "same-origin"},
            {"host": "rtm", "sec-fetch-site": "none"},
            {"host": "rtm", "sec-fetch-site": "same-site", "origin": "http://rtm"},
        ):
            with self.subTest(headers=headers):
                self.assertIsNone(foreign_origin(headers))

    def test_requests_for_other_pages_are_recognised(self) -> None:
        for headers in (
            {"host": "rtm:8096", "origin": "null"},
            {"host": "rtm:8096", "origin": ""},
            {"host": "rtm:8096", "origin": "http://evil.example"},
            {"host": "rtm:8096", "origin": "http://rtm"},
            {"host": "rtm:8096", "origin": "http://rtm:8097"},
            {"host": "rtm:8096", "origin": "https://rtm:8096/"},
            {"host": "rtm:8096", "origin": "rtm:8096"},
            {"host": "rtm:8096", "origin": "ftp://rtm:8096"},
            {"host": "rtm:8096", "origin": "http://u@rtm:8096"},
            {"host": "rtm:8096", "origin": "http://rtm:8096 http://evil.example"},
            {"origin": "http://rtm"},
            {"host": "", "origin": "http://"},
            {"host": "rtm", "sec-fetch-site": "cross-site"},
            {"host": "rtm", "sec-fetch-site": "Cross-Site"},
            {"host": "rtm", "sec-fetch-site": "same-site"},
            {"host": "rtm", "sec-fetch-site": ""},
            {"host": "rtm", "sec-fetch-site": "cross-site", "origin": "http://rtm"},
        ):
            with self.subTest(headers=headers):
                self.assertIsNotNone(foreign_origin(headers))


class SendersTest(ApiTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.api = self.make_api(hosts=LISTED)

    def status(self, method: str, path: str, body: bytes = b"", **headers: str) -> int:
        return self.request(method, path, body, **headers)[0]

    def test_a_rebound_host_reads_and_does_nothing(self) -> None:
        for method, path in (("GET", RUNTIMES), ("POST", f"{RUNTIMES}/g1/restart"), ("GET", "/metrics"), ("GET", "/x")):
            self.assertEqual(self.status(method, path, host="evil.example"), 421)
        self.assertEqual(self.calls.requests, [])
        self.assertEqual(self.status("GET", RUNTIMES, host="rtm.example.org"), 200)

    def test_health_checks_may_use_any_host(self) -> None:
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.status("GET", path, host="any.thing.example"), 200)
            self.assertEqual(self.status("GET", path, host="any.thing.example", origin="http://evil.example"), 403)

    def test_a_foreign_page_reads_and_does_nothing(self) -> None:
        for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}):
            for method, path in (("GET", RUNTIMES), ("POST", f"{RUNTIMES}/g1/restart"), ("OPTIONS", RUNTIMES)):
                self.assertEqual(self.status(method, path, b"", host="rtm", **headers), 403)
        self.assertEqual(self.calls.requests, [])

    def test_a_body_has_to_be_called_json(self) -> None:
        stop = b'{"reason":"finished"}'
        for kind in (
            "application/json",
            "Application/JSON",
            "application/json;charset=utf-8",
            'application/json ; Charset="UTF-8"',
            "application/json; charset=utf8",
            "application/json; version=1; charset=utf-8",
            "application/json;",
        ):
            with self.subTest(kind=kind):
                self.assertEqual(self.status("POST", f"{RUNTIMES}/g1/stop", stop, content_type=kind), 200)
        self.assertEqual({request.kind for request in self.calls.requests}, {OpKind.STOP})
        self.calls.requests.clear()
        for kind in (
            "text/plain",
            "",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "application/problem+json",
            "text/json",
            "application/json, text/plain",
            "text/plain, application/json",
            "application/json; charset=latin1",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=latin1",
            "application/json; charset",
            'application/json; charset="utf-8',
            "application/json charset=utf-8",
            "application/json; a=b c",
        ):
            with self.subTest(kind=kind):
                self.assertEqual(self.status("POST", f"{RUNTIMES}/g1/stop", stop, content_type=kind), 415)
        encoded = self.status("POST", f"{RUNTIMES}/g1/stop", stop, content_encoding="gzip")
        self.assertEqual((encoded, self.calls.requests), (415, []))

    def test_no_body_needs_no_type(self) -> None:
        self.assertEqual(self.status("POST", f"{RUNTIMES}/g1/restart"), 200)
        self.assertEqual(self.status("POST", f"{RUNTIMES}/g1/restart", content_type="text/plain"), 200)
        self.assertEqual(self.status("POST", f"{RUNTIMES}/g1/restart", b"{}", content_type="text/plain"), 415)
        self.assertEqual(self.status("DELETE", f"{RUNTIMES}/g1/container"), 200)

    def test_bodies_that_are_no_such_json_are_refused(self) -> None:
        deep = b"[" * 30_000 + b"]" * 30_000
        for body in (
            deep,
            b'{"a":' * 5000 + b"1" + b"}" * 5000,
            b'{"reason": 1%s}' % (b"0" * 60_000),
            b'{"reason": 1e999}',
            b'{"reason": -1e-99999}',
            b'{"reason": NaN}',
            b'{"reason": Infinity}',
            b'{"reason": "\\ud800"}',
            b'{"\\ud800": "finished"}',
            b'{"reason": "\\u0000"}',
            b'{"reason": "finished\x00"}',
            b'{"reason": "\\u202e"}',
            b'\xef\xbb\xbf{"reason": "finished"}',
            b'{"reason": "\xed\xa0\x80"}',
            b'{"reason": "\xc0\xaf"}',
            '{"reason": "finished"}'.encode("utf-16"),
            b'{"reason": "finished", "reason": "finished"}',
            b'{"reason": "finished", "re\\u0061son": "timeout"}',
            b'{"reason": ["finished"]}',
            b"\x00",
        ):
            with self.subTest(body=body[:40]):
                self.assertEqual(self.status("POST", f"{RUNTIMES}/g1/stop", body), 400)
        self.assertEqual(self.calls.requests, [])

    def test_an_unknown_method_names_those_that_are_known(self) -> None:
        for method in ("get", "Post", "PUT", "OPTIONS", "TRACE", "X-Y"):
            response = self.response(method, f"{RUNTIMES}/g1")
            self.assertEqual((response.status, response.headers["Allow"]), (405, "GET, HEAD"))
        whole = self.response("OPTIONS", "*")
        self.assertEqual((whole.status, whole.headers["Allow"]), (405, "DELETE, GET, HEAD, POST"))


class LanesTest(ApiTestCase):
    def test_liveness_waits_for_nothing_else(self) -> None:
        lanes = {
            path: self.api.lane(Request(method, path))
            for method, path in (
                ("GET", "/healthz"),
                ("HEAD", "/readyz"),
                ("GET", RUNTIMES),
                ("POST", f"{RUNTIMES}/g1/start"),
                ("DELETE", f"{RUNTIMES}/g1/container"),
            )
        }
        self.assertEqual(list(lanes.values()), ["liveness", "readiness", "reads", "operations", "operations"])
