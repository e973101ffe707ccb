"""Patch: only to another patch version of the same image, checked before anything changes, prepared before the stop."""

from typing import Any

from harness import start_services
from harness.rtm import RuntimeTestCase
from integration.support import images


def setUpModule() -> None:
    start_services()


class PatchTestCase(RuntimeTestCase):
    def start(self, image_ref: str = "") -> dict[str, Any]:
        return self.post("start", {"image_ref": image_ref or self.engine.ref})

    def patch(self, image_ref: str) -> tuple[int, Any]:
        return self.call("POST", "/patch", {"image_ref": image_ref})

    def assert_untouched(self, before: dict[str, Any]) -> None:
        self.assertEqual(self.succeed(self.call("GET", "")), before)
        [container] = self.containers()
        self.assertEqual((container["Id"], container["State"]["Running"]), (before["current_container_id"], True))


class Versions(PatchTestCase):
    def test_both_versions_are_checked_before_docker_is_queried(self) -> None:
        docker = self.before_docker()
        self.start_runtime(DOCKER_HOST=docker.url)
        before = self.start()
        docker.refuse()

        for image_ref, status, code in (
            ("galaxy/game:latest", 400, "image_ref_not_semver"),
            ("galaxy/game:1.0", 400, "image_ref_not_semver"),
            ("galaxy/game:01.0.0", 400, "image_ref_not_semver"),
            ("galaxy/game", 400, "image_ref_not_semver"),
            (f"galaxy/game@sha256:{'0' * 64}", 400, "image_ref_not_semver"),
            ("galaxy/game:1.1.0", 409, "semver_patch_only"),
            ("galaxy/game:0.0.0", 409, "semver_patch_only"),
            ("galaxy/game:v2.0.0-rc.1", 409, "semver_patch_only"),
            ("galaxy/game:1.0.0:1", 400, "start_config_invalid"),
            ("galaxy/game:1.0.1+build", 400, "start_config_invalid"),
        ):
            with self.subTest(image_ref):
                self.refused(self.patch(image_ref), status, code)
        self.refused(self.patch(self.engine.patched_ref), 503, "service_unavailable")

        docker.pass_on()
        self.assert_untouched(before)

    def test_a_game_whose_own_image_has_no_version_cannot_be_patched(self) -> None:
        self.start_runtime()
        before = self.start(images.engine_as("latest"))

        message = self.refused(self.patch(self.engine.patched_ref), 400, "image_ref_not_semver")

        self.assertIn("latest", message)
        self.assert_untouched(before)

    def test_a_leading_v_and_a_pre_release_are_parts_of_a_version(self) -> None:
        self.start_runtime()
        self.start(images.engine_as("v1.0.0"))
        for tag in ("1.0.1-rc.1", "v1.0.1", "1.0.0-alpha-2"):
            with self.subTest(tag):
                image_ref = images.engine_as(tag)
                self.assertEqual(self.succeed(self.patch(image_ref))["current_image_ref"], image_ref)

    def test_a_lower_patch_version_is_a_rollback_and_the_same_one_a_replay(self) -> None:
        self.start_runtime()
        before = self.start()
        self.assertEqual(self.succeed(self.patch(self.engine.ref)), before)
        patched = self.succeed(self.patch(self.engine.patched_ref))

        back = self.succeed(self.patch(self.engine.ref))

        self.assertEqual(back["current_image_ref"], self.engine.ref)
        self.assertEqual(len({each["current_container_id"] for each in (before, patched, back)}), 3)
        codes = [row["error_code"] for row in self.log_rows() if row["op_kind"] == "patch"]
        self.assertEqual(codes, ["replay_no_op", None, None])


class Recreation(PatchTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()
        self.before = self.start()

    def test_a_patch_leaves_three_rows_of_one_request(self) -> None:
        after = self.succeed(self.patch(self.engine.patched_ref))

        rows = self.log_rows()[1:]
        self.assertEqual([row["op_kind"] for row in rows], ["stop", "start", "patch"])
        self.assertEqual({(row["op_source"], row["outcome"]) for row in rows}, {("gm_rest", "success")})
        self.assertEqual(len({row["source_ref"] for row in rows}), 1)
        images_of_rows = [row["image_ref"] for row in rows]
        self.assertEqual(images_of_rows, [self.engine.ref, self.engine.patched_ref, self.engine.patched_ref])
        old, new = self.before["current_container_id"], after["current_container_id"]
        self.assertEqual([row["container_id"] for row in rows], [old, new, new])
        self.assertEqual(
            (after["engine_endpoint"], after["created_at"]), (self.before["engine_endpoint"], self.before["created_at"])
        )

    def test_a_failed_pull_leaves_the_game_running(self) -> None:
        self.refused(self.patch("registry.invalid/galaxy/game:1.0.9"), 500, "image_pull_failed")

        self.assert_untouched(self.before)
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "patch"])

    def test_an_image_that_cannot_start_leaves_the_game_stopped_and_a_restart_brings_it_back(self) -> None:
        self.refused(self.patch(images.made("broken")), 500, "container_start_failed")

        record = self.record()
        self.assertEqual(
            (record["status"], record["current_container_id"], record["current_image_ref"]),
            ("stopped", None, self.engine.ref),
        )
        rows = self.log_rows()[1:]
        parts = [(row["op_kind"], row["outcome"]) for row in rows]
        self.assertEqual(parts, [("stop", "success"), ("start", "failure"), ("patch", "failure")])
        self.assertEqual(len({row["source_ref"] for row in rows}), 1)
        self.assertEqual(self.containers(), [])

        self.assertEqual(self.post("restart")["current_image_ref"], self.engine.ref)

    def test_a_stopped_game_runs_the_new_image_and_its_stop_was_nothing_to_do(self) -> None:
        self.post("stop", {"reason": "finished"})

        patched = self.succeed(self.patch(self.engine.patched_ref))

        self.assertEqual((patched["status"], patched["stopped_at"]), ("running", None))
        self.assertEqual([each["Id"] for each in self.containers()], [patched["current_container_id"]])
        parts = [(row["op_kind"], row["error_code"]) for row in self.log_rows()[2:]]
        self.assertEqual(parts, [("stop", "replay_no_op"), ("start", None), ("patch", None)])

    def test_a_stopped_game_is_patched_to_the_image_that_it_has(self) -> None:
        self.post("stop", {"reason": "finished"})

        patched = self.succeed(self.patch(self.engine.ref))

        self.assertEqual((patched["status"], patched["current_image_ref"]), ("running", self.engine.ref))
        self.assertNotEqual(patched["current_container_id"], self.before["current_container_id"])
