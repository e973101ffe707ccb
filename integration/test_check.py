"""`check` tries what a start needs (a directory, a container, disk space), and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from harness import images, start_services
from harness.rtm import manager
from integration.support.commands import CommandTestCase, needs_mount

TRIALS = {"label": "com.galaxy.kind=trial"}


def setUpModule() -> None:
    start_services()


class CheckTestCase(CommandTestCase):
    def checked(self, *options: str, **changes: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """The exit code of `check --json`, and its checks by name."""
        code, output = self.command("check", self.environment(**changes), "--json", *options, only_stdout=True)
        found = json.loads(output)
        self.assertEqual(found["ok"], code == 0)
        return code, {each["name"]: each for each in found["checks"]}

    def assert_fails(self, name: str, *texts: str, **changes: str) -> dict[str, dict[str, Any]]:
        """Only this check fails, with these words; return all checks."""
        code, found = self.checked(**changes)
        self.assertEqual((code, [each for each in found if found[each]["ok"] is False]), (1, [name]), found)
        for text in texts:
            self.assertIn(text, found[name]["message"] + found[name]["remedy"])
        self.assert_nothing_left()
        return found

    def assert_nothing_left(self) -> None:
        self.assertEqual(self.own_trials(), [])
        self.assertEqual(os.listdir(self.state_root.folder("games")), [])

    def own_trials(self) -> list[str]:
        """The containers of trials on this test's network."""
        found = self.docker.containers(all=True, filters=TRIALS)
        return [each["Id"] for each in found if self.network.name in str(each["NetworkSettings"])]


class Trials(CheckTestCase):
    def test_all_is_tried_and_nothing_is_left(self) -> None:
        code, found = self.checked("--image", self.engine.ref)
        self.assertEqual((code, {each["ok"] for each in found.values()}), (0, {True}), found)
        given = self.environment()
        owner, mode = (given[f"RTMANAGER_GAME_STATE_{name}"] for name in ("OWNER_UID", "DIR_MODE"))
        for name, texts in {
            "room": ("free",),
            "directory": (f"{owner}:", mode),
            "container": (self.engine.ref, "0.5 cores, 128 MiB, 64 processes", "not started"),
            "log driver": ("json-file with max-size, max-file",),
        }.items():
            for text in texts:
                self.assertIn(text, found[name]["message"])
        self.assert_nothing_left()

    def test_any_image_of_the_host_will_do(self) -> None:
        code, found = self.checked()
        self.assertEqual((code, found["container"]["ok"]), (0, True), found)

    def test_the_dsn_may_be_in_a_file(self) -> None:
        environment = self.environment()
        secret = self.state_root.folder("secrets") / "dsn"
        secret.write_text(environment.pop("RTMANAGER_POSTGRES_PRIMARY_DSN") + "\n")
        environment["RTMANAGER_POSTGRES_PRIMARY_DSN_FILE"] = str(secret)
        code, output = self.command("check", environment)
        self.assertEqual(code, 0, output)
        self.assertNotIn("unknown variable", output)

    def test_an_image_that_is_not_there_is_named_and_not_pulled(self) -> None:
        code, found = self.checked("--image", "nowhere.test/x:1")
        self.assertEqual((code, found["container"]["ok"]), (1, False))
        self.assertIn("docker pull nowhere.test/x:1", found["container"]["remedy"])

    def test_more_cores_than_the_host_has(self) -> None:
        # The image has no labels of an engine, so the defaults apply.
        found = self.checked("--image", images.redis(), DEFAULT_CPU_QUOTA="500")[1]
        self.assertIn("Range of CPUs", found["container"]["message"])
        self.assertIn("RTMANAGER_DEFAULT_CPU_QUOTA", found["container"]["message"])

    def test_options_that_the_log_driver_does_not_take(self) -> None:
        self.assert_fails("container", "unknown log opt", DOCKER_LOG_DRIVER="journald", DOCKER_LOG_OPTS="max-size=1m")
        for options in ({"DOCKER_LOG_OPTS": ""}, {}):
            code, found = self.checked(DOCKER_LOG_DRIVER="journald", **options)
            self.assertEqual((code, found["log driver"]["message"]), (0, "journald"), found)

    def test_a_log_driver_that_docker_lacks_is_reported_at_once_by_check_and_by_serve(self) -> None:
        began = time.monotonic()
        found = self.assert_fails("log driver", "no log driver 'nosuch'", "json-file", DOCKER_LOG_DRIVER="nosuch")
        self.assertIsNone(found["container"]["ok"])
        code, output = self.command("serve", self.environment(DOCKER_LOG_DRIVER="nosuch"))
        self.assertEqual((code, output.count("\n")), (1, 1), output)
        self.assertIn("no log driver 'nosuch'", output)
        self.assertLess(time.monotonic() - began, 14, "Docker looks for it for 15 s")

    def test_logs_without_a_limit_are_warned_of(self) -> None:
        code, found = self.checked(DOCKER_LOG_OPTS="")
        self.assertEqual(code, 0)
        self.assertIn("max-size", found["log driver"]["warnings"][0])

    @needs_mount
    def test_a_root_that_docker_does_not_see_at_this_path(self) -> None:
        """As in a container without a mount of the root: the manager's directories are missing on Docker's host."""
        hidden = self.state_root.folder("games")
        code, output = self.command(
            "check", self.environment(), "--json", only_stdout=True, before=(*_HIDE, str(hidden))
        )
        found = {each["name"]: each for each in json.loads(output)["checks"]}
        self.assertEqual((code, found["directory"]["ok"], found["container"]["ok"]), (1, True, False), output)
        self.assertIn("must see the state directory at the same path", found["container"]["message"])

    @needs_mount
    def test_a_full_file_system(self) -> None:
        code, output = self.command(
            "check",
            self.environment(),
            "--json",
            only_stdout=True,
            before=(*_FULL, str(self.state_root.folder("games"))),
        )
        found = {each["name"]: each for each in json.loads(output)["checks"]}
        self.assertEqual((code, found["state root"]["ok"], found["room"]["ok"]), (1, False, None), output)
        self.assertRegex(found["state root"]["message"], "has 0 bytes .* free, expected at least .*; free some")

    def test_a_fault_of_the_settings_is_json_as_well(self) -> None:
        code, output = self.command("check", self.environment(LOG_LEVEL="loud"), "--json", only_stdout=True)
        [fault] = json.loads(output)["checks"]
        self.assertEqual((code, fault["name"], fault["ok"]), (2, "settings", False))
        self.assertIn("RTMANAGER_LOG_LEVEL: 'loud'", fault["message"])


