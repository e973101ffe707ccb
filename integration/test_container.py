"""The container of a game: labels, limits, isolation settings and mount, as seen by Docker and the engine."""

import json
import os
import unittest
from typing import Any

from harness import start_services
from harness.images.recipe import inspect
from harness.rtm import RuntimeTestCase
from integration.support import images

LABELS = ("owner", "kind", "game_id", "engine_image_ref", "started_at_ms")

#: Prints the isolation that an engine sees, as JSON.
LIST_ENVIRONMENT = """
import json, os, resource, socket
from pathlib import Path
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
def writable(path):
    try: open(path + '/x', 'w').close(); return True
    except OSError: return False
def first(*paths):
    return next((Path(path).read_text().strip() for path in paths if Path(path).exists()), None)
print(json.dumps({
    'uid': os.getuid(), 'name': socket.gethostname(), 'capabilities': status['CapBnd'].strip(),
    'no_new_privileges': status['NoNewPrivs'].strip(), 'core': resource.getrlimit(resource.RLIMIT_CORE),
    'files': resource.getrlimit(resource.RLIMIT_NOFILE), 'first_process': Path('/proc/1/comm').read_text().strip(),
    'memory': first('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'),
    'processes': first('/sys/fs/cgroup/pids.max', '/sys/fs/cgroup/pids/pids.max'),
    'writable': [path for path in ('/', '/etc', '/opt', '/run', '/tmp', '/var/lib/galaxy-game') if writable(path)],
    'socket': os.path.exists('/var/run/docker.sock')}))
"""


only_root = unittest.skipUnless(os.geteuid() == 0, "only root may look into a directory of the engine's user")


def setUpModule() -> None:
    start_services()


class ContainerTestCase(RuntimeTestCase):
    def started(self, image_ref: str = "", **changes: str) -> dict[str, Any]:
        """Start the game on a manager with this configuration; return its container as Docker inspects it."""
        self.start_runtime(**changes)
        self.post("start", {"image_ref": image_ref or self.engine.ref})
        [container] = self.containers()
        return container

    def inside(self, container: dict[str, Any], program: str) -> str:
        made = self.docker.exec_create(container["Id"], ["python3", "-c", program])
        written: bytes = self.docker.exec_start(made["Id"])
        return written.decode().strip()


class Identity(ContainerTestCase):
    def test_it_is_named_labelled_and_connected_as_the_contract_defines(self) -> None:
        container = self.started()

        name = f"galaxy-game-{self.game_id}"
        self.assertEqual((container["Name"], container["Config"]["Hostname"]), (f"/{name}", name))
        labels = {key: container["Config"]["Labels"][f"com.galaxy.{key}"] for key in LABELS}
        self.assertTrue(labels.pop("started_at_ms").isdigit())
        expected = {"owner": "rtmanager", "kind": "game-engine", "game_id": self.game_id}
        self.assertEqual(labels, expected | {"engine_image_ref": self.engine.ref})
        self.assertEqual(list(container["NetworkSettings"]["Networks"]), [self.network.name])
        self.assertFalse(any(container["NetworkSettings"]["Ports"].values()), "no port is published")

    def test_the_longest_id_that_a_game_may_have_fits(self) -> None:
        self.game_id = f"{self.game_id}_".ljust(51, "x")

        container = self.started()

        self.assertEqual(container["Config"]["Hostname"], f"galaxy-game-{self.game_id}")
        self.assertEqual(
            self.inside(container, "import socket; print(socket.gethostname())"), f"galaxy-game-{self.game_id}"
        )

    def test_its_environment_is_the_images_own_and_where_its_state_is(self) -> None:
        container = self.started()

        own = (inspect(self.docker, self.engine.ref) or {})["Config"]["Env"]
        mount = "/var/lib/galaxy-game"
        self.assertCountEqual(container["Config"]["Env"], [*own, f"GAME_STATE_PATH={mount}", f"STORAGE_PATH={mount}"])

    def test_its_endpoint_answers_on_the_network_of_the_games(self) -> None:
        self.start_runtime()
        endpoint = self.post("start", {"image_ref": self.engine.ref})["engine_endpoint"]
        probe = f"import urllib.request; print(urllib.request.urlopen('{endpoint}/healthz', timeout=5).status)"

        neighbour = self.start_container(
            self.engine.ref, entrypoint=["python3", "-c", "import time; time.sleep(600)"], network=self.network.name
        )

        def answer() -> str:
            code, written = neighbour.exec(["python3", "-c", probe])
            return written if code == 0 else ""

        self.assertEqual(self.wait_until("an answer", answer), "200\n")


