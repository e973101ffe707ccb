"""Jobs from the streams: each gets one result, in the order of its game, whenever the manager comes."""

import json
from itertools import pairwise

from harness.case import RuntimeTestCase, start_services, unique_game_id
from harness.waiting import wait_until
from integration import images


def setUpModule() -> None:
    start_services()


class Jobs(RuntimeTestCase):
    def test_a_start_job_becomes_a_container_a_record_and_one_result(self) -> None:
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
        [row] = self.log_rows()
        self.assertEqual(
            (row["op_kind"], row["op_source"], row["source_ref"], row["outcome"]),
            ("start", "lobby_stream", f"runtime:start_jobs:{entry_id}", "success"),
        )
        [snapshot] = self.rows("SELECT * FROM health_snapshots WHERE game_id = %s", self.game_id)
        self.assertEqual((snapshot["status"], snapshot["container_id"]), ("healthy", container["Id"]))

    def test_jobs_sent_while_no_manager_runs_are_done_when_it_comes(self) -> None:
        self.add_start_job()
        self.add_stop_job()

        self.start_runtime()

        self.assertEqual([each["outcome"] for each in self.results(2)], ["success", "success"])
        self.assertEqual(self.record()["status"], "stopped")

    def test_a_second_start_and_a_second_stop_are_replays(self) -> None:
        self.start_runtime()
        for add in (self.add_start_job, self.add_start_job, self.add_stop_job, self.add_stop_job):
            add()

        results = self.results(4)

        codes = [(each["outcome"], each["error_code"]) for each in results]
        self.assertEqual(codes, [("success", ""), ("success", "replay_no_op")] * 2)
        self.assertEqual({each["container_id"] for each in results}, {self.record()["current_container_id"]})
        self.assertEqual([row["error_code"] for row in self.log_rows()], [None, "replay_no_op"] * 2)

    def test_jobs_of_one_game_keep_the_order_of_their_ids_across_both_streams(self) -> None:
        for _ in range(4):
            self.add_start_job()
            self.add_stop_job()

        self.start_runtime()

        self.assertEqual([each["error_code"] for each in self.results(8)], [""] * 8)
        rows = self.log_rows()
        self.assertEqual([row["op_kind"] for row in rows], ["start", "stop"] * 4)
        for before, after in pairwise(rows):
            self.assertLessEqual(before["finished_at"], after["started_at"])

    def test_of_two_jobs_with_one_id_the_start_comes_first(self) -> None:
        job = {"game_id": self.game_id, "requested_at_ms": "1700000000000"}
        self.redis.xadd("runtime:stop_jobs", job | {"reason": "finished"}, id="1700000000000-0")
        self.redis.xadd("runtime:start_jobs", job | {"image_ref": self.engine.ref}, id="1700000000000-0")

        self.start_runtime()

        self.results(2)
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])

    def test_a_stop_that_was_read_with_a_long_backlog_of_starts_does_not_overtake_its_own(self) -> None:
        for number in range(600):
            self.add_job("start", game_id=f"no-image-{number % 100}", image_ref="")
        self.add_start_job()
        self.add_stop_job()

        self.start_runtime()

        self.results(602, timeout_s=60)
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])
        self.assertEqual({row["outcome"] for row in self.log_rows()}, {"success"})

    def test_starts_of_different_games_overlap_in_time(self) -> None:
        self.start_runtime()
        games = [unique_game_id("a"), unique_game_id("b"), unique_game_id("c")]
        for game_id in games:
            self.add_start_job(game_id=game_id)
        self.results(3)

        rows = [self.log_rows(game_id)[0] for game_id in games]

        self.assertLess(max(row["started_at"] for row in rows), min(row["finished_at"] for row in rows))

    def test_a_redelivered_job_is_not_done_twice(self) -> None:
        live = self.start_runtime()
        self.add_start_job()
        self.results()
        live.stop()
        # As if every acknowledgement had been lost, and the group with them.
        self.redis.xgroup_destroy("runtime:start_jobs", "rtmanager")

        self.start_runtime()
        self.add_stop_job()

        self.assertEqual(len(self.results(2)), 2)
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])

    def test_a_malformed_job_of_a_game_is_answered_and_blocks_nothing(self) -> None:
        self.start_runtime()
        self.add_job("start", game_id=self.game_id, image_ref="NOT an image")
        self.add_job("start", game_id="../etc", image_ref=self.engine.ref)
        self.add_job("stop", game_id=self.game_id, reason="boredom")
        self.add_job("stop", game_id=self.game_id, reason="finished", requested_at_ms="soon")
        self.add_start_job()

        results = self.results(5)

        by_game = [each["error_code"] for each in results if each["game_id"] == self.game_id]
        self.assertEqual(by_game, ["start_config_invalid", "invalid_request", "invalid_request", ""])
        [escaped] = [each for each in results if each["game_id"] == "../etc"]
        self.assertEqual((escaped["outcome"], escaped["error_code"]), ("failure", "start_config_invalid"))

    def test_an_entry_without_a_game_goes_to_the_dead_letters(self) -> None:
        self.start_runtime()
        entry_id = self.add_job("start", image_ref=self.engine.ref, note="who?", requested_at_ms="1")
        self.add_start_job()
        self.results()

        [letter] = wait_until("a dead letter", lambda: self.entries("runtime:dead_letters"))

        self.assertEqual((letter["stream"], letter["entry_id"]), ("runtime:start_jobs", entry_id))
        self.assertEqual(
            json.loads(letter["fields"]), {"image_ref": self.engine.ref, "note": "who?", "requested_at_ms": "1"}
        )
        self.assertIn("game_id", letter["reason"])

    def test_a_call_on_a_game_that_is_worked_on_is_a_conflict(self) -> None:
        self.start_runtime(CONTAINER_STOP_TIMEOUT_SECONDS="2")
        self.post("start", {"image_ref": images.made("stubborn")})
        self.add_stop_job()
        wait_until("the stop to begin", lambda: self.rows("SELECT FROM operations WHERE state = 'running'"))

        message = self.refused(self.call("POST", "/restart"), 409, "conflict")

        self.assertIn("stop", message)
        self.assertEqual(self.results()[0]["outcome"], "success")
