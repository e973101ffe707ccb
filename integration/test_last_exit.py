"""Who requested the last exit of a game's container, as its health reports it."""

from typing import Any

from harness import start_services
from harness.fixtures.container import Container
from integration.support.proxied import ProxiedTestCase
from integration.support.watched import WatchedTestCase


def setUpModule() -> None:
    start_services()


class RequestedByManager(WatchedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()
        self.container = self.start_game()
        # It handles the signal only once it listens.
        self.engine_call("GET", "/healthz")

    def last_exit(self) -> dict[str, Any]:
        last_exit: dict[str, Any] = self.health()["last_exit"]
        return last_exit

    def assert_requested(self) -> None:
        """The manager requested the exit of the game's first container."""
        last_exit = self.last_exit()
        self.assertEqual(
            {name: last_exit[name] for name in ("container_id", "exit_code", "oom", "log", "requested_by")},
            {
                "container_id": self.container.container_id,
                "exit_code": 0,
                "oom": False,
                "log": "",
                "requested_by": "manager",
            },
        )
        self.assertFalse(last_exit["budget_used_up"])

    def test_a_stop_by_a_call_was_requested_by_the_manager(self) -> None:
        self.post("stop", {"reason": "finished"})
        self.assert_requested()

    def test_a_stop_by_a_job_was_requested_by_the_manager(self) -> None:
        self.add_stop_job()
        self.wait_for_status("stopped")
        self.assert_requested()

    def test_a_restart_and_a_patch_end_the_old_container_by_a_request_of_the_manager(self) -> None:
        self.post("restart")
        self.assert_requested()
        self.container = Container(str(self.record()["current_container_id"]), self.docker)
        self.engine_call("GET", "/healthz")
        self.post("patch", {"image_ref": self.engine.patched_ref})
        self.assert_requested()

    def test_an_engine_that_is_killed_after_its_grace_period_ended_with_137_and_not_by_memory(self) -> None:
        self.container.exec(["sh", "-c", "kill -STOP $(cat /proc/1/task/1/children)"])
        self.post("stop", {"reason": "finished"})
        last_exit = self.last_exit()
        self.assertEqual((last_exit["exit_code"], last_exit["oom"], last_exit["requested_by"]), (137, False, "manager"))

    def test_a_crash_that_was_seen_before_a_restart_stays_the_last_end(self) -> None:
        self.crash_engine()
        self.wait_for_status("stopped")
        crash = self.last_exit()
        self.post("restart")
        self.assertEqual((crash["requested_by"], self.last_exit()), ("unknown", crash))


class CrashUnseen(ProxiedTestCase, WatchedTestCase):
    """Docker answers everything except the request for its events, and no worker inspects the container."""

    def test_a_crash_that_nobody_has_seen_before_the_stop_is_not_the_managers(self) -> None:
        self.docker_proxy.hold("/events?")
        self.start_runtime(RECONCILE_INTERVAL="1h", INSPECT_INTERVAL="1h")
        container = self.start_game()
        self.engine_call("GET", "/healthz")
        self.crash_engine()
        container.wait_for_exit()
        self.assertEqual(self.status(), "running")

        self.post("stop", {"reason": "finished"})

        last_exit = self.health()["last_exit"]
        self.assertEqual((last_exit["exit_code"], last_exit["requested_by"]), (137, "unknown"))
        self.assertIn("listens on 8080", last_exit["log"])
