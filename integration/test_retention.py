"""Containers of games that were stopped long ago are removed; what the games wrote is not."""

import time

from harness import start_services
from harness.rtm import unique_game_id
from integration.watched import WatchedTestCase


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
