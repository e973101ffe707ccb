"""The API returns a game's health and operation log from the store, page by page; and the metrics."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.findings import RestartCause
from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.operation import LogEntry, OpKind, OpSource, Outcome
from rtmanager.domain.outage import LastExit
from rtmanager.fakes.store import PlannedRestart
from rtmanager.http.api import RUNTIMES
from rtmanager.tests.making import log_entry
from rtmanager.tests.test_http_api import NOW, ApiTestCase

AWAY = NOW.astimezone(timezone(timedelta(hours=5)))
GAME = f"{RUNTIMES}/g1"


class HealthTest(ApiTestCase):
    def test_a_game_of_which_nothing_was_seen_has_all_fields_and_null_in_them(self) -> None:
        self.assertEqual(
            self.request("GET", f"{GAME}/health"),
            (
                200,
                {
                    "game_id": "g1",
                    "status": None,
                    "container_id": None,
                    "source": None,
                    "details": None,
                    "observed_at": None,
                    "last_exit": None,
                    "restart_due_at": None,
                    "probe_restart_given_up": False,
                },
            ),
        )

    def test_a_crash_is_reported_with_its_log_and_times_in_utc(self) -> None:
        details = {"exit_code": 137, "oom": True, "more": {"deep": [1, None, "é"]}}
        self.store.write_event(
            HealthEvent("g1", "c1", EventType.CONTAINER_OOM, HealthSource.DOCKER_EVENT, AWAY, details)
        )
        self.store.last_exits["g1"] = LastExit("c0", 137, True, AWAY, 'out of "memory"\n\u2028')
        self.store.planned_restarts["g1"] = PlannedRestart("c1", AWAY + timedelta(seconds=10), RestartCause.CRASH)
        self.assertEqual(
            self.request("GET", f"{GAME}/health"),
            (
                200,
                {
                    "game_id": "g1",
                    "status": "oom",
                    "container_id": "c1",
                    "source": "docker_event",
                    "details": details,
                    "observed_at": "2026-03-01T12:30:05.120000Z",
                    "last_exit": {
                        "container_id": "c0",
                        "exit_code": 137,
                        "oom": True,
                        "exited_at": "2026-03-01T12:30:05.120000Z",
                        "log": 'out of "memory"\n\u2028',
                        "requested_by": "unknown",
                        "budget_used_up": False,
                    },
                    "restart_due_at": "2026-03-01T12:30:15.120000Z",
                    "probe_restart_given_up": False,
                },
            ),
        )

    def test_a_game_without_a_record_is_not_found_in_the_text_of_the_record(self) -> None:
        self.store.write_event(HealthEvent("g2", "c1", EventType.CONTAINER_STARTED, HealthSource.INSPECT, NOW))
        answer = self.request("GET", f"{RUNTIMES}/g2/health")
        self.assert_refused(answer, ErrorCode.NOT_FOUND, "g2")
        self.assertEqual(answer, self.request("GET", f"{RUNTIMES}/g2"))

    def test_what_cannot_be_requested_is_refused(self) -> None:
        self.assert_refused(self.request("GET", f"{RUNTIMES}/a.b/health"), ErrorCode.INVALID_REQUEST, "game_id")
        self.assert_refused(self.request("GET", f"{GAME}/health?limit=1"), ErrorCode.INVALID_REQUEST, "'limit'")
        self.assert_refused(self.request("POST", f"{GAME}/health"), ErrorCode.INVALID_REQUEST, "GET, HEAD", status=405)

    def test_an_unreadable_store_is_unavailable(self) -> None:
        self.store.trouble.available = False
        self.assert_refused(self.request("GET", f"{GAME}/health"), ErrorCode.SERVICE_UNAVAILABLE, "does not answer")


class LogTest(ApiTestCase):
    def setUp(self) -> None:
        super().setUp()
        # Rows of another game are between the rows of this one.
        for number in range(1, 251):
            self.store.log += [log_entry("g1", source_ref=f"rest:{number}"), log_entry("g2")]

    def follow(self, query: str) -> list[list[str]]:
        """Follow the cursors; the `source_ref` of the rows of each page."""
        pages, cursor = [], ""
        while True:
            status, page = self.request("GET", f"{GAME}/operations?{query}{cursor}")
            self.assertEqual((status, page.keys()), (200, {"items", "next_cursor"}), page)
            pages.append([row["source_ref"] for row in page["items"]])
            if page["next_cursor"] is None:
                return pages
            cursor = f"&cursor={page['next_cursor']}"

    def test_pages_go_from_the_newest_to_the_oldest_without_gap_or_repetition(self) -> None:
        expected = [f"rest:{number}" for number in range(250, 0, -1)]
        for size in (1, 7, 125, 249, 250, 251, 1000):
            with self.subTest(size=size):
                pages = self.follow(f"limit={size}")
                self.assertEqual([row for page in pages for row in page], expected)
                self.assertTrue(all(len(page) == size for page in pages[:-1]))
                self.assertTrue(pages[-1], "the last page is empty")

    def test_a_page_has_a_hundred_unless_requested_otherwise(self) -> None:
        self.assertEqual(len(self.request("GET", f"{GAME}/operations")[1]["items"]), 100)

    def test_rows_that_come_meanwhile_move_nothing(self) -> None:
        first = self.request("GET", f"{GAME}/operations?limit=2")[1]
        self.store.log.append(log_entry("g1", source_ref="rest:new"))
        second = self.request("GET", f"{GAME}/operations?limit=2&cursor={first['next_cursor']}")[1]
        self.assertEqual([row["source_ref"] for row in second["items"]], ["rest:248", "rest:247"])

    def test_a_row_has_all_its_fields_and_times_in_utc(self) -> None:
        success = log_entry("g3", OpKind.CLEANUP, source=OpSource.AUTO_TTL, started_at=AWAY, finished_at=AWAY)
        failure = replace(
            success,
            outcome=Outcome.FAILURE,
            image_ref="a:1",
            container_id="c1",
            error_code=ErrorCode.CONFLICT,
            error_message="because",
        )
        self.store.log = [success, failure]
        expected = {
            "id": 1,
            "game_id": "g3",
            "op_kind": "cleanup_container",
            "op_source": "auto_ttl",
            "source_ref": "req-1",
            "image_ref": None,
            "container_id": None,
            "outcome": "success",
            "error_code": None,
            "error_message": None,
            "started_at": "2026-03-01T12:30:05.120000Z",
            "finished_at": "2026-03-01T12:30:05.120000Z",
        }
        failed = {"image_ref": "a:1", "container_id": "c1", "outcome": "failure", "error_code": "conflict"}
        failed["error_message"] = "because"
        self.assertEqual(self.rows("g3"), [{**expected, "id": 2, **failed}, expected])

    def rows(self, game_id: str) -> list[dict[str, Any]]:
        """The first page of a game's log."""
        status, page = self.request("GET", f"{RUNTIMES}/{game_id}/operations")
        self.assertEqual(status, 200, page)
        rows: list[dict[str, Any]] = page["items"]
        return rows

    def test_a_game_whose_first_start_failed_has_a_log_and_no_record(self) -> None:
        failed: LogEntry = log_entry("g9", outcome=Outcome.FAILURE, error_code=ErrorCode.IMAGE_PULL_FAILED)
        self.store.log.append(failed)
        self.assertEqual([row["error_code"] for row in self.rows("g9")], ["image_pull_failed"])
        before_all = self.cursor("<1")
        self.assertEqual(
            self.request("GET", f"{RUNTIMES}/g9/operations?cursor={before_all}"),
            (200, {"items": [], "next_cursor": None}),
        )

    def test_a_game_with_a_record_may_have_no_row(self) -> None:
        self.store.log.clear()
        self.assertEqual(self.rows("g1"), [])

    def test_a_game_with_neither_is_not_found(self) -> None:
        for query in ("", f"?cursor={self.cursor('<7')}"):
            self.assert_refused(self.request("GET", f"{RUNTIMES}/g9/operations{query}"), ErrorCode.NOT_FOUND, "g9")

    @staticmethod
    def cursor(place: str) -> str:
        return urlsafe_b64encode(place.encode()).decode().rstrip("=")

    def test_what_is_not_understood_is_refused_by_name(self) -> None:
        places = ("<0", "<-1", "<01", "<+1", "<1 ", "<1\n", "< 1", "<", "1", "<1<", "<x", "<²", "<9223372036854775808")
        for query, word in (
            ("limit=0", "limit '0'"),
            ("limit=1001", "1000"),
            ("limit=", "limit"),
            ("status=running", "'status'"),
            ("cursor=", "cursor"),
            ("cursor=!", "cursor"),
            ("cursor=%C3%A9", "cursor"),
            (f"cursor={self.cursor('<7')}!", "cursor"),
            (f"cursor={self.cursor('<7')}%3D", "cursor"),
            (f"cursor={self.cursor('<7')}&cursor=1", "twice"),
            *((f"cursor={self.cursor(place)}", "cursor") for place in places),
        ):
            with self.subTest(query=query):
                self.assert_refused(self.request("GET", f"{GAME}/operations?{query}"), ErrorCode.INVALID_REQUEST, word)
        self.assert_refused(self.request("GET", f"{RUNTIMES}/a.b/operations"), ErrorCode.INVALID_REQUEST, "game_id")

    def test_the_largest_place_that_the_store_can_hold_is_one(self) -> None:
        answer = self.request("GET", f"{GAME}/operations?limit=1&cursor={self.cursor('<9223372036854775807')}")
        self.assertEqual(answer[1]["items"][0]["source_ref"], "rest:250")

    def test_a_cursor_of_the_games_is_none_of_a_log_and_the_other_way_round(self) -> None:
        of_a_log = self.request("GET", f"{GAME}/operations?limit=1")[1]["next_cursor"]
        self.assert_refused(self.request("GET", f"{RUNTIMES}?cursor={of_a_log}"), ErrorCode.INVALID_REQUEST, "cursor")
        of_the_games = self.cursor("7")
        self.assertEqual(self.request("GET", f"{RUNTIMES}?cursor={of_the_games}")[0], 200)
        self.assert_refused(
            self.request("GET", f"{GAME}/operations?cursor={of_the_games}"), ErrorCode.INVALID_REQUEST, "cursor"
        )

    def test_an_unreadable_store_is_unavailable(self) -> None:
        self.store.trouble.available = False
        self.assert_refused(self.request("GET", f"{GAME}/operations"), ErrorCode.SERVICE_UNAVAILABLE, "does not answer")


