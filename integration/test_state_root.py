"""A host fault at the games' root is reported as such, no game is started on it, and recovery is automatic."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any
from unittest import mock

from harness import start_services, web
from integration.support.commands import CommandTestCase, needs_mount
from rtmanager.workers import state_root

#: The file system of a test's games: room for some games and for few files.
SIZE, INODES = "4m", 64
RACES = {"races": [{"raceName": "Terrans"}, {"raceName": "Selkies"}]}


def setUpModule() -> None:
    start_services()


def mount(*arguments: str) -> None:
    """Run mount(8); raises with its output."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True, timeout=20)


@needs_mount
class StateRootTestCase(CommandTestCase):
    """A game runs in a root that is a small separate file system."""

    def setUp(self) -> None:
        super().setUp()
        self.games = self.state_root.folder("games")
        self.kept = self.state_root.folder("kept")
        self.settings = self.environment()
        self.addCleanup(self.unmount, self.kept)
        self.addCleanup(self.unmount, self.games)
        mount("-t", "tmpfs", "-o", f"size={SIZE},nr_inodes={INODES},mode=0755", "tmpfs", str(self.games))
        mount("--bind", str(self.games), str(self.kept))
        self.enterContext(mock.patch.object(state_root, "PERIOD_S", 0.2))

    def unmount(self, path: Path) -> None:
        while os.path.ismount(path):
            subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=20)

    def start_game(self, **changes: str) -> dict[str, Any]:
        """Start the game and play one turn; return its record."""
        self.manager = self.start_runtime(**changes)
        record = self.post("start", {"image_ref": self.engine.ref})
        self.assertEqual(self.engine_call("POST", "/api/v1/admin/init", RACES)[0], 200)
        self.assert_next_turn_is(1)
        return record

    def assert_next_turn_is(self, turn: int) -> None:
        status, game = self.engine_call("PUT", "/api/v1/admin/turn")
        self.assertEqual((status, game["turn"]), (200, turn))

    def assert_takes_no_game(self, before: dict[str, Any], *parts: str) -> None:
        """The game runs on, no other one starts, and the root is named wherever an operator reads."""
        for operation, body in (("restart", None), ("patch", {"image_ref": self.engine.patched_ref})):
            message = self.refused(self.call("POST", f"/{operation}", body), 400, "start_config_invalid")
            for part in (str(self.games), *parts):
                self.assertIn(part, message)
        other = f"{self.game_id}-o"
        refused = self.call("POST", "/start", {"image_ref": self.engine.ref}, game_id=other)
        self.refused(refused, 400, "start_config_invalid")
        self.assertEqual(self.containers(other), [])
        self.assertEqual(self.succeed(self.call("GET", "")), before)
        [container] = self.containers()
        self.assertEqual((container["Id"], container["State"]["Running"]), (before["current_container_id"], True))
        self.assert_is_shown(*parts)

    def assert_is_shown(self, *parts: str) -> None:
        message = self.refused(web.call("GET", f"{self.base_url}/readyz"), 503, "service_unavailable")
        self.assertIn("state root: ", message)
        code, output = self.command("check", self.settings)
        self.assertEqual((code, output.count("FAILED")), (1, 1), output)
        for part in parts:
            self.assertIn(part, message)
            self.assertIn(part, output)
        self.wait_until("the gauge", lambda: not self.is_usable())
        self.assertIn("the state root cannot take games", self.log.read_text())

    def is_usable(self) -> bool:
        """The value of the gauge."""
        lines = web.text(f"{self.base_url}/metrics").splitlines()
        [value] = [line.rpartition(" ")[2] for line in lines if line.startswith("rtmanager_state_root_usable ")]
        return bool(value == "1")

    def assert_mended(self, before: dict[str, Any]) -> None:
        """Everything recovers by itself, with the game's state."""
        self.wait_until_ready()
        self.wait_until("the gauge", self.is_usable)
        self.assertNotEqual(self.post("restart")["current_container_id"], before["current_container_id"])
        self.assert_next_turn_is(2)


