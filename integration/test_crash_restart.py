"""Crash restarts, where enabled: within a budget, and never against a requested state."""

import time

from harness import start_services
from harness.fixtures.container import Container
from integration.support.watched import WatchedTestCase

QUICK = {
    "CRASH_RESTART": "on",
    "CRASH_RESTART_FIRST_PAUSE": "200ms",
    "CRASH_RESTART_LONGEST_PAUSE": "200ms",
    "CRASH_RESTART_BUDGET": "2",
}
#: A restart is due long after the end of the test.
PATIENT = {**QUICK, "CRASH_RESTART_FIRST_PAUSE": "1h", "CRASH_RESTART_LONGEST_PAUSE": "1h"}


#: As many probes take longer than the start of an engine, also on a busy machine. There each of them may take seconds,
#: since it lists the containers first.
PROBES = {
    "PROBE_INTERVAL": "200ms",
    "PROBE_TIMEOUT": "150ms",
    "PROBE_FAILURES_THRESHOLD": "25",
    "PROBE_RESTART": "on",
    **QUICK,
    "CRASH_RESTART": "off",
    "CRASH_RESTART_BUDGET": "1",
}
PATIENCE_S = 180


def setUpModule() -> None:
    start_services()


class RestartedTestCase(WatchedTestCase):
    def restarted(self, from_id: str) -> None:
        """Wait until the game runs in another container."""

        def runs() -> bool:
            record = self.record()
            return bool(record["status"] == "running" and record["current_container_id"] != from_id)

        self.wait_until("the restart", runs, timeout_s=PATIENCE_S)


class CrashRestart(RestartedTestCase):
    def crash(self) -> None:
        """End the game's engine by a signal that was not sent through Docker; wait until the record has followed."""
        ended = self.kinds().count("container_exited") + 1
        self.crash_engine()
        self.wait_until("the exit to be published", lambda: self.kinds().count("container_exited") >= ended)

    def test_a_crashed_game_runs_again_by_an_ordinary_operation_until_its_budget_is_used_up(self) -> None:
        self.start_runtime(**QUICK)
        self.start_game()
        for _ in range(2):
            before = self.record()["current_container_id"]
            self.crash()
            self.restarted(before)
        self.assertEqual(self.log_kinds()[-1], ("restart", "auto_reconcile"))
        self.crash()
        self.wait_until("the end of the budget", lambda: "budget is used up" in self.log.read_text())
        time.sleep(1.5)
        self.assertEqual(self.status(), "stopped")
        self.assertIsNone(self.health()["restart_due_at"])

    def test_a_restart_that_is_due_outlives_its_manager(self) -> None:
        live = self.start_runtime(**PATIENT)
        container = self.start_game()
        self.crash()
        self.assertIsNotNone(self.health()["restart_due_at"])
        live.stop()
        self.assertEqual(len(self.rows("UPDATE crash_restarts SET due_at = now() RETURNING 1")), 1, "it is planned")
        self.start_runtime(**QUICK)
        self.restarted(container.container_id)

    def test_an_intended_stop_while_it_is_due_ends_it(self) -> None:
        self.start_runtime(**PATIENT)
        self.start_game()
        self.crash()
        self.post("stop", {"reason": "finished"})
        self.assertEqual(self.rows("SELECT game_id FROM crash_restarts"), [], "nothing is planned any more")
        self.assertIsNone(self.health()["restart_due_at"])
        self.assertEqual(self.status(), "stopped")
        self.assertNotIn(("restart", "auto_reconcile"), self.log_kinds())

    def test_by_default_a_crashed_game_stays_stopped(self) -> None:
        self.start_runtime()
        self.start_game()
        self.crash()
        self.assertEqual(self.status(), "stopped")
        self.assertEqual(self.rows("SELECT FROM crash_restarts"), [])


class ProbeRestart(RestartedTestCase):
    def test_an_engine_that_does_not_answer_is_restarted_until_its_budget_is_used_up(self) -> None:
        self.start_runtime(**PROBES)
        first = self.start_game()
        self.engine_call("GET", "/healthz")
        first.pause()
        self.restarted(first.container_id)
        restart = self.log_rows()[-1]
        self.assertEqual(
            (restart["op_kind"], restart["op_source"], restart["source_ref"]),
            ("restart", "auto_reconcile", f"probe:{first.container_id[:12]}"),
        )
        health = self.health()
        self.assertEqual(health["last_exit"]["container_id"], first.container_id)
        self.assertEqual((health["last_exit"]["requested_by"], health["probe_restart_given_up"]), ("manager", False))

        second = Container(str(self.record()["current_container_id"]), self.docker)
        self.engine_call("GET", "/healthz")
        second.pause()
        self.wait_until("the end of the budget", lambda: self.health()["probe_restart_given_up"], PATIENCE_S)
        self.assertEqual((self.status(), self.health()["restart_due_at"]), ("running", None))
        [intent] = self.entries("notification:intents")
        self.assertEqual(intent["notification_type"], "runtime.container_start_failed")
        second.unpause()

        self.wait_for("probe_failed", "container_started", "probe_failed", "probe_recovered")
        self.assertFalse(self.health()["probe_restart_given_up"])
        self.assertEqual(self.record()["current_container_id"], second.container_id)
