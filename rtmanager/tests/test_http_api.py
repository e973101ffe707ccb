"""The API rejects with precise errors, queues exactly the requested operation, and answers with the new record."""

from __future__ import annotations

import json
import logging
import threading
import unittest
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from unittest import mock

from rtmanager.domain import operation
from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.operation import OpKind, OpSource, Outcome
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.fakes.answers import record_json
from rtmanager.fakes.store import ManualClock, MemoryHistories, MemoryStore
from rtmanager.http.api import RUNTIMES, Api
from rtmanager.http.messages import STATUS_OF, Request, Response
from rtmanager.http.refusals import StoreRefusals
from rtmanager.ports.store import PROBE, GameBusy, OperationResult, StoreRejected

NOW = datetime(2026, 3, 1, 12, 30, 5, 120000, UTC)
SUCCESS = OperationResult(Outcome.SUCCESS, None, "")


def record_of(game_id: str, status: Status = Status.RUNNING) -> RuntimeRecord:
    """A record as a start leaves it."""
    return RuntimeRecord(
        game_id=game_id,
        status=status,
        current_container_id="c1",
        current_image_ref="galaxy/game:1.0.0",
        engine_endpoint=f"http://galaxy-game-{game_id}:8080",
        state_path=f"/games/{game_id}",
        docker_network="galaxy-net",
        started_at=NOW,
        stopped_at=None,
        removed_at=None,
        last_op_at=NOW,
        created_at=NOW,
    )


class StoredRecords:
    """Records in memory; every read raises `broken` if it is set."""

    def __init__(self, *records: RuntimeRecord) -> None:
        self.by_id = {record.game_id: record for record in records}
        self.broken: Exception | None = None

    def get(self, game_id: str) -> RuntimeRecord | None:
        if self.broken is not None:
            raise self.broken
        return self.by_id.get(game_id)

    def of(self, game_ids: Collection[str]) -> Mapping[str, RuntimeRecord]:
        raise AssertionError("no request asks for the records of some games")

    def page(self, *, status: Status | None, after: str | None, limit: int) -> Sequence[RuntimeRecord]:
        if self.broken is not None:
            raise self.broken
        found = [self.by_id[game_id] for game_id in sorted(self.by_id) if after is None or game_id > after]
        return [record for record in found if status in (None, record.status)][:limit]

    def get_as_json(self, game_id: str) -> bytes | None:
        record = self.get(game_id)
        return record_json(record).encode() if record else None

    def page_as_json(self, *, status: Status | None, after: str | None, limit: int) -> Sequence[bytes]:
        return [record_json(each).encode() for each in self.page(status=status, after=after, limit=limit)]


class RecordedCalls:
    """Records the requests, and answers with the result that the test sets."""

    def __init__(self) -> None:
        self.requests: list[operation.Request] = []
        self.end: Callable[[operation.Request], OperationResult] = lambda _: SUCCESS
        self.room: Callable[[operation.Request], object] = lambda _: None

    def perform(self, request: operation.Request) -> OperationResult:
        self.requests.append(request)
        return self.end(request)

    def require_room(self, request: operation.Request) -> None:
        self.room(request)


class ApiTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.calls, self.records = RecordedCalls(), StoredRecords(record_of("g1"))
        self.store = MemoryStore(ManualClock())
        self.missing: Mapping[str, str] = {}
        self.logger = logging.Logger("api-test")
        self.logger.addHandler(logging.NullHandler())
        self.api = self.make_api()

    def make_api(self, **options: Any) -> Api:
        return Api(
            calls=self.calls,
            records=self.records,
            histories=MemoryHistories(self.store),
            readiness=lambda: self.missing,
            logger=self.logger,
            **options,
        )

    def request(self, method: str, path: str, body: bytes | object = b"", **headers: str) -> tuple[int, Any]:
        response = self.response(method, path, body, **headers)
        return response.status, json.loads(response.body)

    def response(self, method: str, path: str, body: bytes | object = b"", **headers: str) -> Response:
        path, _, query = path.partition("?")
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data:
            named.setdefault("content-type", "application/json")
        return self.api.handle(Request(method, path, query, named, data))

    def assert_refused(self, answer: tuple[int, Any], code: ErrorCode, *texts: str, status: int | None = None) -> None:
        self.assertEqual(answer[1].keys(), {"error"})
        error = answer[1]["error"]
        self.assertEqual((answer[0], error["code"]), (STATUS_OF[code] if status is None else status, code), error)
        for text in texts:
            self.assertIn(text, error["message"])


