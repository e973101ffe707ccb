"""Who is served: tokens and their roles, malformed headers, addresses of games, and the audit of what they did."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
import unittest
from typing import Any

from rtmanager.config.parsers import Address
from rtmanager.domain.access import Role, Token, Tokens, digest_of
from rtmanager.domain.errors import Unavailable
from rtmanager.domain.operation import OpSource
from rtmanager.http.access import Access
from rtmanager.http.api import RUNTIMES
from rtmanager.http.audit import PERIOD_S, Audit
from rtmanager.http.messages import Request, Response
from rtmanager.http.server import HttpServer
from rtmanager.http.table import address_of
from rtmanager.ports.peers import Peer
from rtmanager.tests.test_http_api import ApiTestCase

GM, ADMIN, READ = "gm-token-0123456789", "admin-token-0123456789", "read-token-0123456789"
TOKENS = Tokens(
    (
        Token("game-master-1", Role.GM, digest_of(GM)),
        Token("support", Role.ADMIN, digest_of(ADMIN)),
        Token("grafana", Role.READ, digest_of(READ)),
    )
)
GAME, MASTER = "172.20.0.5", "172.20.0.9"
#: Every request that a caller may send, with a body where it needs one.
READS = ("/metrics", RUNTIMES, f"{RUNTIMES}/g1", f"{RUNTIMES}/g1/health", f"{RUNTIMES}/g1/operations")
CHANGES: tuple[tuple[str, str, object], ...] = (
    ("POST", f"{RUNTIMES}/g1/start", {"image_ref": "galaxy/game:1.0.0"}),
    ("POST", f"{RUNTIMES}/g1/stop", {"reason": "finished"}),
    ("POST", f"{RUNTIMES}/g1/restart", {}),
    ("POST", f"{RUNTIMES}/g1/patch", {"image_ref": "galaxy/game:1.0.1"}),
    ("DELETE", f"{RUNTIMES}/g1/container", b""),
)


class KnownPeers:
    """Peers of which some are games, some unproved, and some cannot be known now."""

    def __init__(self) -> None:
        self.kinds = {GAME: Peer.GAME}
        self.unknown: set[str] = set()

    def peer(self, address: str, *, wait: bool) -> Peer:
        if wait and address in self.unknown:
            raise Unavailable("docker", "gone")
        return self.kinds.get(address, Peer.OTHER)


class Lines(logging.Handler):
    """Collects log records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def audits(self) -> list[dict[str, Any]]:
        """The fields of the audit lines."""
        names = ("audit", "caller", "role", "address", "request_id", "method", "path", "status", "left_out")
        found = [vars(record) for record in self.records if hasattr(record, "audit")]
        return [{name: each[name] for name in names if name in each} for each in found]


