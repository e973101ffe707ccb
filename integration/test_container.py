"""The container of a game: labels, limits, walls and mount, as Docker and as the engine see them."""

import json
from typing import Any

from harness.case import RuntimeTestCase, start_services
from integration import images

LABELS = ("owner", "kind", "game_id", "engine_image_ref", "started_at_ms")


def setUpModule() -> None:
    start_services()


class GameContainer(RuntimeTestCase):
    def started(self, image_ref: str = "") -> dict[str, Any]:
        self.start_runtime()
        self.post("start", {"image_ref": image_ref or self.engine.ref})
        [container] = self.containers()
        return container

    def inside(self, container: dict[str, Any], *program: str) -> str:
        made = self.docker.exec_create(container["Id"], ["python3", "-c", "\n".join(program)])
        return self.docker.exec_start(made["Id"]).decode().strip()

    def test_it_is_named_labelled_and_connected_as_the_contract_says(self) -> None:
        container = self.started()

        name = f"galaxy-game-{self.game_id}"
        self.assertEqual((container["Name"], container["Config"]["Hostname"]), (f"/{name}", name))
        labels = {key: container["Config"]["Labels"][f"com.galaxy.{key}"] for key in LABELS}
        self.assertTrue(labels.pop("started_at_ms").isdigit())
        expected = {"owner": "rtmanager", "kind": "game-engine", "game_id": self.game_id}
        self.assertEqual(labels, expected | {"engine_image_ref": self.engine.ref})
        self.assertEqual(list(container["NetworkSettings"]["Networks"]), [self.network.name])
        self.assertFalse(any(container["NetworkSettings"]["Ports"].values()), "no port is published")
        environment = dict(pair.split("=", 1) for pair in container["Config"]["Env"])
        mount = "/var/lib/galaxy-game"
        self.assertEqual((environment["GAME_STATE_PATH"], environment["STORAGE_PATH"]), (mount, mount))

    def test_it_is_limited_by_the_labels_of_its_image(self) -> None:
        limits = self.started()["HostConfig"]

        self.assertEqual(limits["NanoCpus"], 500_000_000)
        self.assertEqual((limits["Memory"], limits["MemorySwap"]), (128 << 20, 128 << 20))
        self.assertEqual(limits["PidsLimit"], 64)

    def test_a_strangers_image_runs_under_defaults_where_its_labels_cannot_be_read(self) -> None:
        container = self.started(images.made("stranger"))

        limits = container["HostConfig"]
        self.assertEqual((limits["NanoCpus"], limits["Memory"]), (1_000_000_000, 64 << 20))
        self.assertEqual(limits["PidsLimit"], 64, "inherited from the image below it")
        self.assertIn("com.galaxy.cpu_quota", self.log.read_text())
        self.assertTrue(container["State"]["Running"])

    def test_it_is_walled_in(self) -> None:
        container = self.started()

        host = container["HostConfig"]
        self.assertEqual(host["CapDrop"], ["ALL"])
        self.assertIn("no-new-privileges", " ".join(host["SecurityOpt"]))
        self.assertTrue(host["ReadonlyRootfs"])
        self.assertTrue(host["Init"])
        self.assertFalse(host["Privileged"])
        self.assertEqual(host["RestartPolicy"]["Name"], "no")
        self.assertEqual(host["LogConfig"]["Config"], {"max-size": "10m", "max-file": "3"})
        self.assertFalse(container["Config"]["Tty"] or container["Config"]["OpenStdin"])
        seen = self.inside(
            container,
            "import json, os, resource",
            "status = dict(line.split(':', 1) for line in open('/proc/self/status'))",
            "def writable(path):",
            "    try: open(path + '/x', 'w').close(); return True",
            "    except OSError: return False",
            "print(json.dumps({'uid': os.getuid(), 'caps': status['CapEff'].strip(),",
            "    'no_new_privs': status['NoNewPrivs'].strip(), 'core': resource.getrlimit(resource.RLIMIT_CORE),",
            "    'writable': [path for path in ('/', '/etc', '/tmp', '/var/lib/galaxy-game') if writable(path)]}))",
        )
        expected = {
            "uid": 10001,
            "caps": "0000000000000000",
            "no_new_privs": "1",
            "core": [0, 0],
            "writable": ["/tmp", "/var/lib/galaxy-game"],
        }
        self.assertEqual(json.loads(seen), expected)

    def test_its_state_is_the_games_directory_and_nothing_else_of_the_host(self) -> None:
        container = self.started()

        [mount] = container["Mounts"]
        directory = self.state_root.games / self.game_id
        self.assertEqual((mount["Source"], mount["Destination"]), (str(directory), "/var/lib/galaxy-game"))
        self.assertEqual((mount["Type"], mount["RW"], mount["Propagation"]), ("bind", True, "private"))
        status = directory.stat()
        self.assertEqual((status.st_mode & 0o7777, status.st_uid, status.st_gid), (0o750, 10001, 10001))
        self.inside(container, "open('/var/lib/galaxy-game/from-inside', 'w').write('hello')")
        self.assertEqual((directory / "from-inside").read_text(), "hello")

    def test_one_whose_program_does_not_exist_is_taken_away_again(self) -> None:
        self.start_runtime(FIRST_START_WATCH="2s")

        answer = self.call("POST", "/start", {"image_ref": images.made("hollow")})

        message = self.refused(answer, 500, "container_start_failed")
        self.assertIn("exit code 127", message)
        self.assertIn("/no/such/program", message)
        self.assertEqual(self.containers(), [])

    def test_one_that_cannot_be_started_is_taken_away_again(self) -> None:
        self.start_runtime()

        answer = self.call("POST", "/start", {"image_ref": images.made("broken")})

        self.assertIn("no-such-user", self.refused(answer, 500, "container_start_failed"))
        self.assertEqual(self.containers(), [])
        self.assertEqual(self.record(), {})
