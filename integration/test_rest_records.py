"""Records over REST: every field is always present, times are in UTC, lists by status and in pages."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from harness import start_services, web
from harness.rtm import RuntimeTestCase

FIELDS = (
    "game_id",
    "status",
    "current_container_id",
    "current_image_ref",
    "engine_endpoint",
    "state_path",
    "docker_network",
    "started_at",
    "stopped_at",
    "removed_at",
    "last_op_at",
    "created_at",
)
TIMES = tuple(name for name in FIELDS if name.endswith("_at"))


def setUpModule() -> None:
    start_services()


class Record(RuntimeTestCase):
    def test_a_record_has_every_field_in_every_state(self) -> None:
        self.start_runtime()
        started = self.post("start", {"image_ref": self.engine.ref})
        expected = {
            "game_id": self.game_id,
            "status": "running",
            "current_container_id": self.containers()[0]["Id"],
            "current_image_ref": self.engine.ref,
            "engine_endpoint": f"http://galaxy-game-{self.game_id}:8080",
            "state_path": str(self.state_root.folder("games") / self.game_id),
            "docker_network": self.network.name,
        }
        self.assertEqual({name: started[name] for name in expected}, expected)
        self.assert_encoded(started, null={"stopped_at", "removed_at"})
        self.assertEqual(started["started_at"], started["created_at"])

        stopped = self.post("stop", {"reason": "finished"})
        self.assert_encoded(stopped, null={"removed_at"})
        self.assert_same_but(started, stopped, {"status", "stopped_at", "last_op_at"})

        removed = self.succeed(self.call("DELETE", "/container"))
        self.assert_encoded(removed, null={"current_container_id"})
        self.assert_same_but(stopped, removed, {"status", "current_container_id", "removed_at", "last_op_at"})

    def assert_encoded(self, record: dict[str, Any], null: set[str]) -> None:
        """All fields are present, times follow RFC 3339 in UTC, and the row agrees."""
        self.assertEqual(tuple(record), FIELDS)
        self.assertEqual({name for name, value in record.items() if value is None}, null)
        row = self.record()
        for name in TIMES:
            if record[name] is not None:
                self.assertRegex(record[name], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z\Z")
                moment = datetime.fromisoformat(record[name])
                self.assertEqual((moment, moment.tzinfo), (row[name], UTC))
            else:
                self.assertIsNone(row[name])

    def assert_same_but(self, before: dict[str, Any], after: dict[str, Any], changed: set[str]) -> None:
        self.assertEqual({name for name in FIELDS if before[name] != after[name]}, changed)


class Lists(RuntimeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()

    def put(self, *games: tuple[str, str]) -> None:
        """Insert records of games with only their status."""
        insert = """
            INSERT INTO runtime_records
                (game_id, status, engine_endpoint, state_path, docker_network, last_op_at, created_at)
            VALUES (%s, %s, '', '', '', now(), now())"""
        with self.services.database.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(insert.encode(), games)

    def request_page(self, **query: object) -> tuple[int, Any]:
        return web.call("GET", f"{self.base_url}/api/v1/internal/runtimes?{urlencode(query)}")

    def pages(self, **query: object) -> list[list[str]]:
        """The game ids page by page, as a client reads them."""
        found: list[list[str]] = []
        while True:
            page = self.succeed(self.request_page(**query))
            self.assertEqual(set(page), {"items", "next_cursor"})
            found.append([item["game_id"] for item in page["items"]])
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    def test_without_records_the_list_is_empty(self) -> None:
        self.assertEqual(self.request_page(), (200, {"items": [], "next_cursor": None}))

    def test_records_are_listed_by_status(self) -> None:
        self.put(("a", "running"), ("b", "stopped"), ("c", "removed"), ("d", "running"))

        for status, games in (("running", ["a", "d"]), ("stopped", ["b"]), ("removed", ["c"])):
            self.assertEqual(self.pages(status=status), [games])
        self.assertEqual(self.pages(), [["a", "b", "c", "d"]])
        self.assertEqual(tuple(self.succeed(self.request_page())["items"][0]), FIELDS)

    def test_pages_together_are_the_whole_in_the_order_of_the_ids(self) -> None:
        games = ["0", "B", "a", "a-1", "a_1", "aa", "z"]
        self.put(*((game_id, "running" if number % 2 else "stopped") for number, game_id in enumerate(games)))

        self.assertEqual(self.pages(limit=1), [[game_id] for game_id in games])
        self.assertEqual(self.pages(limit=3), [games[:3], games[3:6], games[6:]])
        self.assertEqual(self.pages(limit=7), [games])
        self.assertEqual(self.pages(limit=2, status="running"), [["B", "a-1"], ["aa"]])

    def test_a_page_shows_what_came_behind_it_and_misses_nothing_that_was_there(self) -> None:
        self.put(("b", "running"), ("d", "running"))
        cursor = self.succeed(self.request_page(limit=1))["next_cursor"]
        self.put(("a", "running"), ("c", "running"))

        rest = self.succeed(self.request_page(cursor=cursor))["items"]

        self.assertEqual([item["game_id"] for item in rest], ["c", "d"])

    def test_a_page_holds_a_hundred_records_unless_requested_otherwise_and_a_thousand_at_most(self) -> None:
        self.put(*((f"g{number:04}", "stopped") for number in range(1001)))

        self.assertEqual([len(page) for page in self.pages(limit=1000)], [1000, 1])
        self.assertEqual(len(self.succeed(self.request_page())["items"]), 100)

    def test_a_query_that_cannot_be_meant_is_refused(self) -> None:
        self.put(("a", "running"), ("b", "running"))
        cursor = self.succeed(self.request_page(limit=1))["next_cursor"]
        for query in (
            *(f"limit={limit}" for limit in ("0", "-1", "1001", "1.5", "many", "", "9" * 30)),
            *(f"status={status}" for status in ("Running", "paused", "")),
            *(f"cursor={bad}" for bad in ("", "!", "x", f"{cursor}=", f"{cursor}x", "Li4")),
            "order=desc",
            "limit=1&limit=1",
            "limit",
            "status=%ff",
        ):
            with self.subTest(query):
                answer = web.call("GET", f"{self.base_url}/api/v1/internal/runtimes?{query}")
                self.refused(answer, 400, "invalid_request")
