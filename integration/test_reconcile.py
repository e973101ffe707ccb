"""Records follow containers: passes find what no event reported, and touch no container."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from harness import start_services, web
from harness.fixtures.container import Container
from integration.support.watched import WatchedTestCase


def setUpModule() -> None:
    start_services()


class WhileNoManagerRan(WatchedTestCase):
    """A new manager detects what happened while none ran."""

    def setUp(self) -> None:
        super().setUp()
        live = self.start_runtime()
        self.container = self.start_game()
        self.engine_call("GET", "/healthz")
        live.stop()

    def test_a_container_that_is_gone_is_disposed(self) -> None:
        self.container.remove()
        self.start_runtime()
        self.assertEqual(self.status(), "removed")
        self.assertEqual(self.log_kinds()[1:], [("reconcile_dispose", "auto_reconcile")])
        self.wait_for("container_disappeared")
        self.assertEqual(self.snapshot()[0], "container_disappeared")

    def test_one_that_exited_is_stopped_whatever_its_code(self) -> None:
        self.container.stop()
        code = self.container.inspect()["State"]["ExitCode"]
        self.start_runtime()
        self.assertEqual(self.status(), "stopped")
        [event] = self.wait_for("container_exited")
        self.assertEqual(event["details"], {"exit_code": code, "oom": False})
        self.assertEqual(len(self.log_rows()), 1)

    def test_one_that_runs_or_is_paused_is_as_it_was(self) -> None:
        self.container.pause()
        self.start_runtime()
        self.assertEqual(self.status(), "running")
        self.container.unpause()
        self.assertEqual(self.record()["current_container_id"], self.container.container_id)

    def test_two_managers_that_start_at_once_find_it_once(self) -> None:
        self.container.remove()
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda _: self.start_runtime(), range(2)))
        self.wait_for("container_disappeared")
        self.assertEqual(self.log_kinds()[1:], [("reconcile_dispose", "auto_reconcile")])


class Adoption(WatchedTestCase):
    def adopted(self, container: Container) -> None:
        """The record names this container as running."""
        self.wait_for_status("running")
        self.assertEqual(self.record()["current_container_id"], container.container_id)

    def test_a_container_that_somebody_runs_by_hand_is_adopted_and_can_be_stopped(self) -> None:
        self.start_runtime(RECONCILE_INTERVAL="200ms")
        container = self.run_by_hand()

        self.adopted(container)

        record = self.record()
        self.assertEqual(record["current_image_ref"], self.engine.ref)
        self.assertEqual(record["engine_endpoint"], f"http://galaxy-game-{self.game_id}:8080")
        self.assertEqual(record["state_path"], f"{self.state_root.folder('games')}/{self.game_id}")
        self.assertEqual(self.log_kinds(), [("reconcile_adopt", "auto_reconcile")])
        self.assertEqual(self.snapshot(), ("healthy", "inspect"))
        self.assertEqual(self.entries("runtime:health_events"), [])
        self.assertEqual(self.post("stop", {"reason": "finished"})["status"], "stopped")
        self.assertFalse(container.inspect()["State"]["Running"])

    def test_a_stopped_game_whose_container_a_person_starts_runs_again(self) -> None:
        self.start_runtime(RECONCILE_INTERVAL="200ms")
        container = self.start_game()
        self.post("stop", {"reason": "finished"})
        self.docker.start(container.container_id)
        self.adopted(container)
        self.assertEqual(self.log_kinds()[-1], ("reconcile_adopt", "auto_reconcile"))
        self.wait_for("container_started")

    def test_what_disagrees_is_reported_and_not_touched(self) -> None:
        other = self.create_network()
        self.start_runtime(RECONCILE_INTERVAL="200ms")
        strays = {
            "not on the network": self.run_by_hand(network=other.name),
            "is called": self.run_by_hand(name=f"copy-of-{self.game_id}"),
        }
        for reason, container in strays.items():
            with self.subTest(reason):
                self.wait_until("the report", partial(self.is_reported, container, reason))
                self.wait_until("the same in the log", partial(self.is_logged, container))
                self.assertTrue(container.inspect()["State"]["Running"])
        self.assertEqual(self.record(), {})

    def test_a_stray_that_is_gone_is_reported_no_more(self) -> None:
        self.start_runtime(RECONCILE_INTERVAL="200ms")
        container = self.run_by_hand(name=f"copy-of-{self.game_id}")
        self.wait_until("the report", lambda: self.is_reported(container))
        container.remove()
        self.wait_until("the end of the report", lambda: not self.is_reported(container))

    def is_logged(self, container: Container) -> bool:
        """Whether the log names it, which it does a moment after the metrics."""
        return container.container_id in self.log.read_text()


class PeopleAtWork(WatchedTestCase):
    """A running game whose container a user renames or disconnects from its network."""

    def setUp(self) -> None:
        super().setUp()
        self.start_runtime(RECONCILE_INTERVAL="200ms")
        self.container = self.start_game()

    def test_a_renamed_container_is_reported_and_its_record_stays(self) -> None:
        self.docker.rename(self.container.container_id, f"renamed-{self.game_id}")
        self.wait_until("the report", lambda: self.is_reported(self.container, "is called renamed"))
        self.assertEqual(self.status(), "running")
        self.assertEqual(self.post("stop", {"reason": "finished"})["status"], "stopped")

    def test_one_that_was_taken_off_its_network_is_reported_until_it_is_back(self) -> None:
        self.docker.disconnect_container_from_network(self.container.container_id, self.network.name)
        self.wait_until("the report", lambda: self.is_reported(self.container))
        self.assertEqual(self.status(), "running")
        self.docker.connect_container_to_network(self.container.container_id, self.network.name)
        self.wait_until("the end of the report", lambda: not self.is_reported(self.container))

    def test_a_clean_exit_is_noticed_within_a_period(self) -> None:
        self.engine_call("GET", "/healthz")
        self.container.stop()
        self.wait_for_status("stopped")
        self.wait_for("container_exited")

    def test_listing_shows_the_present_statuses(self) -> None:
        self.container.remove()
        self.wait_for_status("removed")
        status, answer = web.call("GET", f"{self.base_url}/api/v1/internal/runtimes?status=running")
        self.assertEqual((status, answer["items"]), (200, []))
        self.wait_for("container_disappeared")
        passes = self.passes()
        self.wait_until("two more passes", lambda: self.passes() >= passes + 2)
        self.assertEqual(self.kinds(), ["container_disappeared"], "told once, by event or by pass")

    def passes(self) -> int:
        """How many passes the reconciler has made."""
        return self.log.read_text().count("reconcile pass")