class ReadsTest(ApiTestCase):
    def test_liveness_checks_no_dependency(self) -> None:
        self.missing, self.records.broken = {"postgres": "gone"}, Unavailable("postgres", "gone")
        self.assertEqual(self.request("GET", "/healthz"), (200, {"status": "ok"}))

    def test_a_query_of_a_probe_is_ignored(self) -> None:
        for query in ("?verbose", "?a=1&a=1", "?%zz", "?" + "x" * 5000):
            for path in ("/healthz", "/readyz"):
                with self.subTest(path, query=query[:10]):
                    self.assertEqual(self.response("GET", path + query).status, 200)

    def test_readiness_names_each_dependency_that_does_not_answer(self) -> None:
        self.assertEqual(self.request("GET", "/readyz"), (200, {"status": "ready"}))
        self.missing = {"postgres": "connection refused", "network": "no such network"}
        self.assert_refused(
            self.request("GET", "/readyz"),
            ErrorCode.SERVICE_UNAVAILABLE,
            "postgres: connection refused",
            "network: no such network",
        )

    def test_a_record_has_all_its_fields_and_times_in_utc(self) -> None:
        away = NOW.astimezone(timezone(timedelta(hours=-3)))
        self.records.by_id["g1"] = replace(record_of("g1"), started_at=away, current_container_id=None)
        self.assertEqual(
            self.request("GET", f"{RUNTIMES}/g1"),
            (
                200,
                {
                    "game_id": "g1",
                    "status": "running",
                    "current_container_id": None,
                    "current_image_ref": "galaxy/game:1.0.0",
                    "engine_endpoint": "http://galaxy-game-g1:8080",
                    "state_path": "/games/g1",
                    "docker_network": "galaxy-net",
                    "started_at": "2026-03-01T12:30:05.120000Z",
                    "stopped_at": None,
                    "removed_at": None,
                    "last_op_at": "2026-03-01T12:30:05.120000Z",
                    "created_at": "2026-03-01T12:30:05.120000Z",
                },
            ),
        )

    def test_an_unknown_game_is_not_found_and_a_malformed_one_is_refused(self) -> None:
        self.assert_refused(self.request("GET", f"{RUNTIMES}/g2"), ErrorCode.NOT_FOUND, "g2")
        for path in ("..", "a.b", "%2e", "a%2Fb", "-a", "a" * 52, "%F0%9F%92%A9"):
            with self.subTest(path=path):
                self.assert_refused(
                    self.request("GET", f"{RUNTIMES}/{path}"), ErrorCode.INVALID_REQUEST, "game_id", "malformed"
                )

    def test_an_encoded_id_is_decoded(self) -> None:
        self.assertEqual(self.request("GET", f"{RUNTIMES}/%671")[0], 200)

    def test_a_path_that_cannot_be_decoded_is_refused(self) -> None:
        for path in ("%", "%2", "%zz", "a%FF", "%e3h", "..%c0%af", "%ed%a0%80"):
            with self.subTest(path=path):
                self.assert_refused(self.request("GET", f"{RUNTIMES}/{path}"), ErrorCode.INVALID_REQUEST, path)

    def test_an_unreadable_store_is_unavailable(self) -> None:
        self.records.broken = Unavailable("postgres", "PostgreSQL does not answer")
        for path in (RUNTIMES, f"{RUNTIMES}/g1"):
            self.assert_refused(self.request("GET", path), ErrorCode.SERVICE_UNAVAILABLE, "PostgreSQL does not answer")