class AccessTestCase(ApiTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.peers, self.lines = KnownPeers(), Lines()
        self.logger.addHandler(self.lines)
        self.api = self.make_api(access=Access(lambda: TOKENS, self.peers), metrics=lambda: "x 1\n")

    def answer(self, method: str, path: str, body: object = b"", address: str = MASTER, **headers: str) -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data:
            named.setdefault("content-type", "application/json")
        return self.api.handle(Request(method, path, "", named, data, address))

    def status(self, *request: Any, **headers: str) -> int:
        return self.answer(*request, **headers).status


class TokensTest(AccessTestCase):
    def test_liveness_and_readiness_need_no_token_and_everything_else_does(self) -> None:
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.status("GET", path), 200)
            self.assertEqual(self.status("HEAD", path), 200)
        unknown = (("GET", "/nowhere", b""), ("PUT", "/healthz", b""), ("OPTIONS", "*", b""))
        for method, path, body in (*(("GET", path, b"") for path in READS), *CHANGES, *unknown):
            with self.subTest(method, path=path):
                answer = self.answer(method, path, body)
                self.assertEqual((answer.status, answer.headers["WWW-Authenticate"]), (401, "Bearer"))
                self.assertIn(b'"invalid_request"', answer.body)
        self.assertEqual(self.calls.requests, [])

    def test_every_role_reads_and_only_two_change(self) -> None:
        for token, source, caller in (
            (GM, OpSource.GM_REST, "game-master-1"),
            (ADMIN, OpSource.ADMIN_REST, "support"),
            (READ, None, "grafana"),
        ):
            given = {"authorization": f"Bearer {token}", "x_galaxy_caller": "gm"}
            for path in READS:
                with self.subTest(caller, path=path):
                    self.assertEqual(self.status("GET", path, **given), 200)
                    self.assertEqual(self.status("HEAD", path, **given), 200)
            self.calls.requests.clear()
            for method, path, body in CHANGES:
                with self.subTest(caller, path=path):
                    answer = self.answer(method, path, body, **given)
                    self.assertEqual(answer.status, 200 if source else 403, answer.body)
                    if source is None:
                        self.assertIn(b'"invalid_request"', answer.body)
                        self.assertIn(b"grafana", answer.body)
                        self.assertNotIn(token.encode(), answer.body)
            sent = [(request.source, request.caller) for request in self.calls.requests]
            self.assertEqual(sent, [(source, caller)] * len(CHANGES) if source else [])

    def test_without_tokens_the_header_names_caller_and_source(self) -> None:
        self.api = self.make_api(access=Access(None, self.peers))
        path = f"{RUNTIMES}/g1/restart"
        for given, source, caller in (
            ({"x_galaxy_caller": "gm"}, OpSource.GM_REST, "gm"),
            ({"x_galaxy_caller": "Ünknown\x00"}, OpSource.ADMIN_REST, "?nknown?"),
            ({"x_galaxy_caller": "x" * 500}, OpSource.ADMIN_REST, "x" * 64),
            ({"authorization": "Basic eDp5"}, OpSource.ADMIN_REST, ""),
        ):
            self.calls.requests.clear()
            self.assertEqual(self.status("POST", path, **given), 200)
            [request] = self.calls.requests
            self.assertEqual((request.source, request.caller), (source, caller))

    def test_the_scheme_ignores_case_and_blanks_may_follow_it(self) -> None:
        for scheme in ("Bearer", "bearer", "BEARER", "bEaReR", "Bearer  "):
            self.assertEqual(self.status("GET", RUNTIMES, authorization=f"{scheme} {GM}"), 200, scheme)

    def test_anything_else_in_the_header_is_unauthorized_and_not_repeated(self) -> None:
        for given in (
            "",
            "Bearer",
            "Bearer ",
            GM,
            f"Basic {GM}",
            f"Bearer{GM}",
            f"Bearer\t{GM}",
            f"Bearer {GM} ",
            f"Bearer {GM},",
            f"Bearer {GM}, Bearer {GM}",
            f"Bearer {GM}, Basic eDp5",
            f"Basic eDp5, Bearer {GM}",
            f"Bearer token={GM}",
            f'Bearer "{GM}"',
            f"Bearer {GM[:-1]}",
            f"Bearer {GM.upper()}",
            f"Bearer {GM}\xfc",
            "Bearer \xfc\xff" * 10,
            f"Bearer {'x' * 15_000}",
            f"Token {GM}",
        ):
            with self.subTest(given[:40]):
                answer = self.answer("GET", RUNTIMES, authorization=given)
                self.assertEqual((answer.status, answer.headers["WWW-Authenticate"]), (401, "Bearer"))
                self.assertNotIn(GM.encode(), answer.body)

    def test_generated_headers_are_served_only_if_they_are_a_scheme_and_a_token(self) -> None:
        generated = random.Random(20261203)
        pieces = [
            "Bearer",
            "bearer",
            "Basic",
            *[" "] * 6,
            ",",
            ", ",
            "\t",
            *[GM] * 4,
            READ,
            GM[:9],
            "=",
            "\xfc",
            "x" * 2000,
        ]
        good = 0
        for _ in range(10_000):
            given = "".join(generated.choice(pieces) for _ in range(generated.randint(1, 5)))
            scheme, blank, token = given.partition(" ")
            expected = bool(blank) and scheme.lower() == "bearer" and token.lstrip(" ") in (GM, READ)
            self.assertEqual(self.status("GET", RUNTIMES, authorization=given), 200 if expected else 401, given)
            good += expected
        self.assertGreater(good, 5)

    def test_over_a_connection_two_headers_are_unauthorized_too_and_an_answer_has_no_part_of_a_token(self) -> None:
        server = HttpServer(Address("127.0.0.1", 0), self.api.handle, logger=self.logger)
        server.start()
        self.addCleanup(server.stop, 1.0)
        bearer = f"Bearer {GM}"
        for lines, status in (
            ([f"Authorization: {bearer}"], 200),
            ([f"authorization:{bearer}"], 200),
            ([f"Authorization: {bearer}"] * 2, 401),
            ([f"Authorization: {bearer}", "Authorization: Basic eDp5"], 401),
            ([f"Authorization: Bearer {'x' * 15_000}"], 401),
            ([f"Authorization: Bearer {'x' * 20_000}"], 431),
            ([f"Authorization: Bearer \xfc{GM}"], 401),
            ([f"Authorization : {bearer}"], 400),
            (["Authorization:", f" {bearer}"], 400),
        ):
            with self.subTest(lines[0][:30], lines=len(lines)), socket.create_connection(server.address) as client:
                head = "\r\n".join([f"GET {RUNTIMES} HTTP/1.1", "Host: x", "Connection: close", *lines])
                client.sendall(head.encode("latin-1") + b"\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(65536), b""))
                self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), answer[:200])
                self.assertNotIn(GM.encode(), answer)


