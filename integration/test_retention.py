"""Retention: removes containers of games stopped long ago, but not their files; deletes old rows and entries."""

import subprocess
import time
from datetime import timedelta
from typing import Any

from bench.growth.statements import plan_of
from harness import start_services, web
from harness.rtm import manager, unique_game_id
from harness.rtm.manager import ManagerProcess
from integration.support import shifted
from integration.support.watched import WatchedTestCase
from rtmanager.adapters.postgres.queries import SQL

JOBS = "runtime:start_jobs"

#: The error of a host's clock in seconds: more than the retention of 30 days.
OFF_S = 40 * 86400


def setUpModule() -> None:
    start_services()


class Retention(WatchedTestCase):
    def test_a_stopped_game_is_cleaned_up_when_its_time_is_over_and_keeps_its_directory(self) -> None:
        running = unique_game_id("running")
        self.start_runtime(CONTAINER_RETENTION_DAYS="0", CLEANUP_INTERVAL="200ms")
        self.start_game()
        self.start_game(running)
        self.post("stop", {"reason": "finished"})

        self.wait_for_status("removed")

        self.assertEqual(self.containers(), [])
        self.assertEqual(self.log_kinds()[-1], ("cleanup_container", "auto_ttl"))
        self.assertTrue((self.state_root.folder("games") / self.game_id).is_dir())
        self.assertEqual(self.record(running)["status"], "running")
        self.assertEqual(self.kinds(), [])

    def test_before_that_its_container_stays(self) -> None:
        self.start_runtime(CONTAINER_RETENTION_DAYS="1", CLEANUP_INTERVAL="100ms")
        self.start_game()
        self.post("stop", {"reason": "finished"})
        connection = self.services.database.connect()
        self.addCleanup(connection.close)
        time.sleep(0.5)
        self.assertEqual(self.status(), "stopped")
        connection.execute("UPDATE runtime_records SET last_op_at = last_op_at - interval '25 hours'")
        self.wait_for_status("removed")

    def test_two_managers_clean_up_once(self) -> None:
        # The holder of the lease has it for this long: enough time to queue what it found.
        for _ in range(2):
            self.start_runtime(CONTAINER_RETENTION_DAYS="0", CLEANUP_INTERVAL="3s")
        self.start_game()
        self.post("stop", {"reason": "finished"})
        self.wait_for_status("removed")
        self.assertEqual([kind for kind, _ in self.log_kinds()], ["start", "stop", "cleanup_container"])


