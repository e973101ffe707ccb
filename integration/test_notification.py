"""Failed starts: the job is answered, an administrator is told, the log has a row, nothing is left behind."""

import json

from harness.case import RuntimeTestCase, start_services
from harness.waiting import wait_until


def setUpModule() -> None:
    start_services()


class FailedStarts(RuntimeTestCase):
    def test_an_unresolvable_image_is_answered_and_told(self) -> None:
        self.start_runtime()
        entry_id = self.add_start_job("registry.invalid/galaxy/game:1.0.0")

        self.assert_failed("image_pull_failed", "registry.invalid/galaxy/game:1.0.0", entry_id)

    def test_a_malformed_image_reference_is_answered_and_told(self) -> None:
        self.start_runtime()
        entry_id = self.add_start_job("galaxy/game:1.0.0 ")

        self.assert_failed("start_config_invalid", "galaxy/game:1.0.0 ", entry_id)

    def test_a_network_that_went_away_is_answered_and_told(self) -> None:
        self.start_runtime()
        self.network.remove()
        entry_id = self.add_start_job()

        self.assert_failed("start_config_invalid", self.engine.ref, entry_id)

    def test_a_state_directory_that_cannot_be_used_is_answered_and_told(self) -> None:
        (self.state_root.games / self.game_id).symlink_to("/etc")
        self.start_runtime()
        entry_id = self.add_start_job()

        self.assert_failed("start_config_invalid", self.engine.ref, entry_id)

    def test_a_foreign_container_of_the_same_name_is_left_alone(self) -> None:
        self.start_runtime()
        made = self.docker.create_container(
            self.engine.ref, name=f"galaxy-game-{self.game_id}", entrypoint=["sleep"], command=["600"]
        )
        self.addCleanup(self.docker.remove_container, made["Id"], force=True)
        self.docker.start(made["Id"])
        entry_id = self.add_start_job()

        message = self.assert_failed("container_start_failed", self.engine.ref, entry_id, left=1)

        self.assertIn(made["Id"][:12], message)
        self.assertTrue(self.docker.inspect_container(made["Id"])["State"]["Running"])

    def test_the_same_failure_over_rest_has_its_status(self) -> None:
        self.start_runtime()
        answer = self.call("POST", "/start", {"image_ref": "registry.invalid/galaxy/game:1.0.0"})

        self.refused(answer, 500, "image_pull_failed")
        wait_until("the intent", lambda: self.entries("notification:intents"))
        self.assertEqual(self.entries("runtime:job_results"), [])

    def assert_failed(self, code: str, image_ref: str, entry_id: str, left: int = 0) -> str:
        [result] = self.results()
        self.assertEqual((result["outcome"], result["error_code"]), ("failure", code), result)
        self.assertEqual((result["container_id"], result["engine_endpoint"]), ("", ""))
        [intent] = wait_until("the intent", lambda: self.entries("notification:intents"))
        source_ref = f"runtime:start_jobs:{entry_id}"
        self.assertEqual(intent["notification_type"], f"runtime.{code}")
        self.assertEqual((intent["producer"], intent["audience_kind"]), ("runtime_manager", "admin_email"))
        key = f"runtime_manager:runtime.{code}:{self.game_id}:{source_ref}"
        self.assertEqual(intent["idempotency_key"], key)
        payload = json.loads(intent["payload_json"])
        self.assertEqual(
            (payload["game_id"], payload["image_ref"], payload["error_code"], payload["error_message"]),
            (self.game_id, image_ref, code, result["error_message"]),
        )
        [row] = self.log_rows()
        self.assertEqual((row["outcome"], row["error_code"], row["source_ref"]), ("failure", code, source_ref))
        self.assertEqual(self.record(), {})
        named = self.docker.containers(all=True, filters={"name": f"^/galaxy-game-{self.game_id}$"})
        self.assertEqual(len(named), left)
        return result["error_message"]
