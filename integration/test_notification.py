"""Failed starts: the requester gets an answer, the administrator an intent, the log a row; nothing is left behind.

Each of the three kinds of failure publishes its intent, whoever requested it and for every operation; other errors
publish none.
"""

import json
import time
from typing import Any

from harness import start_services, web
from harness.rtm import RuntimeTestCase
from integration.support import images

UNRESOLVABLE = "registry.invalid/galaxy/game:1.0.0"

#: Much longer than a process that exits at once needs to be gone; the watch ends with it.
WATCH = "10s"


def setUpModule() -> None:
    start_services()


class Notification(RuntimeTestCase):
    def intents(self) -> list[dict[str, str]]:
        return self.wait_until("the intent", lambda: self.entries("notification:intents"))

    def assert_published(self, code: str, image_ref: str, message: str, source_ref: str, game_id: str = "") -> None:
        """Exactly one intent was published, for this failure."""
        [intent] = self.intents()
        game_id = game_id or self.game_id
        payload = json.loads(intent.pop("payload_json"))
        occurred_at_ms, attempted_at_ms = int(intent.pop("occurred_at_ms")), payload.pop("attempted_at_ms")
        expected = {
            "notification_type": f"runtime.{code}",
            "producer": "runtime_manager",
            "audience_kind": "admin_email",
            "idempotency_key": f"runtime_manager:runtime.{code}:{game_id}:{source_ref}",
        }
        self.assertEqual(intent, expected)
        self.assertEqual(
            payload,
            {"game_id": game_id, "image_ref": image_ref, "error_code": code, "error_message": message},
        )
        self.assertLessEqual(attempted_at_ms, occurred_at_ms)
        self.assertLess(abs(time.time() * 1000 - occurred_at_ms), 60_000, "milliseconds since 1970")


class FailedJobs(Notification):
    def test_an_image_that_cannot_be_resolved_is_answered_and_published(self) -> None:
        self.start_runtime()
        self.assert_failed("image_pull_failed", UNRESOLVABLE)

    def test_a_malformed_image_reference_is_answered_and_published(self) -> None:
        self.start_runtime()
        self.assert_failed("start_config_invalid", "galaxy/game:1.0.0 ")

    def test_a_malformed_game_id_is_answered_and_published(self) -> None:
        self.start_runtime()
        self.assert_failed("start_config_invalid", self.engine.ref, game_id="../etc")

    def test_a_network_that_went_away_is_answered_and_published_and_not_created(self) -> None:
        self.start_runtime()
        self.network.remove()

        self.assert_failed("start_config_invalid", self.engine.ref)

        self.assertEqual(self.docker.networks(names=[self.network.name]), [])

    def test_a_state_directory_that_is_a_link_is_answered_and_published(self) -> None:
        (self.state_root.folder("games") / self.game_id).symlink_to("/etc")
        self.start_runtime()
        self.assert_failed("start_config_invalid", self.engine.ref)

    def test_a_state_directory_that_is_a_file_is_answered_and_published(self) -> None:
        (self.state_root.folder("games") / self.game_id).write_text("not a directory")
        self.start_runtime()

        self.assert_failed("start_config_invalid", self.engine.ref)

        self.assertEqual((self.state_root.folder("games") / self.game_id).read_text(), "not a directory")

    def test_an_image_that_cannot_be_started_is_answered_and_published(self) -> None:
        self.start_runtime()
        self.assertIn("no-such-user", self.assert_failed("container_start_failed", images.made("broken")))

    def test_an_image_whose_program_does_not_exist_is_answered_and_published(self) -> None:
        self.start_runtime(FIRST_START_WATCH=WATCH)
        message = self.assert_failed("container_start_failed", images.made("hollow"))
        self.assertIn("exit code 127", message)
        self.assertIn("/no/such/program", message)

    def test_an_image_whose_program_ends_at_once_is_answered_and_published(self) -> None:
        self.start_runtime(FIRST_START_WATCH=WATCH)
        self.assertIn("exit code 3", self.assert_failed("container_start_failed", images.tiny("exits")))

    def test_a_foreign_container_of_the_same_name_is_reported_and_left_alone(self) -> None:
        self.start_runtime()
        foreign = self.start_container(images.tiny("waits"), name=f"galaxy-game-{self.game_id}").container_id

        message = self.assert_failed("container_start_failed", self.engine.ref, left=[foreign])

        self.assertIn(foreign[:12], message)
        self.assertTrue(self.docker.inspect_container(foreign)["State"]["Running"])

    def test_a_foreign_container_of_the_same_name_is_left_alone_when_it_is_dead_too(self) -> None:
        self.start_runtime()
        foreign = self.start_container(images.tiny("exits"), name=f"galaxy-game-{self.game_id}")
        foreign.wait_for_exit()

        self.assert_failed("container_start_failed", self.engine.ref, left=[foreign.container_id])

    def test_a_record_that_is_refused_for_good_takes_the_container_away_and_is_reported(self) -> None:
        self.start_runtime()
        refuse = f"ALTER TABLE runtime_records ADD CONSTRAINT refused CHECK (game_id <> '{self.game_id}')"
        with self.services.database.connect() as connection:
            connection.execute(refuse.encode())
            self.addCleanup(self.mend)

        self.assertIn("refused", self.assert_failed("container_start_failed", self.engine.ref))

    def mend(self) -> None:
        with self.services.database.connect() as connection:
            connection.execute("ALTER TABLE runtime_records DROP CONSTRAINT refused")

    def assert_failed(self, code: str, image_ref: str, *, game_id: str = "", left: list[str] | None = None) -> str:
        """Add a start job and check its failure in every place where it appears; return the message."""
        game_id = game_id or self.game_id
        entry_id = self.add_start_job(image_ref, game_id=game_id)
        source_ref = f"runtime:start_jobs:{entry_id}"
        [result] = self.results()
        message = result.pop("error_message")
        expected = {"outcome": "failure", "error_code": code, "container_id": "", "engine_endpoint": ""}
        self.assertEqual(result, {"game_id": game_id, **expected}, message)
        self.assert_published(code, image_ref, message, source_ref, game_id)
        [row] = self.log_rows(game_id)
        self.assertEqual((row["outcome"], row["error_code"], row["source_ref"]), ("failure", code, source_ref))
        self.assertEqual((row["error_message"], row["image_ref"]), (message, image_ref))
        self.assertEqual(self.record(game_id), {})
        named = self.docker.containers(all=True, filters={"name": f"^/galaxy-game-{self.game_id}$"})
        self.assertEqual([each["Id"] for each in named], left or [])
        return message


