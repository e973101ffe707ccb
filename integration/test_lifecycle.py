"""One game through its whole life: start, inspect, stop, restart, patch, stop, cleanup; its state is kept."""

import shutil

from harness import Container, start_services, web
from harness.rtm import RuntimeTestCase

RACES = {"races": [{"raceName": "Terrans"}, {"raceName": "Selkies"}]}


def setUpModule() -> None:
    start_services()


class Lifecycle(RuntimeTestCase):
    def test_a_game_lives_through_every_operation_and_keeps_its_turn(self) -> None:
        self.start_runtime()
        started = self.post("start", {"image_ref": self.engine.ref})
        self.assertEqual(started["status"], "running")
        self.assertEqual(self.engine_call("POST", "/api/v1/admin/init", RACES)[0], 200)
        self.assert_next_turn_is(1)

        self.assertEqual(self.succeed(self.call("GET", "")), started)

        stopped = self.post("stop", {"reason": "admin_request"})
        self.assertEqual(stopped["status"], "stopped")
        self.assertEqual(stopped["current_container_id"], started["current_container_id"])
        self.assertEqual(self.containers()[0]["State"]["Status"], "exited")

        restarted = self.post("restart")
        self.assertEqual(restarted["status"], "running")
        self.assertNotEqual(restarted["current_container_id"], started["current_container_id"])
        self.assertEqual(restarted["engine_endpoint"], started["engine_endpoint"])
        self.assert_next_turn_is(2)

        patched = self.post("patch", {"image_ref": self.engine.patched_ref})
        self.assertEqual(patched["current_image_ref"], self.engine.patched_ref)
        self.assertNotEqual(patched["current_container_id"], restarted["current_container_id"])
        self.assert_next_turn_is(3)
        self.assertEqual(len(self.containers()), 1)

        self.refused(self.call("DELETE", "/container"), 409, "conflict")
        self.post("stop", {"reason": "finished"})
        removed = self.succeed(self.call("DELETE", "/container"))
        self.assertEqual((removed["status"], removed["current_container_id"]), ("removed", None))
        self.assertEqual(self.containers(), [])
        self.assertTrue((self.state_root.folder("games") / self.game_id / "game.json").exists())
        self.assertEqual(removed["created_at"], started["created_at"])
        self.assert_history()

    def assert_next_turn_is(self, turn: int) -> None:
        status, game = self.engine_call("PUT", "/api/v1/admin/turn")
        self.assertEqual((status, game["turn"], game["races"]), (200, turn, RACES["races"]))

    def assert_history(self) -> None:
        """The log and the streams contain the operations above."""
        rows = self.log_rows()
        expected = [
            ("start", "success"),
            ("stop", "success"),
            *[("stop", "success"), ("start", "success"), ("restart", "success")],
            *[("stop", "success"), ("start", "success"), ("patch", "success")],
            ("cleanup_container", "failure"),
            ("stop", "success"),
            ("cleanup_container", "success"),
        ]
        self.assertEqual([(row["op_kind"], row["outcome"]) for row in rows], expected)
        self.assertEqual(rows[2]["error_code"], "replay_no_op", "there was nothing to stop before the restart")
        # A restart and a patch are one request each, whatever parts they have.
        self.assertEqual([len({row["source_ref"] for row in rows[first : first + 3]}) for first in (2, 5)], [1, 1])
        self.assertEqual(len({row["source_ref"] for row in rows}), 7)
        events = self.wait_until("the last event", lambda: self.entries("runtime:health_events")[2:] and self.events())
        self.assertEqual(events, ["container_started"] * 3)
        self.assertEqual(self.entries("runtime:job_results") + self.entries("notification:intents"), [])

    def events(self) -> list[str]:
        return [event["event_type"] for event in self.entries("runtime:health_events")]

    def test_a_removed_game_can_be_started_again_and_keeps_its_birthday(self) -> None:
        self.start_runtime()
        first = self.post("start", {"image_ref": self.engine.ref})
        self.post("stop", {"reason": "finished"})
        self.succeed(self.call("DELETE", "/container"))

        again = self.post("start", {"image_ref": self.engine.ref})

        self.assertEqual(again["created_at"], first["created_at"])
        self.assertNotEqual(again["current_container_id"], first["current_container_id"])
        self.assertEqual((again["stopped_at"], again["removed_at"]), (None, None))

    def test_a_stopped_game_is_started_in_a_fresh_container(self) -> None:
        self.start_runtime()
        first = self.post("start", {"image_ref": self.engine.ref})
        self.post("stop", {"reason": "timeout"})

        again = self.post("start", {"image_ref": self.engine.patched_ref})

        self.assertEqual(again["current_image_ref"], self.engine.patched_ref)
        self.assertEqual([each["Id"] for each in self.containers()], [again["current_container_id"]])
        self.assertNotEqual(again["current_container_id"], first["current_container_id"])


