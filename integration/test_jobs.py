"""Jobs from the streams: each is done, and gets exactly one result with every field of the contract."""

from harness import start_services
from harness.rtm import RuntimeTestCase
from integration.support.proxied import ProxiedTestCase

OTHER_NAMES = {
    "START_JOBS": "other:starts",
    "STOP_JOBS": "other:stops",
    "JOB_RESULTS": "other:results",
    "HEALTH_EVENTS": "other:health",
    "NOTIFICATION_INTENTS": "other:intents",
    "DEAD_LETTERS": "other:letters",
}


def setUpModule() -> None:
    start_services()


class Jobs(RuntimeTestCase):
    def test_a_start_job_becomes_a_container_a_record_an_event_and_one_result(self) -> None:
        self.start_runtime()
        entry_id = self.add_start_job()

        [result] = self.results()

        [container] = self.containers()
        expected = {
            "game_id": self.game_id,
            "outcome": "success",
            "container_id": container["Id"],
            "engine_endpoint": f"http://galaxy-game-{self.game_id}:8080",
            "error_code": "",
            "error_message": "",
        }
        self.assertEqual(result, expected)
        record = self.record()
        self.assertEqual((record["status"], record["current_container_id"]), ("running", container["Id"]))
        self.assert_logged_and_observed(entry_id, container["Id"])
        self.assertEqual(self.entries("notification:intents"), [])

    def assert_logged_and_observed(self, entry_id: str, container_id: str) -> None:
        [row] = self.log_rows()
        self.assertLessEqual(row.pop("started_at"), row.pop("finished_at"))
        row.pop("id")
        expected = {
            "game_id": self.game_id,
            "op_kind": "start",
            "op_source": "lobby_stream",
            "source_ref": f"runtime:start_jobs:{entry_id}",
            "image_ref": self.engine.ref,
            "container_id": container_id,
            "outcome": "success",
            "error_code": None,
            "error_message": None,
            "caller": None,
        }
        self.assertEqual(row, expected)
        [event] = self.entries("runtime:health_events")
        occurred_at_ms = int(event.pop("occurred_at_ms"))
        of = {"game_id": self.game_id, "container_id": container_id}
        details = f'{{"image_ref":"{self.engine.ref}"}}'
        self.assertEqual(event, {**of, "event_type": "container_started", "details": details})
        [snapshot] = self.rows("SELECT * FROM health_snapshots WHERE game_id = %s", self.game_id)
        self.assertEqual(round(snapshot.pop("observed_at").timestamp() * 1000), occurred_at_ms)
        seen = {"status": "healthy", "source": "inspect", "details": {"image_ref": self.engine.ref}}
        self.assertEqual(snapshot, {**of, **seen})

    def test_jobs_sent_while_no_manager_runs_are_done_when_it_comes(self) -> None:
        self.add_start_job()
        self.add_stop_job()

        self.start_runtime()

        self.assertEqual([each["outcome"] for each in self.results(2)], ["success", "success"])
        self.assertEqual(self.record()["status"], "stopped")

    def test_a_stop_is_taken_for_every_reason_of_the_contract(self) -> None:
        self.start_runtime()
        self.post("start", {"image_ref": self.engine.ref})
        for reason in ("orphan_cleanup", "cancelled", "finished", "admin_request", "timeout"):
            self.add_stop_job(reason)

        codes = [(each["outcome"], each["error_code"]) for each in self.results(5)]

        self.assertEqual(codes, [("success", ""), *[("success", "replay_no_op")] * 4])

    def test_jobs_that_cannot_be_done_now_are_answered_with_a_failure(self) -> None:
        self.start_runtime()
        self.add_stop_job(game_id="unknown")
        self.add_start_job()
        self.add_start_job(self.engine.patched_ref)

        unknown, _, other_image = self.results(3)

        self.assertEqual((unknown["game_id"], unknown["outcome"]), ("unknown", "failure"))
        self.assertEqual(unknown["error_code"], "not_found")
        self.assertEqual((other_image["outcome"], other_image["error_code"]), ("failure", "conflict"))
        for failure in (unknown, other_image):
            self.assertEqual((failure["container_id"], failure["engine_endpoint"]), ("", ""))
            self.assertNotEqual(failure["error_message"], "")

    def test_streams_are_called_what_the_configuration_defines(self) -> None:
        self.start_runtime(**{f"REDIS_{stream}_STREAM": name for stream, name in OTHER_NAMES.items()})
        good, bad = {"game_id": self.game_id, "image_ref": self.engine.ref}, {"game_id": "other", "image_ref": ""}
        entry_ids = [self.redis.xadd("other:starts", {"requested_at_ms": "1", **job}) for job in (good, bad, {})]
        self.wait_until("both results", lambda: self.redis.xlen("other:results") == 2)
        self.redis.xadd("other:stops", {"requested_at_ms": "1", "game_id": self.game_id, "reason": "finished"})

        self.wait_until("the third", lambda: self.redis.xlen("other:results") == 3)

        written = {name: self.redis.xlen(name) for name in OTHER_NAMES.values()}
        expected = {"starts": 3, "stops": 1, "results": 3, "health": 1, "intents": 1, "letters": 1}
        self.assertEqual(written, {f"other:{name}": count for name, count in expected.items()})
        self.assertEqual(self.log_rows()[0]["source_ref"], f"other:starts:{entry_ids[0]}")
        self.assertEqual(sorted(self.redis.scan_iter("runtime:*")), [])

    def test_output_streams_are_bounded_and_input_streams_are_not_trimmed(self) -> None:
        with self.redis.pipeline() as pipe:
            for number in range(300):
                pipe.xadd("runtime:job_results", {"old": str(number)})
            pipe.execute()
        self.start_runtime(REDIS_OUTPUT_STREAM_MAXLEN="100")
        jobs = [self.add_stop_job(game_id=f"unknown-{number}") for number in range(3)]

        self.wait_until("the results", lambda: len([1 for each in self.newest(3) if "outcome" in each]) == 3)

        self.assertLess(self.redis.xlen("runtime:job_results"), 300)
        self.assertGreaterEqual(self.redis.xlen("runtime:job_results"), 100)
        self.assertEqual([entry_id for entry_id, _ in self.redis.xrange("runtime:stop_jobs")], jobs)

    def newest(self, count: int) -> list[dict[str, str]]:
        return [fields for _, fields in self.redis.xrevrange("runtime:job_results", count=count)]


class Overtaken(ProxiedTestCase):
    def test_a_stop_that_finds_its_container_gone_is_a_success_and_reports_it_once(self) -> None:
        self.start_runtime()
        started = self.post("start", {"image_ref": self.engine.ref})["current_container_id"]
        [stopping] = self.docker_proxy.hold(f"/containers/{started}/stop")
        self.add_stop_job()
        self.assertTrue(stopping.arrived.wait(30), "nothing was stopped")
        # The watch sees the removal and leaves it to the running stop.
        self.docker.remove_container(started, force=True)
        stopping.release()

        [result] = self.results()

        self.assertEqual((result["outcome"], result["error_code"], result["container_id"]), ("success", "", ""))
        record = self.record()
        self.assertEqual((record["status"], record["current_container_id"]), ("removed", None))
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])
        self.assertEqual(self.log_rows()[-1]["container_id"], started)
        events = self.entries("runtime:health_events")
        self.assertEqual([each["event_type"] for each in events], ["container_started", "container_disappeared"])
        self.assertEqual((events[-1]["container_id"], events[-1]["details"]), (started, "{}"))
        [snapshot] = self.rows("SELECT status, container_id FROM health_snapshots")
        self.assertEqual(snapshot, {"status": "container_disappeared", "container_id": started})