#: Runs a command with another directory in this place, as root in its own mount namespace.
_HIDE = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$1" && shift && exec "$@"', "sh")
#: The same with a full file system.
_FULL = (
    *_HIDE[:4],
    'mount -t tmpfs -o size=64k none "$1" && dd if=/dev/zero of="$1/f" bs=64k count=1 2>&- ; shift; exec "$@"',
    "sh",
)


class Killed(CheckTestCase):
    """The container of a killed check belongs to no game, and the next check removes it."""

    def kill_one(self) -> str:
        """Kill a check when Docker has created its container; return the container's id."""
        code = (
            "import os, signal, sys\n"
            "from rtmanager.adapters.docker.runtime import DockerRuntime\n"
            "DockerRuntime._discard = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            "from rtmanager.cli import main\n"
            "sys.exit(main(['check']))\n"
        )
        environment = manager.whole_environment(self.environment())
        ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
        self.assertEqual(ended.returncode, -signal.SIGKILL, ended.stderr)
        [left] = self.own_trials()
        self.assertEqual(os.listdir(self.state_root.folder("games")), [".rtmanager-trial"])
        return left

    def test_its_container_and_directory_are_removed_by_the_next_one(self) -> None:
        self.kill_one()
        self.assertEqual(self.checked()[0], 0)
        self.assert_nothing_left()

    def test_a_manager_takes_neither_for_a_game(self) -> None:
        left = self.kill_one()
        live = self.start_runtime(RECONCILE_INTERVAL="100ms", LOG_LEVEL="debug")
        self.post("start", {"image_ref": self.engine.ref})
        self.wait_until("passes", lambda: self.log.read_text().count("reconcile pass") > 3)
        self.assertEqual([each["game_id"] for each in self.rows("SELECT game_id FROM runtime_records")], [self.game_id])
        self.assertEqual(self.own_trials(), [left])
        self.assertNotIn(left, self.log.read_text())
        live.stop()
        self.assertEqual(self.checked()[0], 0)
        self.assertEqual(self.own_trials(), [])
        self.assertEqual(len(self.containers()), 1, "the game runs on")

    def test_checks_at_the_same_time_do_not_disturb_each_other(self) -> None:
        found = self.commands("check", *[self.environment()] * 4)
        self.assertEqual([code for code, _ in found], [0] * 4, found)
        self.assert_nothing_left()
