"""A test's own Docker daemon: what its containers survive, and that nothing of it stays on the machine."""

import os
import secrets
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from harness import daemon
from harness.errors import HarnessError, ImageUnavailable, WaitFailed
from harness.fixtures import dockerd
from harness.fixtures.container import HTTP_NOT_YET, Container, http_ok
from harness.images import base_image
from harness.runs import flag, identity
from harness.runs.identity import process_start_time
from harness.runs.sweep import sweep
from harness.waiting import wait_until

ROOT = Path(__file__).parents[2]

#: A run with its own daemon; with `busy` it is frozen and has a paused container. It prints the daemon's pid and waits.
SCRIPT = """
import sys
from harness import base_image, start_docker_daemon
own = start_docker_daemon()
if "busy" in sys.argv:
    ref = base_image()
    own.copy_image(ref)
    client = own.client()
    made = client.create_container(ref, entrypoint=["sleep", "600"])
    client.start(made)
    client.pause(made)
    own.freeze()
print(own.pid, flush=True)
sys.stdin.readline()
own.close()
"""


def setUpModule() -> None:
    flag.check()
    dockerd.check()


class Traces:
    """The traces of a daemon on the machine, by its pid: which of the current ones are left later."""

    def __init__(self, pid: int) -> None:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        options = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
        self.directory = Path(options["data-root"]).parent
        self.cgroup = options["cgroup-parent"].strip("/")
        self.pool = options["default-address-pool"].removeprefix("base=").partition(",")[0]
        [route] = [line for line in ip("-4", "route") if line.startswith(self.pool)]
        self.interface = route.split(" dev ")[1].split()[0]
        # Not the namespace: the kernel reuses its number.
        self.processes = inside(pid, self.cgroup)

    def left(self) -> list[str]:
        """The remaining processes, mounts, routes, interfaces, cgroups and its directory."""
        return [
            *(f"process {pid}" for pid, started in self.processes.items() if process_start_time(pid) == started),
            *(line for line in Path("/proc/mounts").read_text().splitlines() if str(self.directory) in line),
            *(line for line in ip("-4", "route") if self.interface in line or self.pool in line),
            *(line for line in ip("-o", "link") if f" {self.interface}@" in line),
            *map(str, Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}")),
            *map(str, Path("/sys/fs/cgroup").glob(self.cgroup)),
            *([str(self.directory)] if self.directory.exists() else []),
        ]


def inside(pid: int, cgroup: str) -> dict[int, int]:
    """The daemon's processes and those of its containers, by pid, with their start times."""
    namespace = os.readlink(f"/proc/{pid}/ns/pid")
    found = {}
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(each / "ns" / "pid") == namespace or cgroup in (each / "cgroup").read_text():
                found[int(each.name)] = process_start_time(int(each.name)) or 0
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or even root may not read it
    return found


def ip(*arguments: str) -> list[str]:
    """The output lines of iproute2."""
    command = ["ip", *arguments]
    environment = identity.child_environment({"PATH": dockerd.needs.search_path()})
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def to_daemons() -> list[str]:
    """This machine's routes to such daemons, without the networks of other tests."""
    return [line for line in ip("-4", "route") if line.startswith(("198.18.", "198.19."))]


def start_game(own: dockerd.OwnDaemon, network: str = "bridge") -> Container:
    """Start a server on `own` and wait for its first answer."""
    client = own.client()
    settings = client.create_host_config(network_mode=network, init=True)
    serve = ["python3", "-m", "http.server", "8080", "--directory", "/tmp"]
    made = client.create_container(base_image(), entrypoint=serve, host_config=settings)
    client.start(made)
    game = Container(made["Id"], client)
    wait_for_answer(game.ip())
    return game


def answers(address: str) -> bool:
    """Whether the server at an IP answers this process within a second."""
    return http_ok(address, 8080, "/")


def wait_for_answer(address: str) -> None:
    """Wait until the server answers."""
    wait_until("the server's answer", lambda: answers(address), retry_on=HTTP_NOT_YET)


