"""Restart and patch: every problem that can be known beforehand is detected before the old container is stopped."""

import io
import json
import tarfile
from collections.abc import Sequence
from typing import Any

from docker.errors import NotFound

from harness import start_services
from harness.rtm import RuntimeTestCase
from integration.support import images
from rtmanager.fakes import tiny_image

OURS = {"com.galaxy.owner": "rtmanager", "com.galaxy.kind": "game-engine"}
#: An architecture that no Docker host of the tests has.
FOREIGN = "s390x"
PROBE = "import urllib.request as r; print(r.urlopen('http://galaxy-game-{}:8080/healthz', timeout=5).status)"


def setUpModule() -> None:
    start_services()


class ReplacingTestCase(RuntimeTestCase):
    def start(self, **changes: str) -> dict[str, Any]:
        self.manager = self.start_runtime(**changes)
        return self.post("start", {"image_ref": self.engine.ref})

    def restart(self) -> tuple[int, Any]:
        return self.call("POST", "/restart")

    def patch(self, image_ref: str = "") -> tuple[int, Any]:
        return self.call("POST", "/patch", {"image_ref": image_ref or self.engine.patched_ref})

    def assert_left_as_it_was(self, before: dict[str, Any]) -> None:
        """The same process runs, no other container exists, and the log has one row of the rejected request."""
        self.assertEqual(self.succeed(self.call("GET", "")), before)
        [container] = self.containers()
        self.assertEqual((container["Id"], container["State"]["Running"]), (before["current_container_id"], True))
        rows = [(row["op_kind"], row["outcome"]) for row in self.log_rows()]
        self.assertEqual(rows[0], ("start", "success"))
        self.assertLessEqual(set(rows[1:]), {("restart", "failure"), ("patch", "failure")})

    def image(self, version: str, changes: Sequence[str]) -> str:
        """Create an image of a program that waits, with these instructions; return its reference."""
        repository = f"rtm-harness/{self.game_id}"
        program = tiny_image.archive(str(self.docker.version()["Arch"]), "waits")
        self.docker.import_image_from_data(program, repository=repository, tag=version, changes=list(changes))
        self.addCleanup(self.docker.remove_image, f"{repository}:{version}", force=True)
        return f"{repository}:{version}"

    def foreign_image(self, version: str) -> str:
        """Create the same image for another architecture."""
        image_ref = self.image(version, [f'CMD ["{tiny_image.COMMAND}"]'])
        saved = io.BytesIO(b"".join(self.docker.get_image(image_ref)))
        self.docker.remove_image(image_ref, force=True)
        self.docker.load_image(_for_another_processor(saved))  # type: ignore[no-untyped-call]
        return image_ref


def _for_another_processor(saved: io.BytesIO) -> bytes:
    """Change the architecture in the image of a `docker save` archive."""
    changed = io.BytesIO()
    with tarfile.open(fileobj=saved) as before, tarfile.open(fileobj=changed, mode="w") as after:
        [manifest] = json.load(before.extractfile("manifest.json") or io.BytesIO())
        for each in before.getmembers():
            content = (before.extractfile(each) or io.BytesIO()).read() if each.isfile() else b""
            if each.name == manifest["Config"]:
                content = json.dumps(json.loads(content) | {"architecture": FOREIGN}).encode()
                each.size = len(content)
            after.addfile(each, io.BytesIO(content))
    return changed.getvalue()


