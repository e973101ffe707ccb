"""The order of jobs: within a game strictly by their ids, across both streams; between games none."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from harness import start_services
from harness.rtm import RuntimeTestCase, unique_game_id
from integration.support import images
from integration.support.proxied import ProxiedTestCase

#: A stop takes as long as the engine allows. The first-start watch ensures that its program runs and ignores signals
#: before a stop is requested: until then a signal ends it.
STUBBORN = {"CONTAINER_STOP_TIMEOUT_SECONDS": "60", "FIRST_START_WATCH": "500ms"}


def setUpModule() -> None:
    start_services()


class Order(RuntimeTestCase):
    def test_jobs_of_one_game_keep_the_order_of_their_ids_across_both_streams(self) -> None:
        for _ in range(3):
            self.add_start_job()
            self.add_stop_job()

        self.start_runtime()

        self.assertEqual([each["error_code"] for each in self.results(6)], [""] * 6)
        rows = self.log_rows()
        self.assertEqual([row["op_kind"] for row in rows], ["start", "stop"] * 3)
        for before, after in pairwise(rows):
            self.assertLessEqual(before["finished_at"], after["started_at"])

    def test_of_two_jobs_with_one_id_the_start_comes_first(self) -> None:
        job = {"game_id": self.game_id, "requested_at_ms": "1700000000000"}
        self.redis.xadd("runtime:stop_jobs", job | {"reason": "finished"}, id="1700000000000-0")
        self.redis.xadd("runtime:start_jobs", job | {"image_ref": self.engine.ref}, id="1700000000000-0")

        self.start_runtime()

        self.results(2)
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])

    def test_a_stop_that_is_read_with_a_long_backlog_of_starts_does_not_overtake_its_own(self) -> None:
        from rtmanager.workers.ingest import BATCH

        # The game's stop is in the first batch, and its own start is not. Several batches, since with one the next read
        # may come before the first check.
        backlog = 3 * BATCH
        for number in range(backlog):
            self.add_start_job("no image", game_id=f"no-image-{number % 50}")
        self.add_start_job()
        self.add_stop_job()

        self.start_runtime()

        self.results(backlog + 2, timeout_s=120)
        self.assertEqual(
            [(row["op_kind"], row["error_code"]) for row in self.log_rows()], [("start", None), ("stop", None)]
        )


class BusyGames(RuntimeTestCase):
    def stopping(self, game_id: str = "") -> str:
        """Begin a stop of the game that ends only when its container is killed; return the container's id."""
        container_id = self.post("start", {"image_ref": images.tiny("ignores-signals")}, game_id=game_id or None)
        self.add_stop_job(game_id=game_id or None)
        self.wait_until("the stop to begin", lambda: self.states("stop") == ["running"])
        return str(container_id["current_container_id"])

    def states(self, kind: str) -> list[str]:
        """The states of the game's open operations of a kind."""
        query = "SELECT state FROM operations WHERE game_id = %s AND kind = %s AND state <> 'done' ORDER BY id"
        return [row["state"] for row in self.rows(query, self.game_id, kind)]

    def test_a_call_on_a_busy_game_is_a_conflict_at_once_and_a_job_waits_its_turn(self) -> None:
        self.start_runtime(**STUBBORN)
        container_id = self.stopping()
        self.add_start_job()
        self.wait_until("the start to be known", lambda: self.states("start") == ["due"])

        image = {"image_ref": self.engine.ref}
        for method, path, body in (
            ("POST", "/start", image),
            ("POST", "/stop", {"reason": "finished"}),
            ("POST", "/restart", None),
            ("POST", "/patch", image),
            ("DELETE", "/container", None),
        ):
            with self.subTest(path):
                message = self.refused(self.call(method, path, body), 409, "conflict")
                self.assertIn("busy with stop", message)
        self.assertEqual((self.states("stop"), self.states("start")), (["running"], ["due"]))
        self.docker.kill(container_id)

        self.assertEqual([(each["outcome"], each["error_code"]) for each in self.results(2)], [("success", "")] * 2)
        kinds = [row["op_kind"] for row in self.log_rows()]
        self.assertEqual(kinds, ["start", "stop", "start"], "a refused call was no operation")

    def test_a_job_waits_for_a_call_that_works_on_its_game(self) -> None:
        docker = self.before_docker()
        self.start_runtime(**STUBBORN, DOCKER_HOST=docker.url)
        started = self.post("start", {"image_ref": images.tiny("ignores-signals")})
        # The call answers with the current record: the start after it must not be complete already.
        [creation] = docker.hold("/containers/create")
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(self.post, "stop", {"reason": "finished"})
            self.wait_until("the stop to begin", lambda: self.states("stop") == ["running"])
            self.add_start_job()
            self.wait_until("the start to be known", lambda: self.states("start") == ["due"])
            self.assertFalse(call.done())
            self.docker.kill(started["current_container_id"])

            self.assertEqual(call.result()["status"], "stopped")

        creation.release()
        self.assertEqual(self.results()[0]["outcome"], "success")
        sources = [(row["op_kind"], row["op_source"]) for row in self.log_rows()]
        self.assertEqual(sources, [("start", "gm_rest"), ("stop", "gm_rest"), ("start", "lobby_stream")])

    def test_a_game_that_does_not_end_delays_no_other(self) -> None:
        self.start_runtime(**STUBBORN)
        container_id = self.stopping()
        other = unique_game_id("other")
        self.add_start_job(game_id=other)
        self.add_stop_job(game_id=other)

        results = self.results(2)

        self.assertEqual([(each["game_id"], each["outcome"]) for each in results], [(other, "success")] * 2)
        self.assertEqual(self.states("stop"), ["running"])
        self.docker.kill(container_id)
        self.results(3)

    def test_starts_of_different_games_do_not_wait_for_each_other(self) -> None:
        self.start_runtime()
        lock = self.lock("runtime_records")
        games = [unique_game_id(name) for name in ("a", "b", "c")]
        for game_id in games:
            self.add_start_job(game_id=game_id)

        # Nothing can end, and yet all of them begin.
        self.wait_until("all containers", lambda: all(self.runs(game_id) for game_id in games))

        self.assertEqual(self.rows("SELECT FROM runtime_records"), [])
        lock.close()
        self.assertEqual(sorted(each["game_id"] for each in self.results(3)), sorted(games))

    def runs(self, game_id: str) -> bool:
        return any(each["State"]["Running"] for each in self.containers(game_id))

    def test_nothing_is_published_before_all_of_it_is_written(self) -> None:
        self.start_runtime()
        lock = self.lock("health_snapshots")
        self.add_start_job()
        self.wait_until("the end to be written as far as it goes", self.waiting_for_a_lock)

        self.assertEqual(self.entries("runtime:health_events") + self.entries("runtime:job_results"), [])
        self.assertEqual((self.record(), self.log_rows()), ({}, []))
        lock.close()
        self.results()
        self.assertEqual(len(self.rows("SELECT FROM health_snapshots")), 1)

    def waiting_for_a_lock(self) -> list[dict[str, Any]]:
        query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return self.rows(query)

    def lock(self, table: str) -> Any:
        """Open a transaction that blocks writes to the table until it is closed."""
        connection = self.services.database.connect()
        self.addCleanup(connection.close)
        connection.execute("BEGIN")
        connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE".encode())
        return connection


class Decisions(ProxiedTestCase):
    def test_what_was_decided_on_a_record_that_changed_meanwhile_is_decided_again(self) -> None:
        self.start_runtime()
        self.post("start", {"image_ref": self.engine.ref})
        [stop] = self.docker_proxy.hold("/stop?")
        self.add_stop_job()
        self.assertTrue(stop.arrived.wait(30), "nothing was stopped")
        with self.services.database.connect() as connection:
            connection.execute("UPDATE runtime_records SET status = 'stopped', stopped_at = '2001-01-01T00:00Z'")
        stop.release()

        [result] = self.results()

        self.assertEqual((result["outcome"], result["error_code"]), ("success", "replay_no_op"))
        self.assertEqual(self.record()["stopped_at"].year, 2001, "another's change is not written over")