class LifeTest(unittest.TestCase):
    own: ClassVar[dockerd.OwnDaemon]
    names: ClassVar[set[str]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.own = dockerd.start()
        cls.addClassCleanup(cls.own.close)
        repository = f"rtm-harness/second-name-{secrets.token_hex(4)}"
        daemon.client().tag(base_image(), repository, "1")
        cls.names = {base_image(), f"{repository}:1"}
        cls.addClassCleanup(daemon.client().remove_image, f"{repository}:1")
        cls.own.copy_image(*cls.names)
        cls.own.create_network("games")

    def setUp(self) -> None:
        self.addCleanup(self.be_as_before)

    def be_as_before(self) -> None:
        if not self.own.is_running:
            self.own.start_again()

    def game(self, live_restore: bool) -> tuple[Container, str]:
        """Start a game on the daemon, restarted with `live_restore` where it differs; returns it and its IP."""
        if self.own.live_restore != live_restore:
            self.own.restart(live_restore)
        game = start_game(self.own, "games")
        self.addCleanup(game.remove)
        return game, game.ip()

    def state(self, game: Container) -> tuple[bool, Any]:
        state = game.inspect()["State"]
        return state["Running"], state["StartedAt"]

    def test_it_has_the_image_under_both_names_and_the_main_daemon_has_none_of_its_containers(self) -> None:
        game, _ = self.game(live_restore=False)
        names = {name for image in self.own.client().images() for name in image["RepoTags"]}
        self.assertEqual(names, self.names)
        self.assertNotIn(game.container_id, {each["Id"] for each in daemon.client().containers(all=True)})

    def test_with_live_restore_a_container_lives_through_a_restart(self) -> None:
        game, address = self.game(live_restore=True)
        before = self.state(game)
        self.own.stop()
        wait_for_answer(address)
        self.own.start_again()
        self.assertEqual(self.state(game), before)
        wait_for_answer(address)

    def test_without_it_a_container_dies_with_a_restart(self) -> None:
        game, address = self.game(live_restore=False)
        self.own.restart()
        self.assertFalse(self.state(game)[0])
        with self.assertRaises(OSError):
            answers(address)

    def test_a_container_outlives_a_killed_daemon_which_finds_it_again_only_with_live_restore(self) -> None:
        for live_restore in (True, False):
            with self.subTest(live_restore=live_restore):
                game, address = self.game(live_restore)
                self.own.kill()
                self.assertFalse(self.own.is_running)
                wait_for_answer(address)
                self.own.start_again()
                self.assertEqual(self.state(game)[0], live_restore)

    def test_a_loss_of_power_ends_all_and_the_next_start_finds_its_containers_as_lost(self) -> None:
        game, _ = self.game(live_restore=False)
        networks = {each["Id"] for each in self.own.client().networks(names=["games"])}
        self.own.cut_power()
        self.assertFalse(self.own.is_running)
        self.own.start_again()
        self.assertEqual(game.inspect()["State"]["ExitCode"], 255)
        self.assertEqual({each["Id"] for each in self.own.client().networks(names=["games"])}, networks)
        game, address = self.game(live_restore=False)
        wait_for_answer(address)

    def test_its_mounts_are_its_own_and_its_data_directory_is_none_of_them(self) -> None:
        lines = Path(f"/proc/{self.own.pid}/mountinfo").read_text().splitlines()
        root = next(line for line in lines if line.split()[4] == "/")
        own = [line.split()[4] for line in lines if "/dockerd-" in line.split()[4]]
        self.assertIn(" shared:", root)
        self.assertEqual([point for point in own if point.endswith("/docker")], [])
        self.assertEqual([line for line in Path("/proc/mounts").read_text().splitlines() if "/dockerd-" in line], [])

    def test_a_frozen_daemon_is_silent_while_its_containers_run_and_answers_when_it_is_thawed(self) -> None:
        _, address = self.game(live_restore=False)
        self.own.freeze()
        self.addCleanup(self.own.thaw)
        with self.assertRaisesRegex(HarnessError, "timed out"):
            self.own.client(timeout_s=1)
        wait_for_answer(address)
        self.own.thaw()
        self.assertTrue(self.own.client().ping())

    def test_a_killed_daemon_may_have_been_frozen(self) -> None:
        self.own.freeze()
        self.own.kill()
        self.own.start_again()
        self.assertTrue(self.own.client().ping())

    def test_a_running_one_is_not_started_again(self) -> None:
        with self.assertRaisesRegex(HarnessError, "is running"):
            self.own.start_again()

    def test_an_image_that_is_not_there_is_not_copied(self) -> None:
        with self.assertRaisesRegex(ImageUnavailable, "nobody/has:this"):
            self.own.copy_image("nobody/has:this")


class EndTest(unittest.TestCase):
    def test_two_at_once_have_addresses_of_their_own_and_one_ends_without_the_other(self) -> None:
        with dockerd.start() as one, dockerd.start() as other:
            other.copy_image(base_image())
            game = start_game(other)
            ended, stays = Traces(one.pid), Traces(other.pid)
            for what in ("pool", "interface", "cgroup", "directory"):
                self.assertNotEqual(getattr(ended, what), getattr(stays, what))
            before = stays.left()
            one.close()
            self.assertEqual(ended.left(), [])
            wait_for_answer(game.ip())
            self.assertEqual(stays.left(), before)
        self.assertEqual(stays.left(), [])

    def test_nothing_is_left_of_a_frozen_one_with_a_paused_container_and_one_that_outlived_its_daemon(self) -> None:
        with dockerd.start(live_restore=True) as own:
            own.copy_image(base_image())
            start_game(own)
            paused = start_game(own)
            paused.pause()
            own.kill()
            own.start_again()
            self.assertEqual(len(own.client().containers()), 2)
            own.freeze()
            traces = Traces(own.pid)
            kinds = {each.split()[0] for each in traces.left()}
            self.assertTrue({"process", traces.pool, str(traces.directory)} <= kinds, kinds)
            self.assertTrue(any(each.endswith(traces.cgroup) for each in kinds), kinds)
            self.assertGreater(len(traces.processes), 8)  # of two containers, too
        self.assertEqual(traces.left(), [])
        own.close()

    def test_one_that_does_not_come_up_shows_its_log_and_leaves_nothing(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        program = folder / "dockerd"
        program.write_text("#!/bin/sh\necho failed to mount the overlay >&2; exit 4\n")
        program.chmod(0o755)
        states = {"PATH": f"{folder}:{os.environ['PATH']}", "RTM_IT_STATE_DIR": str(folder / "states")}
        routes = to_daemons()
        with (
            mock.patch.dict(os.environ, states),
            self.assertRaisesRegex(WaitFailed, "(?s)exit code 4.*failed to mount the overlay"),
        ):
            dockerd.start()
        self.assertEqual(list((folder / "states").iterdir()), [])
        self.assertEqual([each for each in to_daemons() if each not in routes], [])


class SweepTest(unittest.TestCase):
    def run_of_its_own(self, *arguments: str) -> "subprocess.Popen[str]":
        variables = {**identity.python_path(ROOT), "RTM_IT_STATE_DIR": self.states}
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *arguments],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def traces(self, process: "subprocess.Popen[str]") -> Traces:
        assert process.stdout is not None
        return Traces(int(process.stdout.readline()))

    def test_what_a_killed_run_left_goes_with_the_next_and_a_daemon_of_a_live_one_is_not_touched(self) -> None:
        self.states = self.enterContext(tempfile.TemporaryDirectory())
        alive, killed = self.run_of_its_own(), self.run_of_its_own("busy")
        beside, lost = self.traces(alive), self.traces(killed)
        before = beside.left()
        killed.kill()
        killed.wait()
        self.assertTrue(lost.left())

        with mock.patch.dict(os.environ, {"RTM_IT_STATE_DIR": self.states}):
            swept = sweep()

        self.assertIn(lost.cgroup, swept.cgroups)
        # The kernel removes an interface some moments after the last process of its namespace.
        wait_until("the end of its interface", lambda: not lost.left())
        self.assertEqual(beside.left(), before)
        alive.communicate("\n", timeout=30)
        self.assertEqual(alive.returncode, 0)
        self.assertEqual(beside.left(), [])
