"""Startup: an error is reported in one line, and nothing listens before all checks pass."""

import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rtmanager
from harness import start_services, web
from harness.rtm import RuntimeTestCase, manager
from harness.runs import identity
from integration.support.commands import CommandTestCase
from rtmanager.domain.errors import RuntimeManagerError

REQUIRED = ("POSTGRES_PRIMARY_DSN", "REDIS_MASTER_ADDR", "GAME_STATE_ROOT", "LOBBY_INTERNAL_BASE_URL")

#: A password that must not appear anywhere.
SECRET = "hush-hush"


def setUpModule() -> None:
    start_services()


@contextmanager
def taken_address(*, listening: bool) -> Iterator[str]:
    """An address that is taken, with or without a listener."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        if listening:
            holder.listen()
        yield f"127.0.0.1:{holder.getsockname()[1]}"


class Refusals(RuntimeTestCase):
    """A failed start names the dependency and the error in one line, and leaves nothing running."""

    def assert_refused(self, *texts: str, **changes: str) -> None:
        before = threading.enumerate()
        with self.subTest(texts=texts):
            with self.assertRaises(RuntimeManagerError) as caught:
                self.start_runtime(**changes)
            message = str(caught.exception)
            self.assertEqual(message.splitlines(), [message])
            for text in texts:
                self.assertIn(text, message)
            self.assertNotIn(SECRET, message)
            self.assertEqual(set(threading.enumerate()) - set(before), set())

    def test_a_dependency_that_does_not_answer_is_named_with_its_address(self) -> None:
        with taken_address(listening=False) as nobody:
            dsn = f"postgresql://rtmanagerservice:{SECRET}@{nobody}/galaxy"
            self.assert_refused("postgres", nobody, POSTGRES_PRIMARY_DSN=dsn)
            self.assert_refused("redis", nobody, REDIS_MASTER_ADDR=nobody, REDIS_PASSWORD=SECRET)
            self.assert_refused("docker", nobody, DOCKER_HOST=f"tcp://{nobody}")
        self.assert_refused("docker", "/nowhere", DOCKER_HOST="unix:///nowhere/docker.sock")

    def test_a_dependency_that_refuses_is_named_and_no_password_is(self) -> None:
        postgres = self.services.postgres
        dsn = f"postgresql://nobody:{SECRET}@{postgres.host}:{postgres.port}/galaxy"
        self.assert_refused("postgres", "nobody", POSTGRES_PRIMARY_DSN=dsn)
        self.assert_refused("redis", REDIS_PASSWORD=SECRET)

    def test_a_network_that_is_missing_is_reported_with_its_remedy_and_not_created(self) -> None:
        missing = f"{self.network.name}-not"
        self.assert_refused(f"docker network create {missing}", DOCKER_NETWORK=missing)
        self.assertEqual(self.docker.networks(names=[missing]), [])

    def test_a_state_root_that_cannot_be_used_is_reported(self) -> None:
        file = self.state_root.directory / "file"
        file.write_text("no directory")
        self.assert_refused("state root", "/nowhere/games", GAME_STATE_ROOT="/nowhere/games")
        self.assert_refused("state root", str(file), GAME_STATE_ROOT=str(file))
        self.assertEqual(file.read_text(), "no directory")

    def test_an_address_in_use_is_reported(self) -> None:
        with taken_address(listening=True) as taken:
            self.assert_refused(taken, "in use", INTERNAL_HTTP_ADDR=taken)


class Commands(CommandTestCase):
    def test_every_fault_of_the_environment_is_reported_at_once_and_the_process_exits_2(self) -> None:
        bad = {
            "RTMANAGER_POSTGRES_PRIMARY_DSN": f"postgresql://u:{SECRET}@h/db?nonsense=1",
            "RTMANAGER_REDIS_MASTER_ADDR": "redis",
            "RTMANAGER_PROBE_INTERVAL": "soon",
            "RTMANAGER_SILENCE_TIMEOUT": "1s",
            "RTMANAGER_DEFAULT_MEMORY": "much",
        }
        nothing, wrong = self.commands("serve", {}, bad)

        self.assertEqual((nothing[0], wrong[0]), (2, 2))
        for name in REQUIRED:
            self.assertIn(f"RTMANAGER_{name} is not set", nothing[1])
        faults = [line for line in wrong[1].splitlines() if line.startswith("  ")]
        self.assertEqual(len(faults), len(bad) + 2, wrong[1])
        for name, value in list(bad.items())[1:]:
            self.assertIn(f"{name}: {value!r} is not ", wrong[1])
        self.assertIn("RTMANAGER_POSTGRES_PRIMARY_DSN: its value", wrong[1])
        self.assertNotIn(SECRET, wrong[1])

    def test_a_start_that_fails_is_one_line_of_json_and_the_process_exits_1(self) -> None:
        code, output = self.command("serve", self.environment(DOCKER_NETWORK=f"{self.network.name}-not"))

        [line] = output.splitlines()
        logged = json.loads(line)
        self.assertEqual((code, logged["level"], logged["message"]), (1, "error", "cannot start"))
        self.assertIn("docker network create", logged["error"])

    def test_check_probes_every_dependency_and_exits_1_when_one_fails(self) -> None:
        missing = f"{self.network.name}-not"
        good, bad = self.commands("check", self.environment(), self.environment(DOCKER_NETWORK=missing))

        self.assertEqual((good[0], good[1].count("ok  "), good[1].count("FAILED")), (0, 11, 0), good[1])
        self.assertEqual((bad[0], bad[1].count("ok  "), bad[1].count("FAILED")), (1, 9, 1), bad[1])
        self.assertIn("skipped container   not tried: network comes first", bad[1])
        self.assertIn(f"remedy: docker network create {missing}", bad[1])


class Order(RuntimeTestCase):
    def test_nothing_listens_before_the_migrations_are_done(self) -> None:
        address = manager.free_address()
        with self.services.database.connect() as other:
            other.execute("BEGIN")
            other.execute("SELECT pg_advisory_xact_lock(hashtext(current_schema() || '.migrations'))")
            process = manager.start(self.environment(INTERNAL_HTTP_ADDR=address), self.log)
            self.addCleanup(process.kill)
            self.wait_until("the migration to wait its turn", self.waiting_for_its_turn)

            with self.assertRaises(ConnectionRefusedError):
                web.call("GET", f"http://{address}/healthz")
            self.assertIsNone(process.exit_code)
            other.execute("COMMIT")

        process.wait_until_ready()

    def waiting_for_its_turn(self) -> list[object]:
        query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        return list(self.rows(query))


class Replaced(RuntimeTestCase):
    """The package of a running manager is upgraded in place or removed."""

    def test_a_manager_whose_files_are_gone_serves_and_is_ready(self) -> None:
        folder = self.state_root.folder("package")
        installed = Path(rtmanager.__file__).parent
        shutil.copytree(installed, folder / "rtmanager", ignore=shutil.ignore_patterns("tests", "__pycache__"))
        address = manager.free_address()
        environment = self.environment(INTERNAL_HTTP_ADDR=address) | identity.python_path(folder)
        # -P: otherwise the package in the working directory comes first.
        command = [sys.executable, "-P", "-m", "rtmanager", "serve"]
        process = manager.start(environment, self.log, command)
        self.addCleanup(process.kill)
        process.wait_until_ready()
        self.base_url = process.base_url
        shutil.rmtree(folder)

        self.add_start_job()
        self.assertEqual(self.results()[0]["outcome"], "success")
        self.succeed(self.call("POST", "/restart", {}))
        self.refused(self.call("GET", "", game_id="nobody"), 404, "not_found")
        self.assertEqual(web.call("GET", f"{self.base_url}/readyz"), (200, {"status": "ready"}))
        self.assertEqual(process.terminate(), 0)
