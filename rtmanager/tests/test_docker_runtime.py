"""`DockerRuntime` passes the port's contract on a real daemon, and isolates a game as the contract requires."""

from __future__ import annotations

import os
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from rtmanager.adapters.docker import DockerRuntime
from rtmanager.adapters.docker.events import DockerEvents
from rtmanager.domain.errors import Unavailable
from rtmanager.fakes.docker_world import DockerWorld, docker_host, why_no_docker
from rtmanager.ports.runtime import LaunchFailed
from rtmanager.ports.watching import ContainerEvent, ContainerEventKind
from rtmanager.tests.runtime_contract import PATIENT_S, RuntimeContract


class DockerRuntimeTest(RuntimeContract, unittest.TestCase):
    world: DockerWorld

    @classmethod
    def setUpClass(cls) -> None:
        if not os.environ.get("RTM_INTEGRATION"):
            raise unittest.SkipTest("RTM_INTEGRATION is not set")
        why_not = why_no_docker(docker_host())
        if why_not and os.environ["RTM_INTEGRATION"] == "require":
            raise RuntimeError(why_not)
        if why_not:
            raise unittest.SkipTest(why_not)
        cls.world = DockerWorld(docker_host())
        cls.addClassCleanup(cls.world.close)
        cls.network = cls.world.network

    def setUp(self) -> None:
        self.runtime: DockerRuntime = DockerRuntime(docker_host())
        self.addCleanup(self.runtime.close)

    def image(self, behaviour: str) -> str:
        return self.world.image(behaviour)

    def spare_image(self) -> str:
        reference = self.world.spare_image()
        self.addCleanup(self.world.forget_image, reference)
        return reference

    def game_id(self) -> str:
        return self.world.game_id()

    def state_path(self) -> str:
        return self.world.state_path

    def double_network(self) -> None:
        second = self.world.client.create_network(self.network, check_duplicate=False)["Id"]
        self.addCleanup(self.world.client.remove_network, second)

    def pause(self, container_id: str) -> None:
        self.world.client.pause(container_id)

    def kill(self, container_id: str) -> None:
        self.world.client.kill(container_id)

    def test_a_container_with_the_id_of_another_as_its_name_is_not_that_one(self) -> None:
        game = self.runtime.launch(self.spec())
        other = self.world.client.create_container(self.image("waits"), name=game)["Id"]
        self.addCleanup(self.world.client.remove_container, other, force=True)
        self.world.client.start(other)
        self.assertEqual(self.runtime.inspect(game).container_id, game)
        self.world.client.remove_container(game, force=True)
        self.assert_absent(game)
        self.assertRegex(self.runtime.log_tail(game), "^.the log cannot be read: .*does not exist")
        self.runtime.remove(game)  # Docker refuses, and the container is gone
        self.assertTrue(self.runtime.inspect(other).alive)

    def test_a_game_is_walled_in(self) -> None:
        found = self.world.client.inspect_container(self.runtime.launch(self.spec()))
        host, config = found["HostConfig"], found["Config"]
        expected = {
            "Privileged": False,
            "CapAdd": [],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "Init": True,
            "IpcMode": "private",
            "PidMode": "",
            "UTSMode": "",
            "NetworkMode": self.network,
            "PublishAllPorts": False,
            "PortBindings": {},
            "Devices": [],
            "Binds": None,
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": False,
            "Memory": 32 << 20,
            "MemorySwap": 32 << 20,
            "NanoCpus": 500_000_000,
            "PidsLimit": 32,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
        }
        self.assertEqual({name: host[name] for name in expected}, expected)
        self.assertEqual(config["Healthcheck"], {"Test": ["NONE"]})
        self.assertEqual((config["Tty"], config["OpenStdin"]), (False, False))
        self.assertEqual(config["Hostname"], found["Name"].removeprefix("/"))
        (mount,) = found["Mounts"]
        self.assertEqual((mount["Type"], mount["Source"]), ("bind", self.world.state_path))
        self.assertEqual((mount["RW"], mount["Propagation"]), (True, "private"))

    def test_the_kernel_agrees(self) -> None:
        pid = self.world.client.inspect_container(self.runtime.launch(self.spec()))["State"]["Pid"]
        try:
            with open(f"/proc/{pid}/status") as lines:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
        except OSError as error:
            self.skipTest(f"the container's process cannot be seen from here: {error}")
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(status[kind], 16), 0, kind)
        self.assertEqual(status["NoNewPrivs"], "1")

    def test_a_game_has_an_address_while_it_lives_and_the_times_when_it_began_and_ended(self) -> None:
        container_id = self.runtime.launch(self.spec())
        view = self.runtime.inspect(container_id)
        self.assertEqual(list(view.addresses), [self.network])
        self.assertEqual((view.finished_at, view.restart_count, view.health), (None, 0, ""))
        self.runtime.stop(container_id, PATIENT_S)
        ended = self.runtime.inspect(container_id)
        assert ended.started_at is not None and ended.finished_at is not None
        self.assertEqual((ended.started_at, dict(ended.addresses)), (view.started_at, {}))
        self.assertLess(ended.started_at, ended.finished_at)
        self.assertLess(datetime.now(UTC) - ended.finished_at, timedelta(minutes=1))
        self.assertEqual(self.runtime.log_tail(container_id), "")

    def test_what_happens_to_a_game_is_received(self) -> None:
        feed = DockerEvents(docker_host(), window_s=PATIENT_S)
        self.addCleanup(feed.interrupt)
        spec = self.spec()
        container_id = self.runtime.launch(spec)
        feed.connect()
        self.runtime.stop(container_id, PATIENT_S)
        self.runtime.remove(container_id)
        found = []
        for event in feed.listen():
            if isinstance(event, ContainerEvent) and event.game_id == spec.game_id:
                found.append((event.what, event.container_id, event.signal))
                if event.what is ContainerEventKind.DESTROY:
                    break
        self.assertEqual(
            found,
            [
                (ContainerEventKind.KILL, container_id, "15"),
                (ContainerEventKind.DIE, container_id, ""),
                (ContainerEventKind.DESTROY, container_id, ""),
            ],
        )

    def test_a_missing_state_directory_is_an_error_and_is_not_created(self) -> None:
        missing = os.path.join(self.world.state_path, "missing")
        with self.assertRaisesRegex(LaunchFailed, f"{missing}.*must see the state directory"):
            self.runtime.launch(replace(self.spec(), state_path=missing))
        self.assertFalse(os.path.exists(missing))

    def test_the_hosts_network_is_refused(self) -> None:
        for mode in ("host", "none", "container:abc"):
            with self.assertRaisesRegex(LaunchFailed, mode):
                self.runtime.launch(replace(self.spec(), network=mode))

    def test_close_ends_a_stop_in_flight(self) -> None:
        container_id = self.runtime.launch(self.spec("ignores-signals"))
        with ThreadPoolExecutor(1) as thread:
            stop = thread.submit(self.runtime.stop, container_id, 30)
            with self.assertRaises(TimeoutError):
                stop.result(0.5)  # still running
            began = time.monotonic()
            self.runtime.close()
            self.assertIsInstance(stop.exception(), Unavailable)
        self.assertLess(time.monotonic() - began, 10)
