"""Requests generated from the OpenAPI document, and raw bytes, against a manager on real services.

One of 200 inputs is raw. Every answer must conform to the document, none may be a defect (`internal_error`) or late. A
request that violates the document must not succeed, and a rejected raw request must not affect others.
"""

import contextlib
import http.client
import json
import random
import socket
import string
import unittest
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from harness import daemon, web
from harness.rtm import manager, stack
from rtmanager.http.api import LIVENESS, READINESS

DEFAULT_COUNT = 20_000

#: One of this many inputs is raw.
RAW_EVERY = 200
#: Timeout of an answer in seconds: the server rejects an endless request after ten seconds.
HANG_S = 20.0
CLIENTS = 4
#: The log messages about a defect of the HTTP layer.
_DEFECTS = ("request failed", "http handler failed", "failed by a defect", "met a defect")
#: Violations of one run that are shown.
_SHOWN = 20

_GAME = "fuzzed"
_JSON = "application/json; charset=utf-8"
#: Statuses of errors of HTTP itself, valid for any operation.
_PROTOCOL = frozenset({400, 405, 408, 413, 417, 431, 501, 505})


def run(seed: int, count: int, report: Callable[[str], None]) -> list[str]:
    """Send `count` requests; return the violations in the answers."""
    try:
        document = _document()
    except ImportError as missing:
        raise unittest.SkipTest(f"{missing}: it comes with the dev extra, pip install -e '.[dev]'") from missing
    with stack.running("fuzz-http") as here:
        environment = here.environment | {"RTMANAGER_IMAGE_PULL_POLICY": "never"}
        with manager.start(environment, here.state_root.logs / "manager.log") as process:
            process.wait_until_ready()
            _leave_a_record(process.base_url, here.engine.ref)
            host, port = process.address.split(":")
            fuzz = _Fuzz(document, (host, int(port)))
            with ThreadPoolExecutor(CLIENTS) as threads:
                found = threads.map(
                    lambda part: list(fuzz.violations(seed, range(part, count, CLIENTS))), range(CLIENTS)
                )
                violations = [violation for part in found for violation in part]
            if process.exit_code is not None:
                violations.append(f"the manager ended with {process.exit_code}")
            log = process.log.read_text()
    violations += [
        f"a defect in the log: {line[:2000]}" for line in log.splitlines() if any(d in line for d in _DEFECTS)
    ]
    report(f"{count} requests by status: {dict(sorted(fuzz.statuses.items()))}")
    return violations[:_SHOWN]


def _document() -> Any:
    """The OpenAPI document's operations by method and template, with references resolved."""
    from rtmanager.tests.openapi_replay import Replay
    from rtmanager.tests.test_http_openapi import document

    return Replay(document(), "http://127.0.0.1").operations


def _leave_a_record(base_url: str, image_ref: str) -> None:
    """Start, stop and remove one game: reads find it, operations have nothing to do."""
    game = f"{base_url}/api/v1/internal/runtimes/{_GAME}"
    for method, path, body in (
        ("POST", "/start", {"image_ref": image_ref}),
        ("POST", "/stop", {"reason": "finished"}),
        ("DELETE", "/container", None),
    ):
        status, answer = web.call(method, game + path, body)
        if status != 200:
            raise AssertionError(f"{method} {path}: {status} {answer}; the daemon is {daemon.host()}")