class Room(StateRootTestCase):
    def test_a_root_without_room_takes_no_game_until_there_is_some(self) -> None:
        before = self.start_game()
        ballast = self.fill()

        self.assert_takes_no_game(before, "0 bytes", "RTMANAGER_GAME_STATE_MIN_FREE")

        ballast.unlink()
        self.assert_mended(before)

    def fill(self) -> Path:
        """Fill the file system; return the file that fills it."""
        ballast = self.games / "ballast"
        with ballast.open("wb", buffering=0) as file, self.assertRaises(OSError):
            while True:
                file.write(bytes(1 << 12))
        return ballast

    def test_so_does_one_without_inodes(self) -> None:
        before = self.start_game()
        files = [self.kept / f"file-{number}" for number in range(INODES)]
        with self.assertRaises(OSError):
            for each in files:
                each.touch()

        self.assert_takes_no_game(before, "0 inodes")

        for each in files:
            each.unlink(missing_ok=True)
        self.assert_mended(before)

    def test_jobs_that_it_fails_are_all_answered_and_published_within_the_limit_of_a_minute(self) -> None:
        self.start_runtime(INTENTS_PER_MINUTE="2")
        self.fill()
        games = [f"{self.game_id}-{number}" for number in range(6)]
        for game_id in games:
            self.add_start_job(game_id=game_id)

        results = self.results(len(games))

        self.assertEqual({each["error_code"] for each in results}, {"start_config_invalid"})
        time.sleep(1)  # for intents that may follow the results
        types = [each["notification_type"] for each in self.entries("notification:intents")]
        self.assertEqual(types, ["runtime.start_config_invalid"] * 2)

    def test_a_manager_starts_beside_a_full_root_and_stops_games(self) -> None:
        self.start_game()
        self.fill()
        self.start_runtime()
        self.assertIn("the state root can take no games", self.log.read_text())

        self.assertEqual(self.post("stop", {"reason": "finished"})["status"], "stopped")


class AnotherFileSystem(StateRootTestCase):
    def test_no_game_begins_anew_in_a_root_that_is_not_mounted(self) -> None:
        before = self.start_game()
        self.unmount(self.games)

        self.assert_takes_no_game(before, "no game on record has its directory", self.game_id, "mount the right one")
        self.assertEqual(list(self.games.iterdir()), [])

        mount("--bind", str(self.kept), str(self.games))
        self.assert_mended(before)

    def test_nor_does_one_under_a_manager_that_was_started_before_the_mount(self) -> None:
        before = self.start_game()
        self.unmount(self.games)
        self.start_runtime()

        self.assert_takes_no_game(before, "no game on record has its directory")

        mount("--bind", str(self.kept), str(self.games))
        self.assert_mended(before)

    def test_nor_in_a_directory_that_a_changed_setting_names(self) -> None:
        before = self.start_game()
        self.games = self.state_root.folder("other")
        self.settings = self.environment(GAME_STATE_ROOT=str(self.games))
        self.manager.stop()
        changed = self.start_runtime(GAME_STATE_ROOT=str(self.games))

        self.assert_takes_no_game(before, "correct RTMANAGER_GAME_STATE_ROOT")

        changed.stop()
        self.start_runtime()
        self.assert_mended(before)

    def test_nor_in_one_that_was_mounted_over(self) -> None:
        before = self.start_game()
        mount("-t", "tmpfs", "tmpfs", str(self.games))
        (self.games / "lost+found").mkdir()

        self.assert_takes_no_game(before, "another file system is mounted there")

        subprocess.run(["umount", str(self.games)], check=True, timeout=20)
        self.assert_mended(before)

    def test_a_root_that_was_mounted_read_only_takes_no_game(self) -> None:
        before = self.start_game()
        mount("-o", "remount,bind,ro", str(self.games))

        self.assert_takes_no_game(before, "read-only")

        mount("-o", "remount,bind,rw", str(self.games))
        self.assert_mended(before)

    def test_a_file_in_its_place_takes_no_game_and_is_kept(self) -> None:
        before = self.start_game()
        self.unmount(self.games)
        self.games.rmdir()
        self.games.write_text("keep me")

        self.assert_takes_no_game(before, "not a directory")
        self.assertEqual(self.games.read_text(), "keep me")

        self.games.unlink()
        self.games.mkdir()
        mount("--bind", str(self.kept), str(self.games))
        self.assert_mended(before)

    def test_one_lost_directory_keeps_no_game_from_its_restart(self) -> None:
        self.start_game()
        (self.games / self.game_id).rename(self.games / "elsewhere")
        self.post("restart")
        self.assertTrue((self.games / self.game_id).is_dir())