class Refused(ReplacingTestCase):
    def test_two_networks_of_one_name(self) -> None:
        before = self.start()
        second = self.docker.create_network(self.network.name, check_duplicate=False)["Id"]
        self.addCleanup(self.docker.remove_network, second)

        for answer in (self.restart(), self.patch()):
            self.assertIn("2 Docker networks", self.refused(answer, 400, "start_config_invalid"))
        self.assert_left_as_it_was(before)

    def test_names_that_were_swapped(self) -> None:
        before, other = self.start(), f"{self.game_id}-o"
        theirs = self.post("start", {"image_ref": self.engine.ref}, game_id=other)
        ours, name = before["current_container_id"], f"galaxy-game-{self.game_id}"
        self.docker.rename(ours, f"{name}-moved")
        self.docker.rename(theirs["current_container_id"], name)
        self.docker.rename(ours, f"galaxy-game-{other}")

        for answer in (self.restart(), self.patch()):
            message = self.refused(answer, 500, "container_start_failed")
            self.assertIn(f"docker rename {theirs['current_container_id'][:12]} galaxy-game-{other}", message)
        self.assert_left_as_it_was(before)
        self.assertTrue(self.docker.inspect_container(theirs["current_container_id"])["State"]["Running"])

    def test_log_options_that_the_driver_does_not_have(self) -> None:
        before = self.start()
        self.manager.stop()
        self.start_runtime(DOCKER_LOG_DRIVER="journald", DOCKER_LOG_OPTS="max-size=1m")

        for answer in (self.restart(), self.patch()):
            message = self.refused(answer, 500, "container_start_failed")
            self.assertRegex(message, "unknown log opt 'max-size'.*RTMANAGER_DOCKER_LOG_OPTS")
        self.assert_left_as_it_was(before)

    def test_an_image_that_cannot_be_created_from(self) -> None:
        before = self.start()
        command = f'CMD ["{tiny_image.COMMAND}"]'
        for version, changes, why in (
            ("1.0.1", [], "(?i)no command"),
            ("1.0.2", [command, "LABEL com.galaxy.cpu_quota=500"], "Range of CPUs"),
        ):
            with self.subTest(changes=changes):
                answer = self.patch(self.image(version, changes))
                self.assertRegex(self.refused(answer, 500, "container_start_failed"), why)
                self.assert_left_as_it_was(before)

    def test_an_image_for_another_processor(self) -> None:
        before = self.start()
        message = self.refused(self.patch(self.foreign_image("1.0.1")), 500, "container_start_failed")
        self.assertRegex(message, f"linux/{FOREIGN}.*stop the game")
        self.assert_left_as_it_was(before)

    def test_an_image_that_is_absent_and_not_to_be_pulled(self) -> None:
        before = self.start(IMAGE_PULL_POLICY="never")
        self.refused(self.patch(f"rtm-harness/{self.game_id}:1.0.1"), 500, "image_pull_failed")
        self.assert_left_as_it_was(before)

    def test_a_directory_that_became_a_link(self) -> None:
        before = self.start()
        directory = self.state_root.folder("games") / self.game_id
        away = directory.rename(directory.with_name("away"))
        directory.symlink_to(away)

        for answer in (self.restart(), self.patch()):
            self.assertIn("symbolic link", self.refused(answer, 400, "start_config_invalid"))
        self.assert_left_as_it_was(before)

    def test_a_container_of_somebody_else_under_the_name_of_the_next_one(self) -> None:
        before = self.start()
        name = f"galaxy-game-{self.game_id}.next"
        stranger = self.start_container(images.tiny("waits"), name=name)

        self.assertIn(name, self.refused(self.restart(), 500, "container_start_failed"))

        self.assert_left_as_it_was(before)
        self.assertTrue(self.docker.inspect_container(stranger.container_id)["State"]["Running"])


class Done(ReplacingTestCase):
    def test_the_new_container_is_reached_under_the_games_name(self) -> None:
        self.start()
        other = f"{self.game_id}-o"
        client_id = self.post("start", {"image_ref": self.engine.ref}, game_id=other)["current_container_id"]
        for operation in (self.restart, self.patch):
            container_id = self.succeed(operation())["current_container_id"]
            self.engine_call("GET", "/healthz")  # it answers
            made = self.docker.exec_create(client_id, ["python3", "-c", PROBE.format(self.game_id)])
            self.assertEqual(self.docker.exec_start(made["Id"]).strip(), b"200")
            [container] = self.containers()
            self.assertEqual((container["Id"], container["Name"]), (container_id, f"/galaxy-game-{self.game_id}"))
            self.assertEqual(container["Config"]["Hostname"], f"galaxy-game-{self.game_id}")

    def test_what_shows_only_at_the_start_leaves_a_stopped_game(self) -> None:
        self.start()
        self.refused(self.patch(images.made("broken")), 500, "container_start_failed")
        record = self.succeed(self.call("GET", ""))
        self.assertEqual((record["status"], record["current_container_id"]), ("stopped", None))
        self.assertEqual(record["current_image_ref"], self.engine.ref)
        self.assertEqual(self.containers(), [])
        self.assertEqual(self.succeed(self.restart())["status"], "running")


class Leftovers(ReplacingTestCase):
    def left_behind(self) -> str:
        """Create what a restart leaves that was killed between the new container's creation and the old one's stop."""
        labels = {**OURS, "com.galaxy.game_id": self.game_id, "com.galaxy.engine_image_ref": self.engine.ref}
        name = f"galaxy-game-{self.game_id}.next"
        host = self.docker.create_host_config(network_mode=self.network.name)
        made = self.docker.create_container(self.engine.ref, name=name, labels=labels, host_config=host)
        return str(made["Id"])

    def is_gone(self, container_id: str) -> bool:
        try:
            self.docker.inspect_container(container_id)
        except NotFound:
            return True
        return False

    def test_the_next_restart_replaces_it(self) -> None:
        self.start()
        left = self.left_behind()
        self.succeed(self.restart())
        self.assertTrue(self.is_gone(left))
        self.assertEqual(len(self.containers()), 1)

    def test_a_pass_removes_it_and_reports_nothing_of_the_game(self) -> None:
        before = self.start(RECONCILE_INTERVAL="1s")
        left = self.left_behind()
        self.wait_until("the removal", lambda: self.is_gone(left))
        self.assert_left_as_it_was(before)
        self.assertEqual([each["event_type"] for each in self.entries("runtime:health_events")], ["container_started"])

    def test_that_of_a_game_that_was_never_recorded_is_left_alone(self) -> None:
        left = self.left_behind()
        self.start_runtime(RECONCILE_INTERVAL="1s")
        self.wait_until("two passes", lambda: self.passes() >= 2)
        self.assertFalse(self.is_gone(left))
        self.docker.remove_container(left)

    def passes(self) -> int:
        return self.log.read_text().count("reconcile pass")