class MetricsTest(ApiTestCase):
    def test_metrics_are_handed_out_as_they_are(self) -> None:
        self.api = self.make_api(metrics=lambda: '# HELP a é\na{b="c"} 1\n')
        response = self.response("GET", "/metrics", x_request_id="r-1")
        self.assertEqual((response.status, response.body.decode()), (200, '# HELP a é\na{b="c"} 1\n'))
        self.assertEqual(response.content_type, "text/plain; version=0.0.4; charset=utf-8")
        self.assertEqual(response.headers["X-Request-Id"], "r-1")
        self.assertEqual(self.response("HEAD", "/metrics").body, response.body)

    def test_without_metrics_the_answer_is_empty(self) -> None:
        response = self.response("GET", "/metrics")
        self.assertEqual((response.status, response.body), (200, b""))

    def test_metrics_that_fail_are_a_defect_and_answered_as_json(self) -> None:
        def broken() -> str:
            raise ZeroDivisionError

        self.api = self.make_api(metrics=broken)
        with self.assertLogs(self.logger):
            response = self.response("GET", "/metrics")
        self.assertEqual(response.content_type, "application/json; charset=utf-8")
        self.assert_refused((response.status, json.loads(response.body)), ErrorCode.INTERNAL_ERROR)

    def test_metrics_take_no_parameter(self) -> None:
        self.assert_refused(self.request("GET", "/metrics?name=a"), ErrorCode.INVALID_REQUEST, "'name'")
