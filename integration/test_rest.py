"""The REST interface against the real service: every documented outcome, strict bodies, readiness."""

from typing import Any

from harness import web
from harness.case import RuntimeTestCase, start_services
from integration import images


def setUpModule() -> None:
    start_services()


class Rest(RuntimeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()

    def test_every_operation_on_a_game_without_a_record_is_not_found(self) -> None:
        self.refused(self.call("GET", ""), 404, "not_found")
        self.refused(self.call("POST", "/stop", {"reason": "finished"}), 404, "not_found")
        self.refused(self.call("POST", "/restart"), 404, "not_found")
        self.refused(self.call("POST", "/patch", {"image_ref": self.engine.ref}), 404, "not_found")
        self.refused(self.call("DELETE", "/container"), 404, "not_found")

    def test_start_of_a_running_game_is_a_replay_or_a_conflict(self) -> None:
        first = self.post("start", {"image_ref": self.engine.ref})

        self.assertEqual(self.post("start", {"image_ref": self.engine.ref}), first)
        message = self.refused(self.call("POST", "/start", {"image_ref": self.engine.patched_ref}), 409, "conflict")

        self.assertIn(self.engine.ref, message)
        codes = [(row["outcome"], row["error_code"]) for row in self.log_rows()]
        self.assertEqual(codes, [("success", None), ("success", "replay_no_op"), ("failure", "conflict")])

    def test_what_is_stopped_or_removed_is_replayed_or_in_conflict(self) -> None:
        self.post("start", {"image_ref": self.engine.ref})
        stopped = self.post("stop", {"reason": "finished"})
        self.assertEqual(self.post("stop", {"reason": "finished"}), stopped)
        removed = self.succeed(self.call("DELETE", "/container"))
        self.assertEqual(self.succeed(self.call("DELETE", "/container")), removed)
        self.assertEqual(self.post("stop", {"reason": "finished"}), removed)
        self.refused(self.call("POST", "/restart"), 409, "conflict")
        self.refused(self.call("POST", "/patch", {"image_ref": self.engine.patched_ref}), 409, "conflict")

    def test_a_stop_of_a_game_whose_container_is_gone_is_a_success_and_an_event(self) -> None:
        self.post("start", {"image_ref": self.engine.ref})
        [container] = self.containers()
        self.docker.remove_container(container["Id"], force=True)

        removed = self.post("stop", {"reason": "finished"})

        self.assertEqual((removed["status"], removed["current_container_id"]), ("removed", None))
        self.assertEqual(self.log_rows()[-1]["container_id"], container["Id"])
        [snapshot] = self.rows("SELECT status, container_id FROM health_snapshots")
        self.assertEqual(snapshot, {"status": "container_disappeared", "container_id": container["Id"]})

    def test_the_caller_is_the_source_of_the_operation(self) -> None:
        for caller in ("gm", "admin", "somebody"):
            self.call("POST", "/stop", {"reason": "finished"}, caller=caller)

        sources = [row["op_source"] for row in self.log_rows()]
        self.assertEqual(sources, ["gm_rest", "admin_rest", "admin_rest"])

    def test_bodies_are_read_strictly(self) -> None:
        unknown = {"image_ref": self.engine.ref, "force": True}
        bodies: list[object] = [{}, {"image_ref": 1}, unknown, [], "text", None]
        for body in bodies:
            with self.subTest(body=body):
                self.refused(self.call("POST", "/start", body), 400, "invalid_request")
        self.refused(self.call("POST", "/stop", {"reason": "boredom"}), 400, "invalid_request")
        self.refused(self.call("POST", "/restart", {"force": True}), 400, "invalid_request")
        self.assertEqual(self.log_rows(), [])

    def test_a_malformed_game_is_refused(self) -> None:
        bad = "bad%20id"
        self.refused(self.call("GET", "", game_id=bad), 400, "invalid_request")
        answer = self.call("POST", "/start", {"image_ref": self.engine.ref}, game_id=bad)
        self.refused(answer, 400, "start_config_invalid")

    def test_records_are_listed_by_status_and_in_pages(self) -> None:
        games = [f"{self.game_id}-{number}" for number in range(3)]
        for game_id in games:
            self.post("start", {"image_ref": self.engine.ref}, game_id=game_id)
        self.post("stop", {"reason": "finished"}, game_id=games[1])
        url = f"{self.base_url}/api/v1/internal/runtimes"

        _, running = web.call("GET", f"{url}?status=running")
        self.assertEqual([item["game_id"] for item in running["items"]], [games[0], games[2]])

        seen: list[str] = []
        cursor: Any = ""
        while cursor is not None:
            _, page = web.call("GET", f"{url}?limit=1{cursor and '&cursor=' + cursor}")
            seen += [item["game_id"] for item in page["items"]]
            cursor = page["next_cursor"]
        self.assertEqual(seen, games)

    def test_readiness_names_what_does_not_answer_and_liveness_asks_nobody(self) -> None:
        self.assertEqual(web.call("GET", f"{self.base_url}/readyz"), (200, {"status": "ready"}))
        self.network.remove()

        status, answer = web.call("GET", f"{self.base_url}/readyz")

        self.assertEqual((status, answer["error"]["code"]), (503, "service_unavailable"))
        self.assertIn("network", answer["error"]["message"])
        self.assertEqual(web.call("GET", f"{self.base_url}/healthz"), (200, {"status": "ok"}))


class Patch(RuntimeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()
        self.before = self.post("start", {"image_ref": self.engine.ref})

    def test_versions_are_checked_before_anything_is_done(self) -> None:
        for image_ref, status, code in (
            ("galaxy/game:latest", 400, "image_ref_not_semver"),
            ("galaxy/game", 400, "image_ref_not_semver"),
            (f"galaxy/game@sha256:{'0' * 64}", 400, "image_ref_not_semver"),
            ("galaxy/game:1.1.0", 409, "semver_patch_only"),
            ("galaxy/game:2.0.0", 409, "semver_patch_only"),
            ("galaxy/game:1.0.0:1", 400, "start_config_invalid"),
        ):
            with self.subTest(image_ref=image_ref):
                self.refused(self.call("POST", "/patch", {"image_ref": image_ref}), status, code)
        self.assert_untouched()

    def test_a_failed_pull_leaves_the_game_running(self) -> None:
        answer = self.call("POST", "/patch", {"image_ref": "registry.invalid/galaxy/game:1.0.9"})

        self.refused(answer, 500, "image_pull_failed")
        self.assert_untouched()
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "patch"])

    def test_the_same_image_is_a_replay_and_an_older_one_a_rollback(self) -> None:
        self.assertEqual(self.post("patch", {"image_ref": self.engine.ref}), self.before)
        self.post("patch", {"image_ref": self.engine.patched_ref})

        back = self.post("patch", {"image_ref": self.engine.ref})

        self.assertEqual(back["current_image_ref"], self.engine.ref)

    def test_an_image_that_cannot_start_leaves_the_game_stopped_and_a_restart_brings_it_back(self) -> None:
        answer = self.call("POST", "/patch", {"image_ref": images.made("broken")})

        self.refused(answer, 500, "container_start_failed")
        record = self.record()
        self.assertEqual(
            (record["status"], record["current_container_id"], record["current_image_ref"]),
            ("stopped", None, self.engine.ref),
        )
        rows = [(row["op_kind"], row["outcome"]) for row in self.log_rows()]
        self.assertEqual(rows[1:], [("stop", "success"), ("start", "failure"), ("patch", "failure")])
        self.assertEqual(len({row["source_ref"] for row in self.log_rows()[1:]}), 1)
        self.assertEqual(self.containers(), [])

        self.assertEqual(self.post("restart")["current_image_ref"], self.engine.ref)

    def assert_untouched(self) -> None:
        self.assertEqual(self.succeed(self.call("GET", "")), self.before)
        [container] = self.containers()
        self.assertEqual(container["Id"], self.before["current_container_id"])
        self.assertTrue(container["State"]["Running"])
