"""Containers of games that were stopped long ago are removed; what the games wrote is not."""

import subprocess
import sys
import time
from datetime import timedelta

from harness import start_services, web
from harness.rtm import manager, unique_game_id
from harness.rtm.manager import ManagerProcess
from integration.watched import WatchedTestCase

#: By so much a host's clock is off: more than the retention of 30 days.
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
        # So long whoever has a turn has it alone: time enough to queue what it found.
        for _ in range(2):
            self.start_runtime(CONTAINER_RETENTION_DAYS="0", CLEANUP_INTERVAL="3s")
        self.start_game()
        self.post("stop", {"reason": "finished"})
        self.wait_for_status("removed")
        self.assertEqual([kind for kind, _ in self.log_kinds()], ["start", "stop", "cleanup_container"])


class ClockOff(WatchedTestCase):
    """An instance whose host has another time than PostgreSQL: it writes and compares by PostgreSQL's clock."""

    def start_shifted(self, seconds: int) -> ManagerProcess:
        """A manager on a host whose clock is so far ahead."""
        address = manager.free_address()
        environment = self.environment(INTERNAL_HTTP_ADDR=address, **EAGER)
        command = (sys.executable, "-m", "integration.shifted", str(seconds), "serve")
        process = manager.start(environment, self.log, command)
        self.addCleanup(process.kill)
        process.wait_until_ready()
        self.base_url = process.base_url
        return process

    def wait_for_a_pass(self) -> None:
        """Wait until the retention has made a whole pass after now."""

        def turn() -> object:
            return self.rows("SELECT until FROM watch_turns WHERE work = 'retention'")

        for _ in range(2):
            before = turn()
            self.wait_until("a pass of the retention", lambda: turn() != before)  # noqa: B023 - used at once

    def assert_written_by_postgres_clock(self) -> None:
        """Every moment of the test's rows is one of the last minutes by PostgreSQL's clock."""
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
            [sys.executable, "-m", "integration.shifted", str(-OFF_S), "check"],
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
#: Where moments stand that instances compare, or that others read as one history.
MOMENTS = {
    "runtime_records": ("started_at", "stopped_at", "removed_at", "last_op_at", "created_at"),
    "operation_log": ("started_at", "finished_at"),
    "health_snapshots": ("observed_at",),
    "operations": ("accepted_at", "not_before", "heartbeat_at", "finished_at"),
    "outbox": ("created_at",),
}
