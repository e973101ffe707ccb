"""A repeated request: the second one succeeds as a no-op; nothing is done or published again.

The repetition may be two jobs, two REST requests, one of each, or one job that Redis delivers again because its
acknowledgement was lost. Only the last of these leaves no trace.
"""

from harness import start_services
from harness.rtm import RuntimeTestCase

#: The consumer group of the input streams.
GROUP = "rtmanager"

REPLAYED = ("success", "replay_no_op")


def setUpModule() -> None:
    start_services()


class RequestedTwice(RuntimeTestCase):
    def test_a_second_start_job_and_a_second_stop_job_are_replays(self) -> None:
        self.start_runtime()
        for add in (self.add_start_job, self.add_start_job, self.add_stop_job, self.add_stop_job):
            add()

        results = self.results(4)

        codes = [(each["outcome"], each["error_code"]) for each in results]
        self.assertEqual(codes, [("success", ""), REPLAYED] * 2)
        record = self.record()
        self.assertEqual({each["container_id"] for each in results}, {record["current_container_id"]})
        self.assertEqual({each["engine_endpoint"] for each in results}, {record["engine_endpoint"]})
        self.assertEqual([row["error_code"] for row in self.log_rows()], [None, "replay_no_op"] * 2)
        self.assert_events("container_started")

    def test_a_second_call_is_answered_with_the_record_as_it_is(self) -> None:
        self.start_runtime()
        started = self.post("start", {"image_ref": self.engine.ref})
        self.assertEqual(self.post("start", {"image_ref": self.engine.ref}), started)
        stopped = self.post("stop", {"reason": "finished"})
        self.assertEqual(self.post("stop", {"reason": "cancelled"}), stopped)
        removed = self.succeed(self.call("DELETE", "/container"))
        self.assertEqual(self.succeed(self.call("DELETE", "/container")), removed)
        self.assertEqual(self.post("stop", {"reason": "finished"}), removed)

        rows = [(row["op_kind"], row["error_code"]) for row in self.log_rows()]
        expected = [(kind, code) for kind in ("start", "stop", "cleanup_container") for code in (None, "replay_no_op")]
        self.assertEqual(rows, [*expected, ("stop", "replay_no_op")])
        self.assertEqual({row["outcome"] for row in self.log_rows()}, {"success"})
        self.assert_events("container_started")
        self.assertEqual(self.entries("runtime:job_results"), [], "nobody asked by stream")

    def test_a_job_for_what_a_call_did_is_a_replay_and_the_other_way_round(self) -> None:
        self.start_runtime()
        started = self.post("start", {"image_ref": self.engine.ref})
        self.add_start_job()
        self.add_stop_job()

        again, stopped = self.results(2)

        self.assertEqual((again["outcome"], again["error_code"]), REPLAYED)
        self.assertEqual(again["container_id"], started["current_container_id"])
        self.assertEqual(again["engine_endpoint"], started["engine_endpoint"])
        self.assertEqual(stopped["error_code"], "")
        self.assertEqual(self.post("stop", {"reason": "timeout"})["status"], "stopped")
        sources = [row["op_source"] for row in self.log_rows()]
        self.assertEqual(sources, ["gm_rest", "lobby_stream", "lobby_stream", "gm_rest"])

    def assert_events(self, *types: str) -> None:
        events = self.wait_until("the events", lambda: self.entries("runtime:health_events"))
        self.assertEqual([each["event_type"] for each in events], list(types))


class GivenOutTwice(RuntimeTestCase):
    def test_a_job_whose_acknowledgement_was_lost_is_not_done_again(self) -> None:
        self.start_runtime()
        entry_id = self.add_start_job()
        self.results()
        self.give_out_again("runtime:start_jobs", entry_id)

        self.assert_nothing_new_before_a_stop()

        # Another thread acknowledges answered entries, and may be a moment behind.
        self.wait_until("this time to arrive", lambda: not self.redis.xpending("runtime:start_jobs", GROUP)["pending"])

    def test_a_failed_job_whose_acknowledgement_was_lost_is_published_once(self) -> None:
        self.start_runtime()
        entry_id = self.add_start_job("NOT an image")
        self.results()
        self.give_out_again("runtime:start_jobs", entry_id)
        self.add_start_job()

        codes = [each["error_code"] for each in self.results(2)]

        self.assertEqual(codes, ["start_config_invalid", ""])
        self.assertEqual([row["error_code"] for row in self.log_rows()], ["start_config_invalid", None])
        self.assertEqual(len(self.entries("notification:intents")), 1)

    def test_an_entry_without_a_game_that_is_given_out_twice_is_one_dead_letter(self) -> None:
        self.start_runtime()
        entry_id = self.add_job("stop", reason="finished")
        self.wait_until("the entry to be known", lambda: self.rows("SELECT FROM dead_letters"))
        self.give_out_again("runtime:stop_jobs", entry_id)
        self.add_job("stop", game_id=self.game_id, reason="boredom")
        self.results()  # published after every earlier dead letter

        self.assertEqual([each["entry_id"] for each in self.entries("runtime:dead_letters")], [entry_id])

    def test_a_group_that_was_lost_with_all_it_knew_does_nothing_again(self) -> None:
        live = self.start_runtime()
        self.add_start_job()
        self.results()
        live.stop()
        self.redis.xgroup_destroy("runtime:start_jobs", GROUP)

        self.start_runtime()

        self.assert_nothing_new_before_a_stop()

    def give_out_again(self, stream: str, entry_id: str) -> None:
        """Make the entry one that was delivered to a dead consumer and never acknowledged."""
        claimed = self.redis.xclaim(stream, GROUP, "gone", 0, [entry_id], force=True, justid=True)
        self.assertEqual(claimed, [entry_id])

    def assert_nothing_new_before_a_stop(self) -> None:
        """The next result is that of a new job, so no other was pending before it."""
        self.add_stop_job()
        self.assertEqual(len(self.results(2)), 2)
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])
        self.assertEqual(len(self.entries("runtime:health_events")), 1)