class FailedCalls(Notification):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()

    def test_each_kind_of_failure_is_published_under_the_id_of_its_request(self) -> None:
        for number, (code, status, image_ref) in enumerate(
            (
                ("image_pull_failed", 500, UNRESOLVABLE),
                ("start_config_invalid", 400, "NOT an image"),
                ("container_start_failed", 500, images.made("broken")),
            )
        ):
            with self.subTest(code):
                self.redis.delete("notification:intents")
                request_id = f"{self.game_id}.{number}"
                answer = self.request("/start", {"image_ref": image_ref}, request_id)
                message = self.refused(answer, status, code)
                self.assert_published(code, image_ref, message, f"rest:{request_id}")
        self.assertEqual(self.entries("runtime:job_results"), [], "a call has its own answer")
        self.assertEqual(self.containers(), [])

    def test_a_restart_and_a_patch_that_cannot_be_prepared_are_reported_and_leave_the_game_running(self) -> None:
        before = self.post("start", {"image_ref": self.engine.ref})
        directory = self.state_root.folder("games") / self.game_id
        directory.rename(directory.with_name("moved"))
        directory.symlink_to("/etc")

        answer = self.request("/restart", None, f"{self.game_id}.restart")
        message = self.refused(answer, 400, "start_config_invalid")
        self.assert_published("start_config_invalid", self.engine.ref, message, f"rest:{self.game_id}.restart")

        self.redis.delete("notification:intents")
        answer = self.request("/patch", {"image_ref": self.engine.patched_ref}, f"{self.game_id}.patch")
        message = self.refused(answer, 400, "start_config_invalid")
        self.assert_published("start_config_invalid", self.engine.patched_ref, message, f"rest:{self.game_id}.patch")

        self.assertEqual(self.succeed(self.call("GET", "")), before)
        [container] = self.containers()
        self.assertEqual((container["Id"], container["State"]["Running"]), (before["current_container_id"], True))

    def test_other_refusals_are_not_reported(self) -> None:
        self.post("start", {"image_ref": self.engine.ref})
        self.refused(self.call("POST", "/start", {"image_ref": self.engine.patched_ref}), 409, "conflict")
        self.refused(self.call("DELETE", "/container"), 409, "conflict")
        self.refused(self.call("POST", "/patch", {"image_ref": "galaxy/game:2.0.0"}), 409, "semver_patch_only")
        self.refused(self.call("POST", "/stop", {"reason": "finished"}, game_id="unknown"), 404, "not_found")
        self.add_start_job("NOT an image", game_id="after-them")
        self.results()

        [intent] = self.intents()

        self.assertEqual(json.loads(intent["payload_json"])["game_id"], "after-them")

    def request(self, path: str, body: object, request_id: str) -> tuple[int, Any]:
        url = f"{self.base_url}/api/v1/internal/runtimes/{self.game_id}{path}"
        return web.call("POST", url, body, {"X-Request-Id": request_id})
