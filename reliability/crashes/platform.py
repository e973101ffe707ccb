"""The environment of a cell: its own database, Redis, network and directory, and one manager at a time.

Cells on one platform run one after the other, each on new games. The state of earlier games stays, and is checked again
with every cell.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harness import daemon, wait_until, web
from harness.fixtures import container, faults, network, redis
from harness.fixtures.closing import Closing
from harness.fixtures.container import HTTP_NOT_YET
from harness.fixtures.dockerd import OwnDaemon
from harness.fixtures.log_tail import log_tail
from harness.fixtures.postgres import Postgres
from harness.fixtures.registry import Registry
from harness.images.variant import variant
from harness.rtm import allowed_images, manager, stack, unique_game_id
from harness.rtm.manager import ManagerProcess
from integration.support import shifted
from reliability.crashes import prefork
from reliability.invariants import Job, World, unquiet, violations

if TYPE_CHECKING:
    import psycopg

#: Periods short enough that every worker runs within a cell.
SETTINGS = {
    "RTMANAGER_CONTAINER_STOP_TIMEOUT_SECONDS": "5",
    "RTMANAGER_FIRST_START_WATCH": "1ms",
    "RTMANAGER_RECONCILE_INTERVAL": "2s",
    "RTMANAGER_PROBE_INTERVAL": "2s",
    "RTMANAGER_INSPECT_INTERVAL": "2s",
    "RTMANAGER_CLEANUP_INTERVAL": "2s",
    "RTMANAGER_IMAGE_RETENTION": "1h",
    "RTMANAGER_CRASH_RESTART": "on",
    "RTMANAGER_CRASH_RESTART_FIRST_PAUSE": "100ms",
    "RTMANAGER_SHUTDOWN_TIMEOUT": "1s",
    # The checker expects an intent for each failure in the log.
    "RTMANAGER_INTENTS_PER_MINUTE": "0",
}
#: Seconds in which a platform is at rest again, whatever happened to its manager.
REST_TIMEOUT_S = 60.0
#: Seconds that a state at rest must persist: a worker of the watch may be about to find something.
STEADY_S = 0.3
#: The first push sends the layers; later ones only refer to them.
_ONE_PUSH = threading.Lock()


@dataclass(frozen=True)
class KeptWorld(World):
    """A world with one connection to PostgreSQL, which is cached: a cell uses it a hundred times."""

    connection: "psycopg.Connection[Any] | None" = None

    def rows(self, query: str) -> list[dict[str, Any]]:
        from psycopg.rows import dict_row

        assert self.connection is not None
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode()).fetchall()

    def has_tables(self) -> bool:
        """Whether a manager has created the tables."""
        return bool(self.rows("SELECT WHERE to_regclass('operations') IS NOT NULL"))


class Platform(Closing):
    """Started by its constructor. The images of its games are in `shop` until they are pulled.

    With `own_daemon` its games are on its own Docker daemon, which its managers reach through a proxy.
    """

    def __init__(
        self,
        postgres: Postgres,
        shop: Registry,
        name: str,
        patience_s: float = REST_TIMEOUT_S,
        *,
        own_daemon: bool = False,
    ) -> None:
        self._patience_s = patience_s
        self._shop = shop
        self.jobs: list[Job] = []
        self.manager: ManagerProcess | None = None
        self._clock_off_s = 0
        self._last_job_ms = 0
        with ExitStack() as ends:
            here = ends.enter_context(
                stack.running(name, (postgres, ends.enter_context(redis.start())), own_daemon=own_daemon)
            )
            ends.callback(here.database.drop)
            self.engine, self.network, self.database = here.engine, here.network, here.database
            self.docker = here.network.client
            self.redis: Any = ends.enter_context(here.redis.client())
            self._own = here.own_daemon
            self._way: faults.Proxy | None = None
            self._environment = {**here.environment, **SETTINGS, "RTMANAGER_IMAGE_ALLOW": allowed_images()}
            if own_daemon:
                self._prepare_exchange(ends)
            ends.callback(self.kill)
            #: The file that arms failpoints, see `rtmanager.failpoints`.
            self.points = here.state_root.directory / "failpoints"
            self._environment["RTMANAGER_FAILPOINTS"] = f"file:{self.points}"
            self.log = here.state_root.logs / "manager.log"
            self._sql = ends.enter_context(closing(self.database.connect()))
            games = here.state_root.folder("games")
            self.world = KeptWorld(
                self.database, self.redis, self.docker, self.network.name, games, connection=self._sql
            )
            self._ends = ends.pop_all()

    def close(self) -> None:
        """Remove everything, with every game."""
        self._ends.close()

    def _prepare_exchange(self, ends: ExitStack) -> None:
        """Make the machine's daemon able to replace the platform's own."""
        self._way = ends.enter_context(faults.before(daemon.socket_address(self.own_daemon().url)))
        self._environment["RTMANAGER_DOCKER_HOST"] = self._way.url
        ends.callback(network.create(self.network.name).remove)

    # --- the manager

    def start(self) -> None:
        """Start a manager, without waiting for it; does nothing while one runs."""
        if self.manager is not None and self.manager.exit_code is None:
            return
        if self._clock_off_s:  # a new process: a forked one has already read the clock that is to be shifted
            command = shifted.command(self._clock_off_s, "serve")
            self.manager = manager.start(self._environment, self.log, command, echo=False)
        else:
            self.manager = prefork.start(self._environment, self.log)

    def serve(self) -> Self:
        """Start a manager if none runs, and wait until it is ready."""
        self.start()
        assert self.manager is not None
        self.manager.wait_until_ready()
        return self

    def kill(self) -> None:
        """Send SIGKILL, if a manager runs."""
        if self.manager is not None:
            self.manager.kill()

    def send(self, signal: str) -> None:
        """Send the manager SIG`signal`."""
        assert self.manager is not None
        self.manager.send(signal)

    def exit_code(self) -> int | None:
        """The manager's exit code; None while it runs."""
        return self.manager.exit_code if self.manager is not None else None

    def set_clock(self, off_s: int) -> None:
        """Set the clock error of the manager's host in seconds; kills a manager with another one."""
        if off_s != self._clock_off_s:
            self.kill()
            self._clock_off_s = off_s

    # --- its Docker daemon

    def own_daemon(self) -> OwnDaemon:
        """The platform's own daemon."""
        assert self._own is not None
        return self._own

    @contextmanager
    def another_daemon(self) -> Iterator[None]:
        """Within the block, the managers' address leads to the machine's daemon, with a network of the same name."""
        self._lead_to(daemon.host())
        try:
            yield
        finally:
            self._lead_to(self.own_daemon().url)

    def _lead_to(self, url: str) -> None:
        assert self._way is not None
        self._way.lead_to(daemon.socket_address(url))
        self._way.cut()

    # --- failpoints

    def arm(self, points: str) -> None:
        """Arm these failpoints, and record from now on which are reached."""
        self._notes().unlink(missing_ok=True)
        draft = self.points.with_name("draft")
        draft.write_text(points)
        os.replace(draft, self.points)

    def disarm(self) -> None:
        """Disarm all failpoints."""
        self.points.unlink(missing_ok=True)

    def reached(self) -> list[str]:
        """The failpoints that were reached since `arm`, in order."""
        with suppress(FileNotFoundError):
            return self._notes().read_text().splitlines()
        return []

    def wait_for_point(self, point: str, game_id: str) -> None:
        """Wait until the failpoint was reached, or never will be: the game's job or the manager has ended."""

        def over() -> bool:
            return point in self.reached() or self.exit_code() is not None or bool(self.outcome(game_id))

        wait_until(point, over, timeout_s=self._patience_s)

    def _notes(self) -> Path:
        return self.points.with_name(self.points.name + ".reached")

    # --- requests

    def new_game(self, scenario: str) -> str:
        """A new game id."""
        return unique_game_id(scenario)

    def call(self, method: str, game_id: str, path: str, body: object = None) -> int | None:
        """The status of a REST request; None without an answer."""
        assert self.manager is not None
        url = f"{self.manager.base_url}/api/v1/internal/runtimes/{game_id}{path}"
        with suppress(*HTTP_NOT_YET):
            return web.call(method, url, body, {"X-Galaxy-Caller": "gm"}, timeout_s=REST_TIMEOUT_S)[0]
        return None

    def start_game(self, game_id: str) -> dict[str, Any]:
        """Start a game as the initial state of a scenario; return its record."""
        status = self.serve().call("POST", game_id, "/start", {"image_ref": self.engine.ref})
        assert status == 200, f"{game_id} could not be started: {status}\n{log_tail(self.log)}"
        return self.record(game_id)

    def published(self, game_id: str) -> str:
        """Push an image that behaves like the engine's and is the game's alone; return its reference.

        The manager keeps an image while any container is made of it, also one of another test.
        """
        with _ONE_PUSH:
            return self._shop.push(variant(self.engine.ref, game_id), f"{game_id}:1.0.0")

    def add_job(self, stream: str, game_id: str, **fields: str) -> None:
        """Add an entry to `runtime:<stream>`; its id is greater than those of all earlier jobs, on any stream."""
        name = f"runtime:{stream}"
        self._last_job_ms = max(self._last_job_ms + 1, round(time.time() * 1000))
        now_ms = str(self._last_job_ms)
        fields = {"game_id": game_id, **fields, "requested_at_ms": now_ms}
        entry_id = self.redis.xadd(name, {key: value for key, value in fields.items() if value}, id=f"{now_ms}-0")
        self.jobs.append(Job(name, str(entry_id), game_id or None))

    def record(self, game_id: str) -> dict[str, Any]:
        """The game's record; empty when there is none."""
        if not self.world.has_tables():
            return {}
        from psycopg.rows import dict_row

        with self._sql.cursor(row_factory=dict_row) as cursor:
            return cursor.execute("SELECT * FROM runtime_records WHERE game_id = %s", (game_id,)).fetchone() or {}

    def outcome(self, game_id: str) -> str:
        """The outcome of the game's last job; empty when it had none."""
        with self._sql.cursor() as cursor:
            last = cursor.execute(
                "SELECT outcome FROM operation_log WHERE game_id = %s AND op_source = 'lobby_stream'"
                " ORDER BY id DESC LIMIT 1",
                (game_id,),
            ).fetchone()
        return last[0] if last else ""

    def sql(self, statement: str, *values: object) -> None:
        """Execute a statement as an administrator."""
        self._sql.execute(statement.encode(), values)

    def count(self, rows: str, *values: object) -> int:
        """The number of rows of `FROM <rows>`."""
        found = self._sql.execute(f"SELECT count(*) FROM {rows}".encode(), values).fetchone()
        return int(found[0]) if found else 0

    def forget(self) -> None:
        """Reset: a new database without a table, an empty Redis, no game; no manager may run."""
        for container_id in self.network.containers():
            container.remove(self.docker, container_id)
        self.jobs.clear()
        self.redis.flushall()
        schema, role = self.database.layout.schema, self.database.layout.role
        # The last statement of a killed manager may still run, which could deadlock with the reset.
        self.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'rtmanager'"
        )
        self.sql(f"DROP SCHEMA {schema} CASCADE")
        self.sql(f"CREATE SCHEMA {schema} AUTHORIZATION {role}")

    def drop_game(self, game_id: str) -> None:
        """Remove a game's containers as with `docker rm -f`; the manager detects it."""
        for container_id in self.containers(game_id):
            container.remove(self.docker, container_id)

    def containers(self, game_id: str) -> list[str]:
        """The ids of the game's containers, running or not."""
        found = self.docker.containers(all=True, filters={"label": [f"com.galaxy.game_id={game_id}"]})
        return [each["Id"] for each in found]

    # --- checks

    def wait_for_rest(self, fits: Callable[[], bool]) -> None:
        """Wait until nothing is pending, nothing is violated, and `fits`; raises WaitFailed with what is not so."""
        wait_until(
            "the platform to be at rest as it should be",
            lambda: self._is_at_rest(fits),
            timeout_s=self._patience_s,
            interval_s=0.2,
            describe=lambda _: "; ".join(self._wrong(fits)),
        )

    def _is_at_rest(self, fits: Callable[[], bool]) -> bool:
        if self._wrong(fits):
            return False
        time.sleep(STEADY_S)
        return not self._wrong(fits)

    def _wrong(self, fits: Callable[[], bool]) -> list[str]:
        fitting = fits()
        wrong = unquiet(self.world) if self.world.has_tables() else ["there is no table"]
        if not wrong and not fitting:
            wrong = ["the game is not as it should be"]
        return wrong or violations(self.world, self.jobs)
