"""External events of a running game, as other services and the operator see them."""

import time

from harness import start_services, web
from integration.support import images
from integration.support.proxied import ProxiedTestCase
from integration.support.watched import WatchedTestCase

#: Seconds that a container with a requested end has to start again before its end is published.
RESTART_GRACE_S = 3.0


def setUpModule() -> None:
    start_services()


class Events(WatchedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()
        self.container = self.start_game()

    def test_a_container_that_somebody_removes_has_disappeared(self) -> None:
        # Not `docker rm -f`: on a busy machine its kill is seen as an exit before the container is gone.
        self.engine_call("GET", "/healthz")
        self.assertEqual(self.container.stop(), 0)
        self.docker.remove_container(self.container.container_id)

        [event] = self.wait_for("container_disappeared")

        self.assertEqual((event["container_id"], event["details"]), (self.container.container_id, {}))
        self.assertEqual(self.status(), "removed")
        self.assertEqual(self.snapshot(), ("container_disappeared", "docker_event"))
        self.assertEqual(self.log_kinds()[1:], [("reconcile_dispose", "auto_reconcile")])

    def test_a_game_that_is_killed_has_exited_and_leaves_its_reason(self) -> None:
        self.container.wait_until("the engine", lambda: "listens" in self.container.logs())
        self.container.kill()

        [event] = self.wait_for("container_exited")

        self.assertEqual(event["details"], {"exit_code": 137, "oom": False})
        self.assertEqual(self.status(), "stopped")
        self.assertEqual(self.snapshot(), ("exited", "docker_event"))
        health = self.health()
        self.assertEqual(health["status"], "exited")
        self.assertEqual(health["last_exit"]["exit_code"], 137)
        self.assertIn("listens on 8080", health["last_exit"]["log"])
        self.assertEqual(len(self.log_rows()), 1, "by contract without a row in the log")

    def test_a_process_that_crashes_reports_its_signal(self) -> None:
        self.container.wait_until("the engine", lambda: "listens" in self.container.logs())
        self.container.exec(["sh", "-c", "kill -SEGV -1"])

        [event] = self.wait_for("container_exited")

        self.assertEqual(event["details"], {"exit_code": 139, "oom": False})

    def test_an_intended_stop_restart_and_patch_are_never_published_as_a_crash(self) -> None:
        self.post("restart")
        self.post("patch", {"image_ref": self.engine.patched_ref})
        self.post("stop", {"reason": "finished"})
        # Longer than the grace period for a restart after a requested end.
        time.sleep(RESTART_GRACE_S + 0.5)
        self.assertEqual(self.kinds(), ["container_started", "container_started"])

    def test_a_game_that_a_person_restarts_goes_on_and_nothing_is_published(self) -> None:
        self.docker.restart(self.container.container_id, timeout=5)
        time.sleep(RESTART_GRACE_S + 0.5)
        self.assertEqual(self.kinds(), [])
        self.assertEqual(self.record()["current_container_id"], self.container.container_id)

    def test_an_engine_that_ends_with_0_is_left_to_the_reconciler(self) -> None:
        self.engine_call("GET", "/healthz")
        self.assertEqual(self.container.stop(), 0)
        time.sleep(1)
        self.assertEqual((self.status(), self.kinds()), ("running", []))

    def test_memory_that_runs_out_is_reported_while_the_game_goes_on(self) -> None:
        self.container.exec(["python3", "-c", "x = bytearray(1 << 30)"])

        [event] = self.wait_for("container_oom")

        self.assertEqual(event["details"], {"exit_code": None})
        self.assertEqual(self.status(), "running")
        self.assertEqual(self.snapshot(), ("oom", "docker_event"))


class OutOfMemory(WatchedTestCase):
    def test_an_engine_that_ran_out_of_memory_has_exited_by_it_and_says_its_last_words(self) -> None:
        self.start_runtime()
        self.post("start", {"image_ref": images.made("hungry")})

        events = self.wait_until(
            "its end", lambda: self.health_events() if "container_exited" in self.kinds() else None
        )

        self.assertEqual([each["event_type"] for each in events], ["container_oom", "container_exited"])
        self.assertEqual(events[-1]["details"], {"exit_code": 137, "oom": True})
        last_exit = self.health()["last_exit"]
        self.assertEqual((last_exit["exit_code"], last_exit["oom"], last_exit["log"]), (137, True, "hungry"))


class Probing(WatchedTestCase):
    def probe_until(self, threshold: int) -> None:
        """Start a game whose engine answers, and probe it ten times a second from then on.

        A starting engine does not answer, for longer on a busy machine. A manager with a high threshold runs until it
        does.
        """
        settings = {"PROBE_INTERVAL": "100ms", "PROBE_TIMEOUT": "80ms"}
        patient = self.start_runtime(**settings, PROBE_FAILURES_THRESHOLD="1000")
        self.container = self.start_game()
        self.engine_call("GET", "/healthz")
        patient.stop()
        self.start_runtime(**settings, PROBE_FAILURES_THRESHOLD=str(threshold))

    def cycles(self) -> int:
        """How many probe cycles have run."""
        return self.log.read_text().count("probe cycle")

    def test_an_engine_that_freezes_fails_once_and_recovers_once(self) -> None:
        self.probe_until(threshold=20)
        self.container.pause()
        [failed] = self.wait_for("probe_failed")
        self.assertEqual(failed["details"]["last_status"], None)
        self.assertEqual(failed["details"]["consecutive_failures"], 20)
        self.assertIn("no answer", failed["details"]["last_error"])
        self.assertEqual(self.snapshot(), ("probe_failed", "probe"))
        # The first of these cycles may be that of the twentieth failure, which is published a moment before its cycle
        # ends.
        ended = self.cycles() + 2
        self.wait_until("one more failure", lambda: self.cycles() >= ended)
        self.container.unpause()

        _, recovered = self.wait_for("probe_failed", "probe_recovered")

        self.assertGreater(recovered["details"]["prior_failure_count"], 20)
        self.assertEqual(self.snapshot(), ("healthy", "probe"))

    def test_failures_below_the_threshold_are_not_reported(self) -> None:
        self.probe_until(threshold=1000)
        self.container.pause()
        time.sleep(1)
        self.container.unpause()
        time.sleep(0.3)
        self.assertEqual(self.kinds(), [])


class Inspecting(WatchedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime(INSPECT_INTERVAL="100ms")
        self.container = self.start_game()

    def test_a_paused_container_is_unhealthy_once_and_healthy_again_when_it_goes_on(self) -> None:
        self.container.pause()
        [event] = self.wait_for("inspect_unhealthy")
        self.assertEqual(event["details"], {"restart_count": 0, "state": "paused", "health": ""})
        time.sleep(0.5)
        self.container.unpause()
        self.wait_until("the snapshot to be healthy", lambda: self.snapshot() == ("healthy", "inspect"))
        self.assertEqual(self.kinds(), ["inspect_unhealthy"])

    def test_a_container_that_docker_restarts_again_is_reported_by_its_count(self) -> None:
        self.docker.update_container(self.container.container_id, restart_policy={"Name": "always"})
        self.inspect_once()
        self.container.wait_until("the engine", lambda: "listens" in self.container.logs())
        self.container.exec(["sh", "-c", "kill -SEGV -1"])

        events = self.wait_until("it to be published", self.health_events)

        self.assertEqual({each["event_type"] for each in events}, {"inspect_unhealthy"})
        self.assertEqual(events[-1]["details"]["restart_count"], 1)
        self.assertEqual(self.status(), "running")

    def inspect_once(self) -> None:
        """Wait until the inspector has inspected the game once: the event about restarts compares two inspections."""
        self.next_inspection()
        self.next_inspection()  # the current one is over

    def next_inspection(self) -> None:
        """Wait until the inspector begins its next cycle: it acquires its lease anew each time."""
        turn = "SELECT until FROM watch_turns WHERE work = 'inspect'"
        last = self.rows(turn)
        self.wait_until("the inspector's next turn", lambda: self.rows(turn) != last)


class DockerAway(ProxiedTestCase, WatchedTestCase):
    """The daemon runs, and its events do not arrive."""

    def setUp(self) -> None:
        super().setUp()
        # Otherwise the inspector may be the first to detect the exit, and publish it.
        self.start_runtime(INSPECT_INTERVAL="1h", RECONCILE_INTERVAL="500ms")
        self.container = self.start_game()

    def test_what_happened_while_docker_was_away_is_reported_when_it_is_back_and_nothing_before(self) -> None:
        self.docker_proxy.refuse()
        self.container.kill()
        self.wait_until("readiness to name docker", self.misses_docker)
        self.wait_until("a pass to find Docker away", lambda: "worker=reconcile" in self.log.read_text())
        self.assertEqual(web.call("GET", f"{self.base_url}/healthz")[0], 200)
        self.assertEqual((self.status(), self.kinds()), ("running", []))
        self.docker_proxy.pass_on()

        [event] = self.wait_for("container_exited")

        self.assertEqual(event["details"]["exit_code"], 137)
        self.wait_until_ready()

    def misses_docker(self) -> bool:
        status, answer = web.call("GET", f"{self.base_url}/readyz")
        return status == 503 and "docker" in answer["error"]["message"]


class WithoutEvents(ProxiedTestCase, WatchedTestCase):
    """Docker answers everything except the request for its events."""

    def test_an_exit_that_no_event_reports_is_noticed_within_a_period_of_the_reconciler(self) -> None:
        self.docker_proxy.hold("/events?")
        self.start_runtime(RECONCILE_INTERVAL="2s")
        container = self.start_game()
        container.kill()

        # No other worker would detect it in that time: their periods are longer.
        [event] = self.wait_for("container_exited", timeout_s=10)

        self.assertEqual(event["details"], {"exit_code": 137, "oom": False})
        self.assertEqual(self.snapshot(), ("exited", "inspect"))