class ClockOff(WatchedTestCase):
    """An instance whose host's clock differs from PostgreSQL's: it writes and compares by PostgreSQL's clock."""

    def start_shifted(self, seconds: int, **changes: str) -> ManagerProcess:
        """Start a manager on a host whose clock is ahead by `seconds`."""
        address = manager.free_address()
        environment = self.environment(INTERNAL_HTTP_ADDR=address, **EAGER | changes)
        process = manager.start(environment, self.log, shifted.command(seconds, "serve"))
        self.addCleanup(process.kill)
        process.wait_until_ready()
        self.base_url = process.base_url
        return process

    def wait_for_a_pass(self) -> None:
        """Wait until the retention has made a complete pass that began after this call."""

        def turn() -> object:
            return self.rows("SELECT until FROM watch_turns WHERE work = 'retention'")

        for _ in range(2):
            before = turn()
            self.wait_until("a pass of the retention", lambda: turn() != before)  # noqa: B023 - used at once

    def assert_written_by_postgres_clock(self) -> None:
        """Every time in the test's rows is within the last minutes of PostgreSQL's clock."""
        for table, columns in MOMENTS.items():
            for column in columns:
                rows = self.rows(f"SELECT now() - {column} AS ago FROM {table} WHERE {column} IS NOT NULL")
                for row in rows:
                    with self.subTest(f"{table}.{column}"):
                        self.assertGreater(row["ago"], timedelta(seconds=-1))
                        self.assertLess(row["ago"], timedelta(minutes=5))

    def test_one_that_is_ahead_cleans_up_no_game_that_was_stopped_just_now(self) -> None:
        self.start_shifted(OFF_S)
        self.start_game()
        self.post("stop", {"reason": "finished"})
        self.wait_for_a_pass()
        self.assertEqual(self.status(), "stopped")
        self.assert_written_by_postgres_clock()

    def test_what_one_wrote_that_is_behind_is_not_taken_for_old_by_another(self) -> None:
        behind = self.start_shifted(-OFF_S)
        self.start_game()
        self.post("stop", {"reason": "finished"})
        self.assertEqual(behind.terminate(), 0)
        self.assert_written_by_postgres_clock()
        self.start_runtime(**EAGER)
        self.wait_for_a_pass()
        self.assertEqual(self.status(), "stopped")

    def test_one_that_is_behind_waits_since_postgres_clock_may_be_the_wrong_one(self) -> None:
        self.start_shifted(-OFF_S, CONTAINER_RETENTION_DAYS="0")
        self.start_game()
        self.post("stop", {"reason": "finished"})
        waits = "PostgreSQL's clock jumped ahead, retention waits"
        self.wait_until("a pass that waits", lambda: waits in self.log.read_text())
        self.assertEqual(self.rows("SELECT 1 FROM watch_turns WHERE work IN ('retention', 'purge')"), [])
        self.assertEqual(self.status(), "stopped")

    def test_it_says_so_in_its_log_and_its_metrics_and_check_says_so_too(self) -> None:
        self.start_shifted(OFF_S)
        far = "this host's clock is far from PostgreSQL's"
        self.wait_until("the warning", lambda: far in self.log.read_text())
        [offset] = [
            float(line.rpartition(" ")[2])
            for line in web.text(f"{self.base_url}/metrics").splitlines()
            if line.startswith("rtmanager_clock_offset_seconds ")
        ]
        self.assertAlmostEqual(offset, OFF_S, delta=2)
        checked = subprocess.run(
            shifted.command(-OFF_S, "check"),
            env=manager.whole_environment(self.environment()),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        self.assertEqual(checked.returncode, 0, checked.stdout)
        self.assertRegex(
            checked.stdout, r"warning postgres .* clock is 3456\d{3}\.\d s behind PostgreSQL's \(here it is"
        )
        self.assertEqual(self.log.read_text().count(far), 1, "once, not with each reading")


EAGER = {"CONTAINER_RETENTION_DAYS": "30", "CLEANUP_INTERVAL": "200ms"}
#: The columns with times that instances compare, or that others read as one history.
MOMENTS = {
    "runtime_records": ("started_at", "stopped_at", "removed_at", "last_op_at", "created_at"),
    "operation_log": ("started_at", "finished_at"),
    "health_snapshots": ("observed_at",),
    "operations": ("accepted_at", "not_before", "heartbeat_at", "finished_at"),
    "outbox": ("created_at",),
}


class Purging(WatchedTestCase):
    """Rows and entries are made old by SQL; a manager with its usual retentions deletes them."""

    def setUp(self) -> None:
        super().setUp()
        self.connection: Any = self.services.database.connect()
        self.addCleanup(self.connection.close)
        self.redis: Any = self.services.redis.client()
        self.addCleanup(self.redis.close)

    def count(self, table: str) -> int:
        return len(self.rows(f"SELECT 1 FROM {table}"))

    def old_job(self, number: int) -> str:
        """Add an old start job with a malformed reference; return its entry id."""
        fields = {"game_id": f"{self.game_id}-{number}", "image_ref": "NOT GOOD", "requested_at_ms": "0"}
        return str(self.redis.xadd(JOBS, fields, id=f"{1000 + number}-0"))

    def make_old(self, days: int = 31) -> None:
        for column in ("accepted_at", "finished_at"):
            self.connection.execute(f"UPDATE operations SET {column} = {column} - make_interval(days => {days})")
        self.connection.execute(f"UPDATE dead_letters SET received_at = received_at - make_interval(days => {days})")

    def is_idle(self) -> bool:
        return not self.rows("SELECT 1 FROM operations WHERE state <> 'done'")

    def test_old_entries_and_operations_are_deleted_and_nothing_is_done_again(self) -> None:
        entries = [self.old_job(number) for number in range(5)]
        self.redis.xadd(JOBS, {"who": "nobody"}, id="1100-0")
        last = str(self.redis.xadd(JOBS, {"game_id": self.game_id, "image_ref": "NOT GOOD"}, id="1200-0"))
        self.start_runtime(CLEANUP_INTERVAL="200ms")
        self.wait_until("the results", lambda: len(self.entries("runtime:job_results")) == 6)
        self.make_old(8)
        self.wait_until("all that is old but the last to go", lambda: self.redis.xlen(JOBS) == 1)
        self.assertEqual(self.count("operations"), 6, "what recognises an entry outlives it")
        self.make_old()
        self.wait_until("the operations to go", lambda: self.count("operations") == 1)
        self.wait_until("the dead letter to go", lambda: self.count("dead_letters") == 0)
        self.assertEqual(self.count("operation_log"), 6, "the log is a history")
        self.assertIn('rtmanager_deleted_total{what="operations"} 5', self.metrics())
        self.assertIn('rtmanager_free_bytes{place="state_root"}', self.metrics())

        # An older copy of Redis replaces it: all entries come again.
        self.redis.delete(JOBS)
        for entry in entries:
            self.redis.xadd(JOBS, {"game_id": self.game_id, "image_ref": "NOT GOOD"}, id=entry)
        self.redis.xadd(JOBS, {"who": "nobody"}, id="1100-0")
        self.redis.xadd(JOBS, {"game_id": self.game_id, "image_ref": "NOT GOOD"}, id=last)
        new = f"{JOBS}:{self.add_start_job()}"
        # It is of the same game, so it runs after all others.
        done = "SELECT 1 FROM operations WHERE state = 'done' AND source_ref = %s"
        self.wait_until("the new job", lambda: bool(self.rows(done, new)))
        self.assertEqual((self.count("operation_log"), self.count("dead_letters")), (7, 0))
        self.assertIn("entries came again whose operations were deleted", self.log.read_text())

    def test_one_entry_from_a_clock_that_was_ahead_stops_no_deletion_and_hides_no_later_job(self) -> None:
        # The year 2100. Redis assigns no lower id to a later entry.
        ahead = str(self.redis.xadd(JOBS, {"game_id": self.game_id, "image_ref": "NOT GOOD"}, id="4102444800000-0"))
        for _ in range(4):
            self.redis.xadd(JOBS, {"game_id": self.game_id, "image_ref": "NOT GOOD"})
        self.start_runtime(CLEANUP_INTERVAL="200ms")
        self.wait_until("the results", lambda: len(self.entries("runtime:job_results")) == 5)
        self.make_old(8)
        self.wait_until("all entries but the last to go", lambda: self.redis.xlen(JOBS) == 1)
        self.make_old(31)
        self.wait_until("the operations to go", lambda: self.count("operations") == 1)

        # An empty Redis with the correct time replaces it, and later an older copy of the first one.
        self.redis.delete(JOBS)
        new = f"{JOBS}:{self.add_start_job()}"
        done = "SELECT 1 FROM operations WHERE state = 'done' AND source_ref = %s"
        self.wait_until("the new job", lambda: bool(self.rows(done, new)))
        self.redis.xadd(JOBS, {"game_id": self.game_id, "image_ref": "NOT GOOD"}, id=ahead)
        again = "entries came again whose operations were deleted"
        self.wait_until("the entry that came again to be known", lambda: again in self.log.read_text())
        self.assertEqual(self.count("operations"), 2)

    def test_an_entry_that_another_group_has_not_read_stays(self) -> None:
        for number in range(3):
            self.old_job(number)
        self.redis.xgroup_create(JOBS, "audit", id="1001-0")
        self.start_runtime(CLEANUP_INTERVAL="100ms")
        self.wait_until("the results", lambda: len(self.entries("runtime:job_results")) == 3)
        self.make_old(8)
        self.wait_until("the first entry to go", lambda: self.redis.xlen(JOBS) == 2)
        self.wait_until(
            "a word of it", lambda: "old entries of an input stream are not deleted" in self.log.read_text()
        )
        self.redis.xreadgroup("audit", "reader", {JOBS: ">"})
        self.redis.xack(JOBS, "audit", "1002-0")
        self.wait_until("the next one to go", lambda: self.redis.xlen(JOBS) == 1)

    def test_the_pages_of_the_log_go_on_while_old_rows_are_deleted(self) -> None:
        self.start_runtime(CLEANUP_INTERVAL="100ms", OPERATION_LOG_RETENTION="24h")
        self.add_rows(range(1, 11))
        page = self.page("?limit=3")
        self.connection.execute("UPDATE operation_log SET finished_at = now() - interval '2 days' WHERE id <= 4")
        self.wait_until("the old rows to go", lambda: self.count("operation_log") == 6)
        found = [row["source_ref"] for row in page["items"]]
        while page["next_cursor"]:
            page = self.page(f"?limit=3&cursor={page['next_cursor']}")
            found += [row["source_ref"] for row in page["items"]]
        self.assertEqual(found, [f"r{number}" for number in range(10, 4, -1)])

    def add_rows(self, numbers: range) -> None:
        self.connection.execute(
            "INSERT INTO operation_log (game_id, op_kind, op_source, source_ref, outcome, started_at, finished_at) "
            "SELECT %s, 'start', 'gm_rest', 'r' || n, 'failure', now(), now() FROM unnest(%s::int[]) n",
            (self.game_id, list(numbers)),
        )

    def page(self, query: str) -> dict[str, Any]:
        return self.succeed(self.call("GET", f"/operations{query}"))

    def test_a_batch_reads_its_rows_by_an_index_and_nothing_else(self) -> None:
        """With the generic plan, and a hundred thousand rows of which each batch needs a few."""
        self.start_runtime(CLEANUP_INTERVAL="1h")
        self.connection.execute(
            "INSERT INTO operations (game_id, kind, source, source_ref, state, finished_at) "
            "SELECT 'g' || n, 'start', 'gm_rest', 'r', 'done', now() FROM generate_series(1, 100000) n"
        )
        self.add_rows(range(1, 100_001))
        self.connection.execute(
            "INSERT INTO dead_letters (stream, entry_ms, entry_seq) SELECT 's', n, 0 FROM generate_series(1, 100000) n"
        )
        self.connection.execute("VACUUM ANALYZE")
        self.connection.execute("SET plan_cache_mode = force_generic_plan")
        for name in ("first_young_entry", "purge_operations", "purge_dead_letters", "purge_log"):
            with self.subTest(name):
                plan = plan_of(self.connection, SQL[name].decode())
                self.assertNotRegex(plan, "Seq Scan on (operations|operation_log|dead_letters)")
                self.assertRegex(
                    plan, "Index (Only )?Scan using (operations|operation_log|dead_letters)_(pkey|entry_idx)"
                )