class Limits(ContainerTestCase):
    def assert_limits(self, container: dict[str, Any], cpus: float, memory: int, pids: int) -> None:
        host = container["HostConfig"]
        found = (host["NanoCpus"], host["Memory"], host["MemorySwap"], host["PidsLimit"])
        self.assertEqual(found, (round(cpus * 10**9), memory, memory, pids))

    def test_they_are_those_of_the_images_labels(self) -> None:
        container = self.started(DEFAULT_CPU_QUOTA="0.25", DEFAULT_MEMORY="64m", DEFAULT_PIDS_LIMIT="9")
        self.assert_limits(container, 0.5, 128 << 20, 64)

    def test_an_image_without_labels_has_the_defaults(self) -> None:
        self.assert_limits(self.started(images.tiny("waits")), 1.0, 512 << 20, 512)

    def test_defaults_are_what_the_configuration_defines(self) -> None:
        limits = {"DEFAULT_CPU_QUOTA": "0.25", "DEFAULT_MEMORY": "1.5g", "DEFAULT_PIDS_LIMIT": "17"}
        self.assert_limits(self.started(images.tiny("waits"), **limits), 0.25, 3 << 29, 17)

    def test_a_label_that_cannot_be_read_is_reported_and_has_the_default(self) -> None:
        container = self.started(images.made("stranger"))

        # The number of processes is inherited from the base image.
        self.assert_limits(container, 1.0, 64 << 20, 64)
        self.assertIn("com.galaxy.cpu_quota", self.log.read_text())
        self.assertTrue(container["State"]["Running"])


class Walls(ContainerTestCase):
    def test_it_is_walled_in_as_docker_sees_it(self) -> None:
        container = self.started()

        host, config = container["HostConfig"], container["Config"]
        self.assertEqual((host["CapDrop"], host["CapAdd"] or []), (["ALL"], []))
        self.assertIn("no-new-privileges", " ".join(host["SecurityOpt"]))
        self.assertTrue(host["ReadonlyRootfs"] and host["Init"])
        self.assertFalse(host["Privileged"] or host["Devices"] or host["PublishAllPorts"] or host["PortBindings"])
        self.assertEqual(
            (host["PidMode"], host["UTSMode"], host["UsernsMode"], host["IpcMode"]), ("", "", "", "private")
        )
        self.assertEqual(host["NetworkMode"], self.network.name)
        self.assertEqual(host["RestartPolicy"]["Name"], "no")
        self.assertEqual(list(host["Tmpfs"]), ["/tmp"])
        self.assertEqual(config["Healthcheck"], {"Test": ["NONE"]})
        self.assertFalse(config["Tty"] or config["OpenStdin"])
        self.assertEqual(host["LogConfig"], {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}})

    def test_it_is_walled_in_as_seen_from_inside(self) -> None:
        container = self.started()
        self.engine_call("GET", "/healthz")  # until then the first process may still be Docker's own
        seen = json.loads(self.inside(container, LIST_ENVIRONMENT))

        self.assertLess(seen["files"][1], 1 << 20)
        del seen["files"]
        expected = {
            "uid": 10001,
            "name": f"galaxy-game-{self.game_id}",
            "capabilities": "0000000000000000",
            "no_new_privileges": "1",
            "core": [0, 0],
            "first_process": "docker-init",
            "memory": str(128 << 20),
            "processes": "64",
            "writable": ["/tmp", "/var/lib/galaxy-game"],
            "socket": False,
        }
        self.assertEqual(seen, expected)


