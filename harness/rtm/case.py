"""`RuntimeTestCase`: a test with a running Runtime Manager and everything it needs.

    def setUpModule() -> None:
        start_services()

    class Restart(RuntimeTestCase):
        def test_a_restart_keeps_the_game(self) -> None:
            self.start_runtime()
            self.post("start", {"image_ref": self.engine.ref})

Each test has its own network, state root, Lobby and game id, and finds PostgreSQL and Redis empty. The base classes for
other projects are in `harness.cases.docker`.
"""

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from harness import daemon, web
from harness.cases.docker import ServicesTestCase, short_name
from harness.errors import WaitFailed
from harness.fixtures import faults, postgres
from harness.fixtures.container import Container
from harness.fixtures.faults import Proxy
from harness.fixtures.log_tail import log_tail
from harness.rtm import manager, stack
from harness.rtm.database import MIGRATIONS, RUNTIME_MANAGER
from harness.rtm.images import EngineImage, allowed_images, engine_image
from harness.rtm.in_process import LiveRuntime
from harness.rtm.lobby import Lobby
from harness.waiting import wait_until

T = TypeVar("T")

#: Seconds from a job to its result; Docker takes a quarter of a second of it.
RESULT_TIMEOUT_S = 60.0


class RuntimeTestCase(ServicesTestCase):
    """A test with a game network, a directory for games, a Lobby and, once started, a Runtime Manager."""

    layout = RUNTIME_MANAGER
    # Repeating the migrations for each test would take longer than most tests.
    keep_tables = (MIGRATIONS,)
    empty_tables = postgres.EVERY_TABLE

    engine: ClassVar[EngineImage]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.engine = engine_image()

    def setUp(self) -> None:
        super().setUp()
        self.game_id = unique_game_id(self.id())
        self.network = self.create_network()
        self.lobby = Lobby()
        self.addCleanup(self.lobby.close)
        self.base_url = ""
        self._last_job_ms = 0

    @property
    def log(self) -> Path:
        """The manager's log."""
        return self.state_root.logs / "manager.log"

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of a manager for this test; the names of `changes` have no `RTMANAGER_`."""
        settings = {
            "INTERNAL_HTTP_ADDR": "127.0.0.1:0",
            "CONTAINER_STOP_TIMEOUT_SECONDS": "5",
            # The services already answer, or the test is about one that does not.
            "STARTUP_WAIT": "1ms",
            # Every test is its manager's first start; tests of images that exit at once set another value.
            "FIRST_START_WATCH": "1ms",
            "IMAGE_ALLOW": allowed_images(),
            **changes,
        }
        database, redis, root = self.services.database, self.services.redis, self.state_root
        needs = stack.environment(database, redis, daemon.host(), self.network.name, root, self.lobby.base_url)
        return needs | {f"RTMANAGER_{name}": value for name, value in settings.items()}

    def start_runtime(self, **changes: str) -> LiveRuntime:
        """Start a manager in this process; stopped at the end of the test. Requests go to the last one started."""
        live = LiveRuntime(self.environment(**changes), self.log)
        self.addCleanup(live.stop)
        self.base_url = live.base_url
        return live

    def start_process(self, **changes: str) -> manager.ManagerProcess:
        """Start a manager as a process and wait until it is ready; killed at the end of the test."""
        address = manager.free_address()
        process = manager.start(self.environment(INTERNAL_HTTP_ADDR=address, **changes), self.log)
        self.addCleanup(process.kill)
        process.wait_until_ready()
        self.base_url = process.base_url
        return process

    def before_docker(self) -> Proxy:
        """Start a fault proxy in front of the daemon; closed at the end of the test."""
        proxy = faults.before(daemon.socket_address(daemon.host()))
        self.addCleanup(proxy.close)
        return proxy

    # --- requests

    def call(
        self, method: str, path: str, body: object = None, caller: str = "gm", game_id: str | None = None
    ) -> tuple[int, Any]:
        """Send a REST request for a game, by default the test's own; return status and body."""
        url = f"{self.base_url}/api/v1/internal/runtimes/{game_id or self.game_id}{path}"
        return web.call(method, url, body, {"X-Galaxy-Caller": caller})

    def post(self, operation: str, body: object = None, **how: Any) -> dict[str, Any]:
        """Send a POST that must succeed; return the record."""
        return self.succeed(self.call("POST", f"/{operation}", body, **how))

    def succeed(self, answer: tuple[int, Any]) -> dict[str, Any]:
        """The body of an answer that must be 200."""
        self.assertEqual(answer[0], 200, answer[1])
        return dict(answer[1])

    def refused(self, answer: tuple[int, Any], status: int, code: str) -> str:
        """The message of an answer that must be this error."""
        self.assertEqual((answer[0], answer[1].get("error", {}).get("code")), (status, code), answer[1])
        return str(answer[1]["error"]["message"])

    def add_start_job(self, image_ref: str | None = None, game_id: str | None = None) -> str:
        """Add a start job; return its entry id."""
        return self.add_job("start", game_id=game_id or self.game_id, image_ref=image_ref or self.engine.ref)

    def add_stop_job(self, reason: str = "finished", game_id: str | None = None) -> str:
        """Add a stop job; return its entry id."""
        return self.add_job("stop", game_id=game_id or self.game_id, reason=reason)

    def add_job(self, kind: str, **fields: str) -> str:
        """Add an entry to an input stream; return its id.

        The id is greater than that of any earlier job, also on the other stream. Redis's own ids of two streams may be
        equal within a millisecond, and then do not show the order of the jobs.
        """
        now = round(time.time() * 1000)
        self._last_job_ms = max(now, self._last_job_ms + 1)
        job = {"requested_at_ms": str(now), **fields}
        return str(self.redis.xadd(f"runtime:{kind}_jobs", job, id=f"{self._last_job_ms}-0"))

    # --- observations

    def wait_until(
        self, what: str, probe: Callable[[], T | None], timeout_s: float = RESULT_TIMEOUT_S, **how: Any
    ) -> T:
        """Wait as `waiting.wait_until` does; the error shows the last log lines of the manager and of containers."""
        try:
            seen: T = wait_until(what, probe, timeout_s=timeout_s, **how)
        except WaitFailed as failure:
            raise WaitFailed(f"{failure}\n{self._last_log_lines()}") from None
        return seen

    def _last_log_lines(self) -> str:
        containers = (Container(each, self.docker) for each in self.network.containers())
        return "\n".join([log_tail(self.log), *(each.last_log_lines() for each in containers)])

    def wait_until_ready(self) -> None:
        """Wait until the manager at `base_url` reports that it is ready."""
        self.wait_until("readiness", lambda: web.call("GET", f"{self.base_url}/readyz")[0] == 200)

    def results(self, count: int = 1, timeout_s: float = RESULT_TIMEOUT_S) -> list[dict[str, str]]:
        """The entries of the results stream, once there are at least `count`."""
        stream = "runtime:job_results"
        self.wait_until(
            f"{count} job results",
            lambda: self.redis.xlen(stream) >= count,
            timeout_s,
            describe=lambda _: repr(self.entries(stream)),
        )
        return self.entries(stream)

    def record(self, game_id: str | None = None) -> dict[str, Any]:
        """The game's row of runtime_records; empty when it has none."""
        found = self.rows("SELECT * FROM runtime_records WHERE game_id = %s", game_id or self.game_id)
        return found[0] if found else {}

    def log_rows(self, game_id: str | None = None) -> list[dict[str, Any]]:
        """The game's rows of operation_log, in order."""
        return self.rows("SELECT * FROM operation_log WHERE game_id = %s ORDER BY id", game_id or self.game_id)

    def containers(self, game_id: str | None = None) -> list[dict[str, Any]]:
        """The game's containers in any state, as Docker inspects them; without any removed meanwhile."""
        label = f"com.galaxy.game_id={game_id or self.game_id}"
        found = self.docker.containers(all=True, filters={"label": label})
        return [there for each in found if (there := self._inspected(each["Id"])) is not None]

    def _inspected(self, container_id: str) -> dict[str, Any] | None:
        from docker.errors import NotFound

        try:
            seen: dict[str, Any] = self.docker.inspect_container(container_id)
        except NotFound:
            return None
        return seen

    def engine_call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request to the game's engine, once it answers; by IP, since its host name is inside the network."""
        networks = self.docker.inspect_container(f"galaxy-game-{self.game_id}")["NetworkSettings"]["Networks"]
        base = f"http://{networks[self.network.name]['IPAddress']}:8080"
        self.wait_until("the engine", lambda: web.call("GET", f"{base}/healthz")[0] == 200)
        return web.call(method, f"{base}{path}", body)


def unique_game_id(test_id: str) -> str:
    """A game id that contains the test's name and is unique among all runs."""
    return f"{short_name(test_id)}-{secrets.token_hex(5)}"
