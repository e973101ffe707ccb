"""A killed manager loses nothing: another one completes each of its operations, exactly once."""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from harness import start_services
from harness.fixtures.faults import Held
from harness.rtm import unique_game_id
from integration.support.proxied import ProxiedTestCase

#: The consumer group of the input streams.
GROUP = "rtmanager"

#: Longer than a server waits for a lock on a busy machine, so that it does not count as silent.
PATIENCE = "8s"


def setUpModule() -> None:
    start_services()


class KilledAtWork(ProxiedTestCase):
    """Six games; a kill interrupts each at another point, half before Docker's action and half after it."""

    def setUp(self) -> None:
        super().setUp()
        self.recorded, self.patching, self.restarting = map(unique_game_id, ("recorded", "patching", "restarting"))
        self.starting, self.stopping, self.cleaning = map(unique_game_id, ("starting", "stopping", "cleaning"))
        self.old: dict[str, str] = {}
        self.new: dict[str, str] = {}

    def test_whatever_a_killed_manager_was_doing_is_finished_by_the_next(self) -> None:
        process = self.start_process(SILENCE_TIMEOUT=PATIENCE)
        self.start_games()
        lock = self.lock_records()
        with ThreadPoolExecutor(3) as threads:
            calls = [*self.leave_unrecorded(threads), *self.leave_undone(threads)]
            self.assertEqual([self.record(game_id) for game_id in (self.recorded, self.starting)], [{}, {}])
            process.kill()
        for call in calls:
            self.assertIsInstance(call.exception(), OSError)
        self.docker_proxy.refuse()
        # Otherwise statements of the killed manager that wait for the lock would still be executed.
        self.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        lock.close()
        self.docker_proxy.pass_on()

        self.start_process(SILENCE_TIMEOUT=PATIENCE)
        # A killed instance is detected after some seconds.
        self.wait_until("all to end", lambda: not self.rows("SELECT FROM operations WHERE state <> 'done'"), 60)

        self.assert_ended_as_if_nothing_had_happened()
        self.assert_each_job_has_one_result()

    def start_games(self) -> None:
        """Start the games that are to be changed; the last one is stopped."""
        games = (self.patching, self.restarting, self.stopping, self.cleaning)
        for game_id in games:
            self.add_start_job(game_id=game_id)
        self.results(len(games))
        self.post("stop", {"reason": "finished"}, game_id=self.cleaning)
        self.old = {game_id: self.record(game_id)["current_container_id"] for game_id in games}

    def lock_records(self) -> Any:
        """Open a transaction that blocks the end of every operation until it is closed."""
        connection = self.services.database.connect()
        self.addCleanup(connection.close)
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE runtime_records IN EXCLUSIVE MODE")
        return connection

    def leave_unrecorded(self, threads: ThreadPoolExecutor) -> list[Future[Any]]:
        """Let a patch and a start complete with Docker while neither can be recorded."""
        image = {"image_ref": self.engine.patched_ref}
        patch = threads.submit(self.call, "POST", "/patch", image, game_id=self.patching)
        self.add_start_job(game_id=self.recorded)
        for game_id in (self.patching, self.recorded):
            self.new[game_id] = self.wait_until("its container", partial(self.running, game_id))
        return [patch]

    def leave_undone(self, threads: ThreadPoolExecutor) -> list[Future[Any]]:
        """Let the others come as far as a request that Docker never receives."""
        requests = self.docker_proxy.hold(
            f"/containers/{self.old[self.restarting]}?v=",
            f"/containers/{self.old[self.cleaning]}?v=",
            f"/containers/{self.old[self.stopping]}/stop",
            "/start HTTP",
        )
        restart = threads.submit(self.call, "POST", "/restart", game_id=self.restarting)
        cleanup = threads.submit(self.call, "DELETE", "/container", game_id=self.cleaning)
        self.add_stop_job(game_id=self.stopping)
        self.add_start_job(game_id=self.starting)
        for each in requests:
            self.assert_arrived(each)
        [created] = self.containers(self.starting)
        self.assertEqual(created["State"]["Status"], "created")
        return [restart, cleanup]

    def running(self, game_id: str) -> str:
        """The id of the game's new container once it runs."""
        found = [each["Id"] for each in self.containers(game_id) if each["State"]["Running"]]
        return next((each for each in found if each != self.old.get(game_id)), "")

    def assert_arrived(self, request: Held) -> None:
        self.assertTrue(request.arrived.wait(30), f"{request.mark!r} was not asked for")

    def assert_ended_as_if_nothing_had_happened(self) -> None:
        start = ["start"]
        for game_id, status, kinds in (
            (self.starting, "running", start),
            (self.recorded, "running", start),
            (self.patching, "running", [*start, "stop", "start", "patch"]),
            (self.restarting, "running", [*start, "stop", "start", "restart"]),
            (self.stopping, "stopped", [*start, "stop"]),
            (self.cleaning, "removed", [*start, "stop", "cleanup_container"]),
        ):
            with self.subTest(game_id):
                record = self.record(game_id)
                self.assertEqual(record["status"], status)
                self.assertEqual([row["op_kind"] for row in self.log_rows(game_id)], kinds)
                self.assertEqual({row["outcome"] for row in self.log_rows(game_id)}, {"success"})
                found = {each["Id"]: each["State"]["Running"] for each in self.containers(game_id)}
                current = record["current_container_id"]
                self.assertEqual(found, {current: status == "running"} if current else {})
                if game_id in self.new:
                    self.assertEqual(current, self.new[game_id], "what ran already was taken, not made again")

    def assert_each_job_has_one_result(self) -> None:
        jobs = [self.patching, self.restarting, self.stopping, self.cleaning]
        jobs += [self.recorded, self.stopping, self.starting]
        results = self.results(len(jobs))
        self.assertCountEqual([each["game_id"] for each in results], jobs)
        self.assertEqual({(each["outcome"], each["error_code"]) for each in results}, {("success", "")})
        self.assertEqual(self.entries("notification:intents"), [])


class KilledBetweenServers(ProxiedTestCase):
    def test_what_was_neither_acknowledged_nor_forgotten_is_not_done_or_published_again(self) -> None:
        process = self.start_process()
        [acknowledgement] = self.redis_proxy.hold("XACK")
        [deletion] = self.postgres_proxy.hold("DELETE FROM outbox")
        self.add_start_job()
        for each in (acknowledgement, deletion):
            self.assertTrue(each.arrived.wait(30), f"{each.mark!r} was not asked for")
        self.assertEqual(len(self.entries("runtime:job_results")), 1)
        self.assertEqual(self.redis.xpending("runtime:start_jobs", GROUP)["pending"], 1)
        self.assertNotEqual(self.rows("SELECT FROM outbox"), [])
        process.kill()
        for proxy in (self.redis_proxy, self.postgres_proxy):
            proxy.cut()

        self.start_process()
        self.add_stop_job()

        self.assertEqual([each["error_code"] for each in self.results(2)], ["", ""])
        self.wait_until("the outbox to be empty", lambda: not self.rows("SELECT FROM outbox"))
        self.assertEqual(len(self.entries("runtime:job_results")), 2)
        self.assertEqual(len(self.entries("runtime:health_events")), 1)
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])
        self.wait_until("the acknowledgement", lambda: not self.redis.xpending("runtime:start_jobs", GROUP)["pending"])