class ListTest(ApiTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.games = [f"g{number:03}" for number in range(250)]
        status = (Status.RUNNING, Status.STOPPED)
        self.records.by_id = {game: record_of(game, status[at % 2]) for at, game in enumerate(self.games)}

    def follow(self, query: str) -> list[list[str]]:
        """Follow the cursors; the game ids of each page."""
        pages, cursor = [], ""
        while True:
            status, page = self.request("GET", f"{RUNTIMES}?{query}{cursor}")
            self.assertEqual((status, page.keys()), (200, {"items", "next_cursor"}), page)
            pages.append([record["game_id"] for record in page["items"]])
            if page["next_cursor"] is None:
                return pages
            cursor = f"&cursor={page['next_cursor']}"

    def test_pages_follow_each_other_without_gap_or_repetition(self) -> None:
        for size in (1, 7, 125, 249, 250, 251, 1000):
            with self.subTest(size=size):
                pages = self.follow(f"limit={size}")
                self.assertEqual([game for page in pages for game in page], self.games)
                self.assertTrue(all(len(page) == size for page in pages[:-1]))
                self.assertTrue(pages[-1], "the last page is empty")

    def test_a_page_has_a_hundred_unless_requested_otherwise(self) -> None:
        self.assertEqual(len(self.request("GET", RUNTIMES)[1]["items"]), 100)

    def test_a_status_selects(self) -> None:
        self.assertEqual(self.follow("status=stopped&limit=200"), [self.games[1::2]])
        self.assertEqual(self.follow("status=removed"), [[]])

    def test_what_is_not_understood_is_refused_by_name(self) -> None:
        for query, text in (
            ("limit=0", "limit '0'"),
            ("limit=1001", "1000"),
            ("limit=-1", "limit"),
            ("limit=+1", "limit"),
            ("limit=1e2", "limit"),
            ("limit=%C2%B2", "limit"),
            ("limit=" + "9" * 99, "limit"),
            ("limit=", "limit"),
            ("limit=1&limit=2", "twice"),
            ("status=dead", "running, stopped, removed"),
            ("status=", "status"),
            ("cursor=", "cursor"),
            ("cursor=!", "cursor"),
            ("cursor=abc", "cursor"),
            ("cursor=ZzE!", "cursor"),
            ("cursor=ZzE%3D", "cursor"),
            ("cursor=%C3%A9", "cursor"),
            ("cursor=Li4", "cursor"),
            ("Status=running", "'Status'"),
            ("limit", "name=value"),
            ("status=%FF", "UTF-8"),
            ("&".join(["limit=1"] * 100), "query"),
        ):
            with self.subTest(query=query):
                self.assert_refused(self.request("GET", f"{RUNTIMES}?{query}"), ErrorCode.INVALID_REQUEST, text)


class OperationsTest(ApiTestCase):
    def test_each_endpoint_queues_its_operation_and_answers_with_the_record(self) -> None:
        for method, path, body, kind, image_ref, reason in (
            ("POST", "start", {"image_ref": "a:1"}, OpKind.START, "a:1", ""),
            ("POST", "stop", {"reason": "finished"}, OpKind.STOP, "", "finished"),
            ("POST", "restart", {}, OpKind.RESTART, "", ""),
            ("POST", "restart", b"", OpKind.RESTART, "", ""),
            ("POST", "patch", {"image_ref": "a:2"}, OpKind.PATCH, "a:2", ""),
            ("DELETE", "container", b"", OpKind.CLEANUP, "", ""),
        ):
            with self.subTest(path=path, body=body):
                status, content = self.request(method, f"{RUNTIMES}/g1/{path}", body, x_request_id="r-1")
                self.assertEqual((status, content["game_id"]), (200, "g1"))
                expected = operation.Request("g1", kind, OpSource.ADMIN_REST, "rest:r-1", image_ref, reason)
                self.assertEqual(self.calls.requests.pop(), expected)

    def test_the_record_is_read_after_the_end(self) -> None:
        def stop(_request: operation.Request) -> OperationResult:
            self.records.by_id["g1"] = record_of("g1", Status.STOPPED)
            return SUCCESS

        self.calls.end = stop
        self.assertEqual(self.request("POST", f"{RUNTIMES}/g1/stop", {"reason": "timeout"})[1]["status"], "stopped")

    def test_the_callers_name_decides_the_source(self) -> None:
        for headers, source in (
            ({"x_galaxy_caller": "gm"}, OpSource.GM_REST),
            ({"x_galaxy_caller": "admin"}, OpSource.ADMIN_REST),
            ({"x_galaxy_caller": "GM "}, OpSource.ADMIN_REST),
            ({}, OpSource.ADMIN_REST),
        ):
            self.response("POST", f"{RUNTIMES}/g1/restart", **headers)
            self.assertEqual(self.calls.requests[-1].source, source)

    def test_a_failure_has_the_status_of_its_code(self) -> None:
        for code, status in STATUS_OF.items():
            self.calls.end = lambda _, code=code: OperationResult(Outcome.FAILURE, code, "because")  # type: ignore[misc]
            self.assert_refused(self.request("POST", f"{RUNTIMES}/g1/restart"), code, "because", status=status)

    def test_a_replay_is_a_success(self) -> None:
        self.calls.end = lambda _: OperationResult(Outcome.SUCCESS, ErrorCode.REPLAY_NO_OP, "it runs")
        self.assertEqual(self.request("POST", f"{RUNTIMES}/g1/start", {"image_ref": "a:1"})[0], 200)

    def test_a_busy_game_is_a_conflict(self) -> None:
        self.calls.end = raiser(GameBusy("game g1 is busy with stop"))
        self.assert_refused(self.request("POST", f"{RUNTIMES}/g1/restart"), ErrorCode.CONFLICT, "busy with stop")

    def test_a_missing_dependency_is_unavailable(self) -> None:
        self.calls.end = raiser(Unavailable("docker", "Docker does not answer"))
        self.assert_refused(
            self.request("POST", f"{RUNTIMES}/g1/restart"), ErrorCode.SERVICE_UNAVAILABLE, "Docker does not answer"
        )

    def test_a_record_that_cannot_be_read_afterwards_does_not_hide_the_success(self) -> None:
        self.records.broken = Unavailable("postgres", "PostgreSQL does not answer")
        self.assert_refused(
            self.request("POST", f"{RUNTIMES}/g1/restart"),
            ErrorCode.SERVICE_UNAVAILABLE,
            "restart of game g1 succeeded",
        )
        self.records.broken = None
        self.records.by_id.clear()
        self.assert_refused(self.request("POST", f"{RUNTIMES}/g1/restart"), ErrorCode.INTERNAL_ERROR, "no record")

    def test_a_defect_is_answered_and_logged_under_the_request_id(self) -> None:
        self.calls.end = raiser(ZeroDivisionError("seventeen"))
        with self.assertLogs(self.logger, logging.ERROR) as logs:
            answer = self.request("POST", f"{RUNTIMES}/g1/restart", x_request_id="r-9")
        self.assert_refused(answer, ErrorCode.INTERNAL_ERROR, "r-9")
        self.assertIn("ZeroDivisionError: seventeen", logs.output[0])
        self.assertEqual(vars(logs.records[0])["request_id"], "r-9")

    def test_more_waiting_calls_than_allowed_are_turned_away_and_reads_are_not(self) -> None:
        self.api = self.make_api(waiting_calls=1)
        waiting, go_on = threading.Event(), threading.Event()

        def slow(_request: operation.Request) -> OperationResult:
            waiting.set()
            go_on.wait(3)
            return SUCCESS

        self.calls.end = slow
        first = threading.Thread(target=self.request, args=("POST", f"{RUNTIMES}/g1/restart"))
        first.start()
        self.assertTrue(waiting.wait(3))
        self.assert_refused(
            self.request("POST", f"{RUNTIMES}/g2/restart"), ErrorCode.SERVICE_UNAVAILABLE, "1 calls wait"
        )
        self.assertEqual(self.request("GET", f"{RUNTIMES}/g1")[0], 200)
        go_on.set()
        first.join(3)
        self.assertEqual(self.request("POST", f"{RUNTIMES}/g1/restart")[0], 200)


class RefusedByStoreTest(ApiTestCase):
    """PostgreSQL rejects a request: for one game, or for each."""

    def setUp(self) -> None:
        super().setUp()
        self.failed: list[str] = []
        self.log = self.enterContext(self.assertLogs(self.logger))
        self.logger.info("begins")  # assertLogs fails without a line
        self.refusals = StoreRefusals(lambda kind, _: self.failed.append(kind), self.logger)
        self.api = self.make_api(refusals=self.refusals)

    def refuse(self, _request: operation.Request) -> OperationResult:
        raise StoreRejected("violates jobs_only")

    def messages(self) -> list[str]:
        found = [record.getMessage() for record in self.log.records[1:]]
        return [message for message in found if message != "audit"]

    def test_a_call_of_one_game_is_an_internal_error_and_readiness_does_not_mind(self) -> None:
        self.calls.end = self.refuse
        answer = self.request("POST", f"{RUNTIMES}/g1/restart", {})
        self.assert_refused(answer, ErrorCode.INTERNAL_ERROR, "violates jobs_only")
        self.refusals.check()
        self.assertEqual(self.failed, ["restart"])

    def test_calls_of_every_game_are_unavailable_until_one_is_taken(self) -> None:
        self.calls.end = self.calls.room = self.refuse
        for _ in range(2):
            answer = self.request("POST", f"{RUNTIMES}/g1/restart", {})
            self.assert_refused(answer, ErrorCode.SERVICE_UNAVAILABLE, "violates jobs_only", "every restart")
        self.assertEqual(self.failed, ["restart", "restart"])
        self.assertEqual(self.messages(), ["the store refuses every request of a kind"])
        with self.assertRaisesRegex(StoreRejected, "every restart: violates jobs_only; remedy: undo"):
            self.refusals.check()
        self.calls.end = lambda _: SUCCESS
        self.assertEqual(self.request("POST", f"{RUNTIMES}/g1/restart", {})[0], 200)
        self.assertEqual(self.messages()[1:], ["the store refuses requests of a kind no more"])
        self.refusals.check()

    def test_readiness_finds_out_by_itself_that_it_is_mended_and_leaves_silence_to_others(self) -> None:
        self.calls.end = self.calls.room = self.refuse
        self.request("POST", f"{RUNTIMES}/g1/stop", {"reason": "finished"})

        def silent(_request: operation.Request) -> None:
            raise Unavailable("postgres", "away")

        self.calls.room = silent
        self.refusals.check()
        self.calls.room = self.refuse
        with self.assertRaises(StoreRejected):
            self.refusals.check()
        self.calls.room = lambda _: None
        self.refusals.check()
        self.assertEqual(self.messages()[-1], "the store refuses requests of a kind no more")

    def test_the_probe_of_a_call_is_the_same_for_no_game(self) -> None:
        probed: list[operation.Request] = []
        self.calls.end, self.calls.room = self.refuse, probed.append
        for path, body in (("start", {"image_ref": "a:1.0.0"}), ("stop", {"reason": "timeout"}), ("restart", {})):
            self.request("POST", f"{RUNTIMES}/g1/{path}", body, x_galaxy_caller="gm")
        self.request("DELETE", f"{RUNTIMES}/g1/container")
        self.assertEqual({each.game_id for each in probed}, {PROBE})
        self.assertEqual([str(each.kind) for each in probed], ["start", "stop", "restart", "cleanup_container"])
        self.assertEqual([bool(each.image_ref) for each in probed], [True, False, False, False])

    def test_each_read_has_a_probe_of_its_own(self) -> None:
        histories = MemoryHistories(self.store)

        def refused(*_: object, **__: object) -> Any:
            raise StoreRejected("no such column")

        for owner, name, path in (
            (self.records, "get_as_json", "/g1"),
            (self.records, "page_as_json", ""),
            (histories, "health", "/g1/health"),
            (histories, "log", "/g1/operations"),
        ):
            with self.subTest(name), mock.patch.object(owner, name, refused):
                self.api = Api(
                    calls=self.calls,
                    records=self.records,
                    histories=histories,
                    readiness=dict,
                    logger=self.logger,
                    refusals=self.refusals,
                )
                answer = self.request("GET", f"{RUNTIMES}{path}")
                self.assert_refused(answer, ErrorCode.SERVICE_UNAVAILABLE, "no such column", "every read of")
                self.assertRaises(StoreRejected, self.refusals.check)
            self.refusals.check()

    def test_a_record_that_the_store_refuses_afterwards_does_not_hide_the_success(self) -> None:
        with mock.patch.object(self.records, "get_as_json", side_effect=[StoreRejected("odd row"), None]):
            answer = self.request("POST", f"{RUNTIMES}/g1/restart", {})
        self.assert_refused(answer, ErrorCode.INTERNAL_ERROR, "restart of game g1 succeeded", "odd row")


class GameIdsTest(ApiTestCase):
    def test_a_malformed_id_is_refused_before_anything_is_queued(self) -> None:
        for method, path, body in (
            ("POST", "stop", {"reason": "finished"}),
            ("POST", "restart", {}),
            ("POST", "patch", {"image_ref": "a:1"}),
            ("DELETE", "container", b""),
        ):
            with self.subTest(path=path):
                self.assert_refused(
                    self.request(method, f"{RUNTIMES}/a.b/{path}", body), ErrorCode.INVALID_REQUEST, "'a.b'"
                )
        self.assertEqual(self.calls.requests, [])

    def test_a_start_of_a_malformed_but_readable_id_is_an_operation(self) -> None:
        self.calls.end = lambda _: OperationResult(Outcome.FAILURE, ErrorCode.START_CONFIG_INVALID, "malformed")
        for path, game_id in (("a.b", "a.b"), ("a%2Fb", "a/b"), ("x" * 200, "x" * 200), ("%C3%A9", "é")):
            with self.subTest(path=path):
                answer = self.request("POST", f"{RUNTIMES}/{path}/start", {"image_ref": "a:1"})
                self.assert_refused(answer, ErrorCode.START_CONFIG_INVALID)
                self.assertEqual(self.calls.requests.pop().game_id, game_id)

    def test_a_start_of_an_unreadable_id_is_refused(self) -> None:
        for path in ("x" * 201, "a%00", "a%0A", "%E2%80%AE"):
            with self.subTest(path=path):
                answer = self.request("POST", f"{RUNTIMES}/{path}/start", {"image_ref": "a:1"})
                self.assert_refused(answer, ErrorCode.INVALID_REQUEST, "game_id")
        self.assertEqual(self.calls.requests, [])


class BodiesTest(ApiTestCase):
    def assert_body_refused(self, path: str, body: bytes, *texts: str) -> None:
        with self.subTest(path=path, body=body[:80]):
            answer = self.request("POST", f"{RUNTIMES}/g1/{path}", body)
            self.assert_refused(answer, ErrorCode.INVALID_REQUEST, *texts)
            self.assertEqual(self.calls.requests, [])

    def test_what_is_no_json_object_is_refused(self) -> None:
        for body, text in (
            (b"", "empty"),
            (b" ", "no JSON"),
            (b"{", "no JSON"),
            (b"[]", "an array"),
            (b"null", "null"),
            (b"true", "a boolean"),
            (b"1.5", "a number"),
            (b'"x"', "a string"),
            (b'{"image_ref":"a:1"} x', "no JSON"),
            (b'{"image_ref":"a:1"}{}', "no JSON"),
            (b"{'image_ref':'a:1'}", "no JSON"),
            (b'{"image_ref":"a:1",}', "no JSON"),
            (b'\xef\xbb\xbf{"image_ref":"a:1"}', "no JSON"),
            (b'{"image_ref":"\xff"}', "UTF-8"),
            (b"[" * 60_000, "deep"),
            (b'{"image_ref":' + b"[" * 60_000, "deep"),
            (b"9" * 60_000, "a number"),
            (b'{"image_ref":NaN}', "NaN"),
            (b'{"image_ref":-Infinity}', "-Infinity"),
        ):
            self.assert_body_refused("start", body, text, "image_ref" if "nity" not in text and text != "NaN" else "")

    def test_fields_are_exactly_those_expected_and_are_named(self) -> None:
        for body, text in (
            (b"{}", "image_ref is missing"),
            (b'{"image_ref":"a:1","image_ref":"b:1"}', "'image_ref' is given twice"),
            (b'{"image_ref":"a:1","x":1}', "unknown field 'x'"),
            (b'{"Image_ref":"a:1"}', "unknown field 'Image_ref'"),
            (b'{"image_ref":1}', "a number: expected a string"),
            (b'{"image_ref":' + b"9" * 5000 + b"}", "a number: expected a string"),
            (b'{"image_ref":true}', "a boolean"),
            (b'{"image_ref":null}', "null"),
            (b'{"image_ref":{}}', "an object"),
            (b'{"image_ref":""}', "not empty"),
            (b'{"image_ref":"a\\u0000"}', "printable"),
            (b'{"image_ref":"\\ud800"}', "printable"),
        ):
            self.assert_body_refused("start", body, text)
            self.assert_body_refused("patch", body, text)

    def test_a_reason_is_one_of_the_five(self) -> None:
        self.assert_body_refused("stop", b'{"reason":"bored"}', "'bored'", "orphan_cleanup", "admin_request")
        self.assert_body_refused("stop", b'{"reason":""}', "reason")
        self.assert_body_refused("stop", b"{}", "reason is missing")
        self.assert_body_refused("stop", b"", "empty")

    def test_a_restart_takes_no_field(self) -> None:
        self.assert_body_refused("restart", b'{"image_ref":"a:1"}', "'image_ref'", "an empty body or {}")
        self.assert_body_refused("restart", b"null", "null")

    def test_a_malformed_image_is_for_the_operation_to_refuse_and_stays_malformed_when_shortened(self) -> None:
        for image_ref, queued in (("NOT//AN IMAGE", "NOT//AN IMAGE"), ("a" * 60_000, "a" * 513)):
            self.response("POST", f"{RUNTIMES}/g1/start", {"image_ref": image_ref})
            self.assertEqual(self.calls.requests.pop().image_ref, queued)

    def test_a_body_where_none_belongs_is_refused(self) -> None:
        for method, path in (("GET", "/healthz"), ("GET", f"{RUNTIMES}/g1"), ("DELETE", f"{RUNTIMES}/g1/container")):
            self.assert_refused(self.request(method, path, {}), ErrorCode.INVALID_REQUEST, "no body")
        self.assertEqual(self.calls.requests, [])


class RoutesTest(ApiTestCase):
    def test_an_unknown_path_is_not_found(self) -> None:
        for path in (
            "/",
            "/healthz/",
            "//healthz",
            "/api/v1/internal/runtimes/",
            f"{RUNTIMES}/g1/",
            f"{RUNTIMES}/g1/nothing",
            f"{RUNTIMES}/{{game_id}}/nothing",
            f"{RUNTIMES}/a/b/start",
        ):
            with self.subTest(path=path):
                self.assert_refused(self.request("GET", path), ErrorCode.NOT_FOUND, path)

    def test_a_wrong_method_is_answered_with_the_right_ones(self) -> None:
        for method, path, allowed in (
            ("POST", "/healthz", "GET, HEAD"),
            ("OPTIONS", RUNTIMES, "GET, HEAD"),
            ("GET", f"{RUNTIMES}/g1/start", "POST"),
            ("HEAD", f"{RUNTIMES}/g1/start", "POST"),
            ("PATCH", f"{RUNTIMES}/g1/container", "DELETE"),
        ):
            with self.subTest(method=method, path=path):
                response = self.response(method, path)
                self.assert_refused(
                    (response.status, json.loads(response.body)), ErrorCode.INVALID_REQUEST, allowed, status=405
                )
                self.assertEqual(response.headers["Allow"], allowed)

    def test_head_is_answered_as_get(self) -> None:
        self.assertEqual(self.request("HEAD", f"{RUNTIMES}/g1"), self.request("GET", f"{RUNTIMES}/g1"))

    def test_a_parameter_that_an_endpoint_does_not_know_is_refused(self) -> None:
        self.assert_refused(self.request("GET", f"{RUNTIMES}/g1?limit=1"), ErrorCode.INVALID_REQUEST, "'limit'")

    def test_every_answer_carries_a_request_id(self) -> None:
        self.assertEqual(self.response("GET", "/healthz", x_request_id="a-1.b_C").headers["X-Request-Id"], "a-1.b_C")
        self.assertEqual(self.response("GET", "/nothing", x_request_id="a").headers["X-Request-Id"], "a")

    def test_a_request_id_that_could_do_harm_is_replaced(self) -> None:
        made = {
            self.response("GET", "/healthz", x_request_id=given).headers["X-Request-Id"]
            for given in ("", "a" * 65, "a b", "a:b", "a\nb", "é", ".")
        }
        self.assertEqual(len(made), 7)
        for request_id in made:
            self.assertRegex(request_id, r"\A[0-9a-f]{16}-[0-9]+\Z")


def raiser(error: Exception) -> Callable[[operation.Request], OperationResult]:
    """A result function that raises the error."""

    def end(_request: operation.Request) -> OperationResult:
        raise error

    return end