class State(ContainerTestCase):
    @only_root
    def test_it_is_the_games_directory_and_nothing_else_of_the_host(self) -> None:
        container = self.started()

        [mount] = container["Mounts"]
        directory = self.state_root.folder("games") / self.game_id
        self.assertEqual((mount["Source"], mount["Destination"]), (str(directory), "/var/lib/galaxy-game"))
        self.assertEqual((mount["Type"], mount["RW"], mount["Propagation"]), ("bind", True, "private"))
        status = directory.stat()
        self.assertEqual((status.st_mode & 0o7777, status.st_uid, status.st_gid), (0o750, 10001, 10001))
        self.inside(container, "open('/var/lib/galaxy-game/from-inside', 'w').write('hello')")
        self.assertEqual((directory / "from-inside").read_text(), "hello")

    @only_root
    def test_where_it_is_and_whose_is_what_the_configuration_defines(self) -> None:
        container = self.started(
            ENGINE_STATE_MOUNT_PATH="/srv/state/game",
            ENGINE_STATE_ENV_NAME="TURN_DIRECTORY",
            GAME_STATE_DIR_MODE="0770",
            GAME_STATE_OWNER_UID="10001",
            GAME_STATE_OWNER_GID="4711",
        )

        [mount] = container["Mounts"]
        self.assertEqual(mount["Destination"], "/srv/state/game")
        environment = dict(pair.split("=", 1) for pair in container["Config"]["Env"])
        variables = {name: environment.get(name) for name in ("TURN_DIRECTORY", "STORAGE_PATH", "GAME_STATE_PATH")}
        self.assertEqual(
            variables, {"TURN_DIRECTORY": "/srv/state/game", "STORAGE_PATH": "/srv/state/game", "GAME_STATE_PATH": None}
        )
        status = (self.state_root.folder("games") / self.game_id).stat()
        self.assertEqual((status.st_mode & 0o7777, status.st_uid, status.st_gid), (0o770, 10001, 4711))

    @only_root
    def test_what_a_directory_holds_stays_and_its_owner_and_mode_are_set_right(self) -> None:
        directory = self.state_root.folder("games") / self.game_id
        directory.mkdir(mode=0o700)
        (directory / "game.json").write_text('{"turn": 7, "races": []}')
        (directory / "game.json").chmod(0o644)

        self.started()

        status = directory.stat()
        self.assertEqual((status.st_mode & 0o7777, status.st_uid, status.st_gid), (0o750, 10001, 10001))
        self.assertEqual(self.engine_call("GET", "/api/v1/admin/status")[1]["turn"], 7)


class Settings(ContainerTestCase):
    def test_logs_are_kept_as_the_configuration_defines(self) -> None:
        container = self.started(DOCKER_LOG_DRIVER="local", DOCKER_LOG_OPTS="max-size=1m, max-file=2")

        expected = {"Type": "local", "Config": {"max-size": "1m", "max-file": "2"}}
        self.assertEqual(container["HostConfig"]["LogConfig"], expected)

    def test_an_engine_that_does_not_end_is_killed_after_the_configured_time(self) -> None:
        # Before its program has started and ignores the signal, the signal ends the container.
        there = {"FIRST_START_WATCH": "500ms"}
        container = self.started(images.tiny("ignores-signals"), CONTAINER_STOP_TIMEOUT_SECONDS="1", **there)

        self.post("stop", {"reason": "finished"})

        [stop] = [row for row in self.log_rows() if row["op_kind"] == "stop"]
        took = (stop["finished_at"] - stop["started_at"]).total_seconds()
        self.assertGreaterEqual(took, 1.0)
        self.assertEqual(self.docker.inspect_container(container["Id"])["State"]["ExitCode"], 137)