class LostDirectory(RuntimeTestCase):
    def test_a_restart_after_the_directory_was_removed_says_so_in_its_row_the_log_and_a_counter(self) -> None:
        self.start_runtime()
        self.post("start", {"image_ref": self.engine.ref})
        directory = self.state_root.folder("games") / self.game_id
        shutil.rmtree(directory)

        self.assertEqual(self.post("restart")["status"], "running")

        row = self.log_rows()[-1]
        self.assertEqual((row["op_kind"], row["outcome"], row["error_code"]), ("restart", "success", None))
        self.assertIn(f"{directory} is missing though game {self.game_id} ran before", row["error_message"])
        self.assertIn("state directory of a game that ran before is missing", self.log.read_text())
        self.assertIn("rtmanager_lost_state_directories_total 1\n", web.text(f"{self.base_url}/metrics"))
        self.assertTrue(directory.is_dir())
        self.assertIsNone(self.last_message_of("restart"), "the directory is empty now, and it is there")

    def last_message_of(self, operation: str) -> str | None:
        self.post(operation)
        message: str | None = self.log_rows()[-1]["error_message"]
        return message


class Unrecorded(RuntimeTestCase):
    def test_a_container_of_ours_without_a_record_is_taken_or_left_alone_and_cleared_once_dead(self) -> None:
        self.start_runtime()
        first = self.started_and_forgotten(self.engine.ref)

        self.refused(self.call("POST", "/start", {"image_ref": self.engine.patched_ref}), 500, "container_start_failed")
        self.assertTrue(self.docker.inspect_container(first)["State"]["Running"], "it runs something else")

        self.assertEqual(self.started_and_forgotten(self.engine.ref), first, "it runs what is wanted")

        self.docker.kill(first)
        fresh = self.started_and_forgotten(self.engine.patched_ref)
        self.assertEqual([each["Id"] for each in self.containers()], [fresh])
        self.assertNotEqual(fresh, first)

    def started_and_forgotten(self, image_ref: str) -> str:
        """Start the game, and delete its record as a restore from a backup does; return the container's id."""
        started = self.post("start", {"image_ref": image_ref})
        with self.services.database.connect() as connection:
            connection.execute("DELETE FROM runtime_records WHERE game_id = %s", (self.game_id,))
        return str(started["current_container_id"])


class ByHand(RuntimeTestCase):
    """A user changes a container manually."""

    def test_a_stopped_game_that_a_person_started_again_is_not_forgotten(self) -> None:
        self.start_runtime()
        self.post("start", {"image_ref": self.engine.ref})
        stopped = self.post("stop", {"reason": "finished"})
        self.docker.start(stopped["current_container_id"])

        self.refused(self.call("DELETE", "/container"), 409, "conflict")
        patched = self.post("patch", {"image_ref": self.engine.patched_ref})

        self.assertEqual([each["Id"] for each in self.containers()], [patched["current_container_id"]])

    def test_a_paused_game_is_stopped_all_the_same(self) -> None:
        self.start_runtime(CONTAINER_STOP_TIMEOUT_SECONDS="0")
        started = self.post("start", {"image_ref": self.engine.ref})
        Container(started["current_container_id"], self.docker).pause()

        self.assertEqual(self.post("stop", {"reason": "finished"})["status"], "stopped")

        self.assertEqual(self.containers()[0]["State"]["Status"], "exited")

    def test_a_container_that_a_person_restarted_is_the_same_game(self) -> None:
        self.start_runtime()
        started = self.post("start", {"image_ref": self.engine.ref})
        self.docker.restart(started["current_container_id"], timeout=0)

        self.assertEqual(self.post("start", {"image_ref": self.engine.ref}), started)
        self.assertEqual(len(self.containers()), 1)

    def test_a_stopped_game_whose_container_a_person_removed_can_be_cleaned_up(self) -> None:
        self.start_runtime()
        self.post("start", {"image_ref": self.engine.ref})
        stopped = self.post("stop", {"reason": "finished"})
        self.docker.remove_container(stopped["current_container_id"])

        self.assertEqual(self.succeed(self.call("DELETE", "/container"))["status"], "removed")
