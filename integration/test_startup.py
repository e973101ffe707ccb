"""Coming up and going down: what is wrong is said in one line, and a stop leaves nothing behind but games."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import daemon, web
from harness.case import RuntimeTestCase, start_services
from harness.waiting import wait_until
from integration import images

#: Cycles of start and stop; RTM_IT_CYCLES=200 for the long form.
CYCLES = int(os.environ.get("RTM_IT_CYCLES", "20"))


def setUpModule() -> None:
    start_services()


class Startup(RuntimeTestCase):
    def serve(self, environment: dict[str, str], command: str = "serve") -> tuple[int, str]:
        """Run a command that has to end by itself; exit code and output."""
        ended = subprocess.run(
            [sys.executable, "-m", "rtmanager", command],
            env={"PATH": os.environ["PATH"], **environment},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    def assert_one_line(self, environment: dict[str, str], *words: str) -> None:
        code, output = self.serve(environment)
        lines = output.splitlines()
        self.assertEqual((code, len(lines)), (1, 1), output)
        line = json.loads(lines[0])
        self.assertEqual((line["level"], line["message"]), ("error", "cannot start"))
        for word in words:
            self.assertIn(word, line["error"])

    def test_an_empty_environment_names_everything_that_is_missing_and_exits_2(self) -> None:
        code, output = self.serve({})

        self.assertEqual(code, 2)
        for name in ("POSTGRES_PRIMARY_DSN", "REDIS_MASTER_ADDR", "GAME_STATE_ROOT", "LOBBY_INTERNAL_BASE_URL"):
            self.assertIn(f"RTMANAGER_{name} is not set", output)

    def test_a_wrong_password_is_one_line_without_the_password(self) -> None:
        dsn = f"postgresql://nobody:hush-hush@127.0.0.1:{self.services.postgres.port}/galaxy"
        code, output = self.serve(self.environment(POSTGRES_PRIMARY_DSN=dsn))

        self.assertEqual(code, 1)
        self.assertNotIn("hush-hush", output)
        self.assert_one_line(self.environment(POSTGRES_PRIMARY_DSN=dsn), "postgres", "nobody")

    def test_a_schema_that_is_missing_is_one_line_with_the_remedy(self) -> None:
        dsn = self.services.database.dsn.replace("search_path%3Drtmanager", "search_path%3Dno")
        self.assert_one_line(self.environment(POSTGRES_PRIMARY_DSN=dsn), "CREATE SCHEMA no")

    def test_dependencies_that_do_not_answer_are_one_line_each(self) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # and does not listen
            address = f"127.0.0.1:{nobody.getsockname()[1]}"
            dsn = f"postgresql://rtmanagerservice:hush-hush@{address}/galaxy"
            self.assert_one_line(self.environment(POSTGRES_PRIMARY_DSN=dsn), "postgres", address)
            self.assert_one_line(self.environment(REDIS_MASTER_ADDR=address), "redis", address)
            self.assert_one_line(self.environment(DOCKER_HOST=f"tcp://{address}"), "docker", address)
        self.assert_one_line(self.environment(DOCKER_HOST="unix:///nowhere/docker.sock"), "docker", "/nowhere")
        self.assert_one_line(self.environment(DOCKER_NETWORK="no-such-net"), "docker network create no-such-net")
        self.assert_one_line(self.environment(GAME_STATE_ROOT="/nowhere/games"), "state root", "/nowhere/games")

    def test_an_address_in_use_is_one_line(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            address = f"127.0.0.1:{other.getsockname()[1]}"
            self.assert_one_line(self.environment(INTERNAL_HTTP_ADDR=address), address, "in use")

    def test_check_asks_every_dependency_and_exits_1_when_one_fails(self) -> None:
        code, output = self.serve(self.environment(), "check")
        self.assertEqual((code, output.count("ok  "), output.count("FAILED")), (0, 5, 0), output)

        code, output = self.serve(self.environment(DOCKER_NETWORK="no-such-net"), "check")
        self.assertEqual((code, output.count("ok  "), output.count("FAILED")), (1, 4, 1), output)
        self.assertIn("remedy: docker network create no-such-net", output)

    def test_migrate_applies_what_is_missing_once(self) -> None:
        database = self.services.postgres.create_database()
        self.addCleanup(database.drop)
        environment = self.environment(POSTGRES_PRIMARY_DSN=database.dsn)

        self.assertEqual(self.serve(environment, "migrate"), (0, "applied: initial\n"))
        self.assertEqual(self.serve(environment, "migrate")[0], 0)

    def test_two_instances_start_at_once_on_an_empty_database_and_share_the_work(self) -> None:
        database = self.services.postgres.create_database()
        self.addCleanup(database.drop)
        with ThreadPoolExecutor(2) as threads:
            starts = [threads.submit(self.start_runtime, POSTGRES_PRIMARY_DSN=database.dsn) for _ in range(2)]
        for start in starts:
            self.assertEqual(web.call("GET", f"{start.result().base_url}/readyz"), (200, {"status": "ready"}))

        games = [f"{self.game_id}-{number}" for number in range(4)]
        for game_id in games:
            self.add_start_job(game_id=game_id)

        self.assertEqual(sorted(each["game_id"] for each in self.results(4)), games)
        self.assertEqual([len(self.containers(game_id)) for game_id in games], [1] * 4)

    def test_sigterm_leaves_the_games_running_and_exits_0(self) -> None:
        process = self.start_process()
        self.post("start", {"image_ref": self.engine.ref})

        self.assertEqual(process.terminate(), 0)

        [container] = self.containers()
        self.assertTrue(container["State"]["Running"])
        self.assertEqual(self.record()["status"], "running")

    def test_an_operation_that_outlives_the_shutdown_is_handed_back_and_done_by_the_next(self) -> None:
        live = self.start_runtime(SHUTDOWN_TIMEOUT="300ms", CONTAINER_STOP_TIMEOUT_SECONDS="6")
        self.post("start", {"image_ref": images.tiny("ignores-signals")})
        self.add_stop_job()
        wait_until("the stop to begin", lambda: self.rows("SELECT FROM operations WHERE state = 'running'"))

        began = time.monotonic()
        live.stop()
        took = time.monotonic() - began

        self.assertLess(took, 3, "a stop is bounded by its timeout, not by Docker")
        self.assertEqual(self.entries("runtime:job_results"), [])
        self.start_runtime()
        self.assertEqual(self.results()[0]["outcome"], "success")
        self.assertEqual(self.record()["status"], "stopped")


class Cycles(RuntimeTestCase):
    def test_starting_and_stopping_again_and_again_leaves_nothing_behind(self) -> None:
        daemon.client().version()
        for _ in range(3):  # what is made once per process is made now
            self.start_runtime().stop()
        before = _held()
        for _ in range(CYCLES):
            self.start_runtime().stop()
        after = _held()

        self.assertEqual(after["threads"], before["threads"])
        self.assertEqual(after["descriptors"], before["descriptors"])
        self.assertLess(after["kilobytes"] - before["kilobytes"], 4096 + 10 * CYCLES)


def _held() -> dict[str, Any]:
    """What this process holds of the system."""
    status = Path("/proc/self/status").read_text()
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "kilobytes": int(status.partition("VmRSS:")[2].split()[0]),
    }