@dataclass(frozen=True)
class _Request:
    """A request as it is sent, and its properties in the document."""

    operation_id: str
    method: str
    path: str
    game_id: str
    query: str
    #: None where the query does not consist of names and values.
    parameters: dict[str, str] | None
    headers: Sequence[tuple[str, str]]
    body: bytes | None
    chunked: bool = False

    def encoded(self) -> bytes:
        target = self.path + (f"?{self.query}" if self.query else "")
        lines = [f"{self.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers)]
        body = self.body or b""
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
            middle = len(body) // 2
            pieces = [piece for piece in (body[:middle], body[middle:]) if piece]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        elif self.body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class _Maker:
    """Generates requests: most are almost valid, so that they pass many checks."""

    def __init__(self, operations: Any, chooser: random.Random) -> None:
        self._operations = operations
        self._random = chooser

    def request(self) -> _Request:
        choose = self._random
        operation_id, operation = choose.choice(sorted(self._operations.items()))
        game_id, segment = self._game_id()
        path = operation.template.replace("{game_id}", segment)
        method = operation.method
        if choose.random() < 0.05:
            method = choose.choice(("HEAD", "OPTIONS", "PUT", "TRACE", "get", "PATCH", "POST", "DELETE"))
        if choose.random() < 0.03:
            path += choose.choice(("/", "/..", "//", "%2F", "/%00", ";x", "/./", "%"))
        query, parameters = self._query(operation.parameters("query"))
        body = self._body(operation.content.get("requestBody"))
        return _Request(
            operation_id,
            method,
            path,
            game_id,
            query,
            parameters,
            self._headers(body),
            body,
            chunked=body is not None and choose.random() < 0.2,
        )

    def _game_id(self) -> tuple[str, str]:
        """A game's id, and its segment of the path."""
        choose = self._random
        kind = choose.random()
        if kind < 0.3:
            return _GAME, _GAME
        if kind < 0.75:
            text = choose.choice(string.ascii_letters) + "".join(choose.choices(string.ascii_letters + "_-09", k=12))
            return text, text
        if kind < 0.95:
            alphabet = "aZ0-_. /\\\0\n\r%ä\u202e💩\u0600<>\"'"
            text = "".join(choose.choices(alphabet, k=choose.choice((1, 2, 5, 52, 201, 600))))
            return text, quote(text, safe="")
        return "", choose.choice(("%", "%2", "%zz", "%ff", "%ed%a0%80", "%c0%af", "a%00b", "..", ".", "%2e%2e"))

    def _query(self, known: Any) -> tuple[str, dict[str, str] | None]:
        choose = self._random
        if choose.random() < (0.4 if known else 0.95):
            return "", {}
        values = (
            "1",
            "100",
            "1000",
            "1001",
            "0",
            "-1",
            "1e3",
            "²",
            "running",
            "stopped",
            "dead",
            "",
            "\0",
            "a&b",
            "💩",
        )
        cursors = ("ZzE", "PDM", "Zy00NzEx", "!", "a" * 70, "PDk5OTk5OTk5OTk5OTk5OTk5OTk", "AAAA", "x" * 9000)
        names = [*known, "limit", "cursor", "x"]
        pairs = [
            (name, choose.choice(cursors if name == "cursor" else values))
            for name in choose.choices(names, k=choose.choice((1, 1, 1, 2, 3)))
        ]
        if choose.random() < 0.1:
            return choose.choice(
                ("%", "a=%zz", "limit=%ff", "&&", "=", "limit", "a=b;c=d", "limit=1&limit=1", "?")
            ), None
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
        return query, dict(pairs) if len(dict(pairs)) == len(pairs) else None

    def _headers(self, body: bytes | None) -> list[tuple[str, str]]:
        choose = self._random
        headers = [("Host", "127.0.0.1")]
        if body is not None or choose.random() < 0.1:
            headers.append(("Content-Type", "application/json"))
        if choose.random() < 0.1:
            odd = (
                ("Content-Type", "text/plain"),
                ("Content-Type", "application/json; charset=latin1"),
                ("Host", "evil.example"),
                ("Host", "a b"),
                ("Origin", "null"),
                ("Origin", "http://evil.example"),
                ("Sec-Fetch-Site", "cross-site"),
                ("X-Galaxy-Caller", choose.choice(("gm", "admin", "", "\xff", "gm, gm"))),
                ("X-Request-Id", choose.choice(("r-1", "", "a" * 65, "\xe4", "a b"))),
                ("Expect", choose.choice(("100-continue", "tea"))),
                ("Connection", choose.choice(("close", "keep-alive", "upgrade"))),
                ("Upgrade", "h2c"),
                ("Content-Encoding", "gzip"),
                ("X-Padding", "x" * choose.choice((1, 8000, 17_000))),
                ("Accept", "text/html"),
            )
            name, value = choose.choice(odd)
            if choose.random() < 0.8:
                headers = [pair for pair in headers if pair[0] != name]
            headers.append((name, value))
        return headers

    def _body(self, expected: Any) -> bytes | None:
        choose = self._random
        if expected is None:
            return None if choose.random() < 0.95 else choose.choice((b"", b"{}", b"x"))
        schema = expected["content"]["application/json"]["schema"]
        content = {name: self._value(name) for name in schema.get("properties", {})}
        kind = choose.random()
        if kind < 0.5:
            return json.dumps(content).encode() if content or choose.random() < 0.5 else None
        if kind < 0.75:
            name = choose.choice([*content, "x"])
            wrong: tuple[object, ...] = (
                None,
                1,
                -1e300,
                True,
                [],
                {},
                "",
                "a\0b",
                "\ud800",
                "x" * 70_000,
                [[]] * 50,
                10**400,
                "\u202e",
            )
            return json.dumps({**content, name: choose.choice(wrong)}).encode()
        text = json.dumps(content).encode()
        place = choose.randrange(len(text) + 1)
        odd = (b"\xff", b"\0", b"\xef\xbb\xbf", b"NaN", b"{", b'"', b",", b"\\ud800", b"9" * 5000, b"[" * 40_000, b"\n")
        return choose.choice(
            (
                b"",
                text + text,
                text[:place],
                text[:place] + choose.choice(odd) + text[place:],
                text.decode().encode("utf-16"),
                text[:-1] + b"," + text[1:],
                b"[" + text + b"]",
            )
        )

    def _value(self, name: str) -> str:
        choose = self._random
        if name == "reason":
            return choose.choice(("orphan_cleanup", "cancelled", "finished", "admin_request", "timeout", "bored"))
        return choose.choice(
            ("registry.invalid/a:1.0.0", "a:1", "A:1", ":", "a" * 300, "a@sha256:" + "0" * 64, "a b", "ä:1", "a:1.0.1")
        )

    def raw(self) -> bytes:
        """Bytes that are almost a request, or none at all."""
        from rtmanager.tests.test_http_request_reader import BAD_CHUNKS, CHUNKED, POST, SMUGGLED

        choose = self._random
        kind = choose.randrange(5)
        if kind == 0:
            return choose.randbytes(choose.randrange(1, 3000))
        if kind == 1:
            return CHUNKED + choose.choice(BAD_CHUNKS) + SMUGGLED
        whole = self.request().encoded() if kind == 2 else CHUNKED + b"5\r\nabcde\r\n0\r\n\r\n"
        if kind == 4:
            odd = (
                "Content-Length: 5",
                "Transfer-Encoding: xchunked",
                "Content-Length: +5",
                "Host: y",
                "a",
                " a: b",
                "a : b",
            )
            whole = POST + f"{choose.choice(odd)}\r\n".encode() * choose.randrange(1, 3) + b"\r\nabcde"
        data = bytearray(whole + SMUGGLED)
        for _ in range(choose.randrange(1, 4)):
            place = choose.randrange(len(data))
            data[place : place + choose.randrange(3)] = choose.choice(
                (b"\n", b"\r", b"\0", b"\r\n", b" ", b":", b"\xff", b"", b"0")
            )
        return bytes(data)


@dataclass
class _Fuzz:
    """Sends requests to a manager and checks the answers."""

    operations: Any
    address: tuple[str, int]
    statuses: Counter[int] = field(default_factory=Counter)

    def violations(self, seed: int, numbers: Sequence[int]) -> Iterator[str]:
        """The violations in the answers to the requests with these numbers."""
        line: socket.socket | None = None
        for number in numbers:
            maker = _Maker(self.operations, random.Random(f"{seed} {number}"))
            if number % RAW_EVERY == 0:
                yield from (f"raw input {number}: {fault}" for fault in self._raw_faults(maker.raw()))
                continue
            request = maker.request()
            line = line or socket.create_connection(self.address, HANG_S)
            faults, keep = self._faults(line, request)
            yield from (f"input {number}: {fault}; {request.encoded()[:300]!r}" for fault in faults)
            if not keep:
                line.close()
                line = None
        if line is not None:
            line.close()

    def _faults(self, line: socket.socket, request: _Request) -> tuple[list[str], bool]:
        with contextlib.suppress(OSError):  # rejected before it was sent whole; the answer gives the reason
            line.sendall(request.encoded())
        try:
            answer = http.client.HTTPResponse(line, method=request.method)
            answer.begin()
            keep = answer.getheader("Connection") == "keep-alive"
            # http.client expects no body of HEAD, and drops one; on a kept connection the next answer then fails.
            body = answer.fp.read() if request.method == "HEAD" and not keep else answer.read()
        except (OSError, http.client.HTTPException) as error:
            return [f"no answer: {error!r}"], False
        self.statuses[answer.status] += 1
        return list(self._judged(request, answer, body)), keep

    def _judged(self, request: _Request, answer: http.client.HTTPResponse, body: bytes) -> Iterator[str]:
        from rtmanager.tests.openapi_replay import Case, request_faults, response_faults

        status, operation = answer.status, self.operations[request.operation_id]
        if request.method == "HEAD":
            if body:
                yield f"an answer to HEAD with a body: {body[:100]!r}"
            return
        try:
            code = json.loads(body)["error"]["code"] if status != 200 else None
        except (ValueError, KeyError, TypeError):
            yield f"{status} without the error body of the contract: {body[:200]!r}"
            return
        if code == "internal_error":
            yield f"{status} {body[:500]!r}"
        right = request.method == operation.method
        elsewhere = request.path != operation.template.replace("{game_id}", quote(request.game_id, safe=""))
        documented = operation.content["responses"]
        if elsewhere and status in (404, 405, 421):
            return
        if status not in _PROTOCOL and str(status) not in documented and (right or status not in (403, 404, 415, 421)):
            yield f"{request.operation_id} does not document {status} {code}"
            return
        if status in _PROTOCOL and code != "invalid_request" and str(status) not in documented:
            yield f"{status} with the code {code}"
        if not right:
            return
        ignores_query = operation.template in (LIVENESS, READINESS)
        as_case = Case(
            request.operation_id,
            status,
            code,
            game_id=request.game_id,
            query={} if ignores_query else request.parameters or {},
            headers=dict(request.headers),
            body=request.body or None,
        )
        as_http = status == 400 and "X-Request-Id" not in answer.headers
        response = documented["default"] if as_http else documented.get(str(status), documented["default"])
        yield from response_faults(response, as_case, status, answer.headers, body)
        if status == 200:
            if request.parameters is None and not ignores_query:
                yield "a query that is none was accepted"
            yield from (f"accepted, but {fault}" for fault in request_faults(operation, as_case))

    def _raw_faults(self, data: bytes) -> Iterator[str]:
        """Violations on one connection: no end in time, a defect, or an answer after the last one."""
        received = b""
        with socket.create_connection(self.address, HANG_S) as line:
            try:
                line.sendall(data)
                line.shutdown(socket.SHUT_WR)
                while piece := line.recv(65536):
                    received += piece
            except TimeoutError:
                yield f"neither answered nor closed: {data[:300]!r}, answered {received[:300]!r}"
            except OSError:
                pass  # a reset closes it, too
        heads = received.split(b"HTTP/1.1 ")[1:]
        for number, head in enumerate(heads, 1):
            self.statuses[int(head[:3])] += 1
            if b"internal_error" in head:
                yield f"a defect: {head[:500]!r} for {data[:300]!r}"
            if b"\r\nConnection: close\r\n" in head and number < len(heads):
                yield f"an answer behind the last: {received[:1000]!r} for {data[:300]!r}"
