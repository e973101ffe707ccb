"""Foreign data in containers, images and events ends no pass, hides no crash and fills no memory."""

import json
from functools import partial
from pathlib import Path

from harness import HOSTILE_LABELS, label_image, labels_of_size, start_services
from harness.fixtures.container import Container
from integration.support.watched import WatchedTestCase

#: The labels by which the manager recognises its containers, whoever created them.
OURS = {"com.galaxy.owner": "rtmanager", "com.galaxy.kind": "game-engine"}

GAME_IDS = {
    "nul": "a\0b",
    "long": "x" * 1_000_000,
    "invisible": "g1\u200b\u202e",
    "terminal": "\x1b[2J\r\n",
    "emoji": "\U0001f3ae",
    "sql": "'; DROP TABLE runtime_records; --",
    "path": "../../etc/passwd",
    "empty": "",
}


def setUpModule() -> None:
    start_services()


def resident_mb(pid: int) -> int:
    """The resident memory of a process, in megabytes."""
    (line,) = (each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS:"))
    return int(line.split()[1]) // 1024


class StrangeContainers(WatchedTestCase):
    """Containers with the manager's labels and an invalid game id."""

    def run_strange(self) -> list[Container]:
        return [
            self.start_container(
                self.engine.ref,
                entrypoint=["sleep", "600"],
                network=self.network.name,
                labels={**OURS, "com.galaxy.game_id": game_id},
            )
            for game_id in GAME_IDS.values()
        ]

    def test_a_new_instance_becomes_ready_and_passes_go_on(self) -> None:
        strange = self.run_strange()
        manager = self.start_process(RECONCILE_INTERVAL="200ms")
        game = self.start_game()
        for container in strange:
            self.wait_until("the report", partial(self.is_reported, container, "cannot be a game's id"))
        game.kill()
        self.wait_for_status("stopped")
        manager.terminate()
        lines = self.log.read_text().splitlines()
        self.assertNotIn("Traceback", self.log.read_text())
        reported = [json.loads(line) for line in lines if "container disagrees" in line]
        self.assertLessEqual({each.container_id for each in strange}, {each["container_id"] for each in reported})
        self.assertLess(max(map(len, lines)), 2000)
        self.assertTrue(all(each.inspect()["State"]["Running"] for each in strange))


class HostileLabels(WatchedTestCase):
    """Labels of a game's image that have the names of Docker's attributes, and megabytes of others."""

    def label(self, labels: dict[str, str]) -> str:
        """Create an image of the engine with these labels; its containers are removed before it."""
        odd = label_image(self.engine.ref, labels)
        self.at_end(odd.close)
        self.at_end(partial(self.remove_containers_of, odd.reference))
        return odd.reference

    def remove_containers_of(self, image: str) -> None:
        for each in self.docker.containers(all=True, filters={"ancestor": image}):
            Container(each["Id"], self.docker).remove()

    def start_labelled(self, image: str, game_id: str) -> Container:
        started = self.post("start", {"image_ref": image}, game_id=game_id)
        return Container(str(started["current_container_id"]), self.docker)

    def test_no_label_hides_a_crash_or_its_code(self) -> None:
        self.start_runtime()
        for number, labels in enumerate((dict(HOSTILE_LABELS), {"exitCode": "0"}, {"exitCode": "²", "signal": "15"})):
            game_id = f"{self.game_id}-{number}"
            container = self.start_labelled(self.label(labels), game_id)
            container.kill()
            self.wait_until("the crash", partial(self.kinds, game_id))
            [event] = self.health_events(game_id)
            self.assertEqual((event["event_type"], event["details"]["exit_code"]), ("container_exited", 137))

    def test_megabytes_of_labels_stay_out_of_the_memory(self) -> None:
        manager = self.start_process(
            RECONCILE_INTERVAL="200ms", INSPECT_INTERVAL="200ms", PROBE_INTERVAL="200ms", PROBE_TARGET="container_ip"
        )
        before = resident_mb(manager.pid)
        image = self.label(HOSTILE_LABELS | labels_of_size(8 << 20))
        games = [f"{self.game_id}-{number}" for number in range(3)]
        containers = [self.start_labelled(image, game_id) for game_id in games]
        for container in containers:
            container.kill()
        for game_id in games:
            self.wait_until("the crash", partial(self.kinds, game_id))
        self.assertLess(resident_mb(manager.pid) - before, 60)