class PeersTest(AccessTestCase):
    def test_a_game_is_refused_with_and_without_a_token_and_with_and_without_tokens(self) -> None:
        for access in (Access(lambda: TOKENS, self.peers), Access(None, self.peers)):
            self.api = self.make_api(access=access)
            for method, path, body in (
                ("GET", "/healthz", b""),
                ("GET", "/readyz", b""),
                ("GET", RUNTIMES, b""),
                *CHANGES,
            ):
                with self.subTest(path, access=access):
                    for given in ({}, {"authorization": f"Bearer {GM}"}):
                        answer = self.answer(method, path, body, GAME, **given)
                        self.assertEqual(answer.status, 403, answer.body)
                        self.assertIn(b"address of a game", answer.body)
        self.assertEqual(self.calls.requests, [])

    def test_a_peer_whose_address_proves_nothing_or_is_not_known_now_is_served_with_a_token_only(self) -> None:
        bearer = {"authorization": f"Bearer {GM}"}
        restart = ("POST", f"{RUNTIMES}/g1/restart", b"", MASTER)
        for kinds, unknown, status in (({MASTER: Peer.UNPROVED}, set[str](), 403), ({}, {MASTER}, 503)):
            self.peers.kinds, self.peers.unknown = kinds, unknown
            with self.subTest(status):
                self.api = self.make_api(access=Access(lambda: TOKENS, self.peers))
                self.assertEqual(self.status(*restart, **bearer), 200)
                self.assertEqual(self.status(*restart), 401)
                self.api = self.make_api(access=Access(None, self.peers))
                self.assertEqual(self.status(*restart, **bearer), status)
                for path in ("/healthz", "/readyz"):
                    self.assertEqual(self.status("GET", path), 200)

    def test_the_address_is_the_clients_without_zone_and_as_ipv4_where_it_is_one(self) -> None:
        for host, address in (
            ("10.0.0.7", "10.0.0.7"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("::ffff:0a00:0007", "10.0.0.7"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::1", "::1"),
        ):
            self.assertEqual(address_of(host), address)

    def test_the_server_hands_the_address_on(self) -> None:
        found: list[str] = []
        done = threading.Event()

        def handle(request: Request) -> Response:
            found.append(request.address)
            done.set()
            return Response(200, b"{}")

        for listen in ("127.0.0.1", ""):  # the second one gets IPv4 clients by IPv6 where the host has it
            server = HttpServer(Address(listen, 0), handle, logger=self.logger)
            server.start()
            self.addCleanup(server.stop, 1.0)
            with socket.create_connection(("127.0.0.1", server.address[1])) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertTrue(done.wait(10))
            done.clear()
        self.assertEqual(found, ["127.0.0.1"] * 2)


class AuditTest(AccessTestCase):
    def test_every_change_has_one_line_with_its_caller_and_what_came_of_it(self) -> None:
        path = f"{RUNTIMES}/g1/restart"
        gm = {"authorization": f"Bearer {GM}", "x_request_id": "turn-1"}
        self.assertEqual(self.status("POST", path, **gm), 200)
        self.assertEqual(self.status("POST", f"{RUNTIMES}/g1/stop", b"{}", **gm), 400)
        self.assertEqual(self.status("DELETE", f"{RUNTIMES}/g1/container", **gm), 200)
        self.assertEqual(self.status("POST", path, x_request_id="turn-1"), 401)
        self.assertEqual(self.status("POST", path, authorization=f"Bearer {READ}", x_request_id="turn-1"), 403)
        self.assertEqual(self.status("POST", path, b"", GAME, **gm), 403)
        self.assertEqual(self.status("POST", path, **gm, host="evil.example"), 421)
        same = {"request_id": "turn-1", "address": MASTER, "method": "POST", "path": path}
        master = {"caller": "game-master-1", "role": "gm"}
        nobody = {"caller": None, "role": None}
        self.assertEqual(
            self.lines.audits(),
            [
                {"audit": "allowed", **master, **same, "status": 200},
                {"audit": "allowed", **master, **same, "path": f"{RUNTIMES}/g1/stop", "status": 400},
                {
                    "audit": "allowed",
                    **master,
                    **same,
                    "status": 200,
                    "method": "DELETE",
                    "path": f"{RUNTIMES}/g1/container",
                },
                {"audit": "refused", **nobody, **same, "status": 401},
                {"audit": "refused", "caller": "grafana", "role": "read", **same, "status": 403},
                {"audit": "refused", **nobody, **same, "address": GAME, "status": 403},
                {"audit": "refused", **nobody, **same, "status": 421},
            ],
        )
        for record in self.lines.records:
            self.assertNotIn(GM, str(vars(record)))

    def test_without_tokens_the_line_has_the_name_that_was_given(self) -> None:
        self.api = self.make_api(access=Access())
        self.status("POST", f"{RUNTIMES}/g1/restart", x_galaxy_caller="gm")
        self.status("POST", f"{RUNTIMES}/g1/restart")
        self.assertEqual([(line["caller"], line["role"]) for line in self.lines.audits()], [("gm", None), (None, None)])

    def test_reads_have_a_line_only_when_refused(self) -> None:
        for path in (*READS, "/healthz", "/readyz"):
            self.status("GET", path, authorization=f"Bearer {READ}")
        self.assertEqual(self.lines.audits(), [])
        self.status("GET", RUNTIMES)
        [line] = self.lines.audits()
        self.assertEqual((line["audit"], line["method"], line["status"]), ("refused", "GET", 401))

    def test_refused_reads_of_one_address_have_a_line_a_second_with_the_number_of_the_others(self) -> None:
        now = 50.0
        audit = Audit(self.logger, lambda: now)
        for _ in range(5):
            audit.note(Request("GET", RUNTIMES, address=GAME), 403, None, "r")
        audit.note(Request("GET", RUNTIMES, address=MASTER), 401, None, "r")
        now += PERIOD_S
        audit.note(Request("GET", RUNTIMES, address=GAME), 403, None, "r")
        found = [(line["address"], line.get("left_out")) for line in self.lines.audits()]
        self.assertEqual(found, [(GAME, None), (MASTER, None), (GAME, 4)])

    def test_many_addresses_do_not_fill_the_memory(self) -> None:
        audit = Audit(self.logger, lambda: 1.0)
        for number in range(3000):
            audit.note(Request("GET", "/", address=f"10.0.{number >> 8}.{number & 255}"), 401, None, "r")
        self.assertLess(len(audit._reads), 2000)


if __name__ == "__main__":
    unittest.main()
