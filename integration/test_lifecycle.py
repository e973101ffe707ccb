"""One game through its whole life: start, look, stop, restart, patch, stop, cleanup; its state goes on."""

from harness.case import RuntimeTestCase, start_services

RACES = {"races": [{"raceName": "Terrans"}, {"raceName": "Selkies"}]}


def setUpModule() -> None:
    start_services()


class Lifecycle(RuntimeTestCase):
    def test_a_game_lives_through_every_operation_and_keeps_its_turn(self) -> None:
        self.start_runtime()
        started = self.post("start", {"image_ref": self.engine.ref})
        self.assertEqual(started["status"], "running")
        self.assertEqual(self.engine_call("POST", "/api/v1/admin/init", RACES)[0], 200)
        self.assertEqual(self.engine_call("PUT", "/api/v1/admin/turn")[1]["turn"], 1)

        self.assertEqual(self.succeed(self.call("GET", "")), started)

        stopped = self.post("stop", {"reason": "admin_request"})
        self.assertEqual(stopped["status"], "stopped")
        self.assertEqual(stopped["current_container_id"], started["current_container_id"])
        self.assertEqual(self.containers()[0]["State"]["Status"], "exited")

        restarted = self.post("restart")
        self.assertEqual(restarted["status"], "running")
        self.assertNotEqual(restarted["current_container_id"], started["current_container_id"])
        self.assertEqual(restarted["engine_endpoint"], started["engine_endpoint"])
        self.assertEqual(self.engine_call("PUT", "/api/v1/admin/turn")[1]["turn"], 2)

        patched = self.post("patch", {"image_ref": self.engine.patched_ref})
        self.assertEqual(patched["current_image_ref"], self.engine.patched_ref)
        self.assertNotEqual(patched["current_container_id"], restarted["current_container_id"])
        self.assertEqual(self.engine_call("PUT", "/api/v1/admin/turn")[1]["turn"], 3)
        self.assertEqual(len(self.containers()), 1)

        self.refused(self.call("DELETE", "/container"), 409, "conflict")
        self.post("stop", {"reason": "finished"})
        removed = self.succeed(self.call("DELETE", "/container"))
        self.assertEqual((removed["status"], removed["current_container_id"]), ("removed", None))
        self.assertEqual(self.containers(), [])
        self.assertTrue((self.state_root.games / self.game_id / "game.json").exists())
        self.assertEqual(removed["created_at"], started["created_at"])

        kinds = [(row["op_kind"], row["outcome"]) for row in self.log_rows()]
        expected = [
            ("start", "success"),
            ("stop", "success"),
            *[("stop", "success"), ("start", "success"), ("restart", "success")],
            *[("stop", "success"), ("start", "success"), ("patch", "success")],
            ("cleanup_container", "failure"),
            ("stop", "success"),
            ("cleanup_container", "success"),
        ]
        self.assertEqual(kinds, expected)
        events = [event["event_type"] for event in self.entries("runtime:health_events")]
        self.assertEqual(events, ["container_started"] * 3)

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
