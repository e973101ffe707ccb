"""`make demo`: one game through its whole life; prints every message, record and container.

Everything is real: a manager process serves, the jobs go through Redis, the records come from PostgreSQL, the turns are
HTTP requests to the game's container. Any deviation ends the demo with an error.
"""

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from harness import web
from harness.errors import HarnessError
from harness.images.catalogue import ensure
from harness.machine.up import up
from harness.progress import enable, step
from harness.rtm import manager, stack
from harness.rtm.images import NEEDED
from harness.rtm.manager import ManagerProcess
from harness.rtm.stack import Stack
from harness.waiting import wait_until

RESULT_TIMEOUT_S = 60.0
RACES = [{"raceName": "Terrans"}, {"raceName": "Selkies"}]


class DemoFailed(HarnessError):
    """A result differs from the contract."""


def demo() -> None:
    """Start everything, play one game, remove everything. Raises HarnessError."""
    enable()
    began = time.monotonic()
    up()
    ensure(NEEDED)
    with stack.running("demo") as here:
        log = here.state_root.logs / "manager.log"
        environment = {**here.environment, "RTMANAGER_LOG_FORMAT": "text"}
        with manager.start(environment, log) as process:
            with step("starting the Runtime Manager"):
                process.wait_until_ready()
            _Play(here, process).run()
            _title("The manager's own log")
            code = process.terminate()
            print("".join(f"  {line}\n" for line in log.read_text().splitlines()), end="")
            _expect("the manager's exit code after SIGTERM", code, 0)
    print(f"\nEverything that the demo started is taken down. It took {time.monotonic() - began:.1f} s in all.")


class _Play:
    """The steps of the demo, one method each."""

    def __init__(self, here: Stack, process: ManagerProcess) -> None:
        self.game = f"demo-{secrets.token_hex(3)}"
        self._here = here
        self._url = f"{process.base_url}/api/v1/internal/runtimes/{self.game}"
        # `Any`: redis-py annotates replies as unions of everything, differently in each release.
        self._redis: Any = here.redis.client()
        self._docker = here.network.client
        self._results_seen = 0

    def run(self) -> None:
        """Run all steps."""
        try:
            first = self._start()
            self._play_three_turns()
            second = self._patch(first)
            self._stop(second)
            self._cleanup(second)
            self._show_history()
        finally:
            self._redis.close()

    def _start(self) -> str:
        _title(f"1. A job asks for game {self.game}")
        image = self._here.engine.ref
        self._add_job("runtime:start_jobs", image_ref=image)
        result = self._next_result()
        _expect("outcome", result["outcome"], "success")
        self._show_record()
        self._show_container(result["container_id"])
        self._show_rows("health_snapshots", "status, source, details, observed_at")
        _show("engine", f"GET {self._engine_url('/healthz')}")
        wait_until("the engine's health", lambda: web.call("GET", self._engine_url("/healthz"))[0] == 200)
        _show("", "200, the game is healthy")
        return result["container_id"]

    def _play_three_turns(self) -> None:
        _title("2. Two races, three turns, played in the container")
        self._engine("POST", "/api/v1/admin/init", {"races": RACES})
        for _ in range(3):
            self._engine("PUT", "/api/v1/admin/turn")
        state = self._here.state_root.folder("games") / self.game / "game.json"
        _show("on the host", f"{state.parent.name}/{state.name}: {state.read_text()}")

    def _patch(self, old: str) -> str:
        _title("3. The game is patched: a new container, the same game")
        record = self._rest("POST", "/patch", {"image_ref": self._here.engine.patched_ref})
        new = str(record["current_container_id"])
        if new == old:
            raise DemoFailed(f"the patched game still runs in container {old}")
        self._show_container(new)
        wait_until("the patched engine", lambda: web.call("GET", self._engine_url("/healthz"))[0] == 200)
        _expect("turn", self._engine("GET", "/api/v1/admin/status")["turn"], 3)
        _expect("turn", self._engine("PUT", "/api/v1/admin/turn")["turn"], 4)
        return new

    def _stop(self, container_id: str) -> None:
        _title("4. A job stops it")
        self._add_job("runtime:stop_jobs", reason="finished")
        _expect("outcome", self._next_result()["outcome"], "success")
        self._show_record()
        self._show_container(container_id)

    def _cleanup(self, container_id: str) -> None:
        _title("5. Its container is cleaned up, its state is not")
        record = self._rest("DELETE", "/container")
        _expect("status", record["status"], "removed")
        left = self._docker.containers(all=True, filters={"id": container_id})
        _expect("containers left of the game", len(left), 0)
        kept = sorted(path.name for path in (self._here.state_root.folder("games") / self.game).iterdir())
        _show("on the host", f"{self.game}/ still holds {', '.join(kept)}")

    def _show_history(self) -> None:
        _title("6. What is on record")
        self._show_rows("operation_log", "op_kind, op_source, outcome, error_code, finished_at", order="id")
        for entry_id, fields in self._redis.xrange("runtime:health_events"):
            _show("health event", f"{entry_id}  {_flat(fields)}")

    def _add_job(self, stream: str, **fields: str) -> None:
        job = {"game_id": self.game, **fields, "requested_at_ms": str(round(time.time() * 1000))}
        entry_id = self._redis.xadd(stream, job)
        _show("job", f"{stream} {entry_id}  {_flat(job)}")

    def _next_result(self) -> dict[str, str]:
        def results() -> list[Any]:
            return list(self._redis.xrange("runtime:job_results"))[self._results_seen :]

        entry_id, fields = wait_until("a job result", results, timeout_s=RESULT_TIMEOUT_S)[0]
        self._results_seen += 1
        _show("result", f"runtime:job_results {entry_id}  {_flat(fields)}")
        return dict(fields)

    def _rest(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        _show("call", f"{method} …/{self.game}{path} {'' if body is None else json.dumps(body)}".rstrip())
        status, answer = web.call(method, self._url + path, body, {"X-Galaxy-Caller": "gm"})
        _show("answer", f"{status} {json.dumps(answer)}")
        _expect("HTTP status", status, 200)
        return dict(answer)

    def _engine(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        status, answer = web.call(method, self._engine_url(path), body)
        _show("engine", f"{method} {path} -> {status} {json.dumps(answer)}")
        _expect("HTTP status of the engine", status, 200)
        return dict(answer)

    def _engine_url(self, path: str) -> str:
        """By IP: the game's host name resolves only inside its network, and the demo runs outside."""
        networks = self._docker.inspect_container(f"galaxy-game-{self.game}")["NetworkSettings"]["Networks"]
        return f"http://{networks[self._here.network.name]['IPAddress']}:8080{path}"

    def _show_record(self) -> None:
        self._show_rows("runtime_records", "status, current_container_id, current_image_ref, engine_endpoint")

    def _show_rows(self, table: str, columns: str, order: str = "1") -> None:
        from psycopg import sql

        query = sql.SQL("SELECT {} FROM {} WHERE game_id = %s ORDER BY {}").format(
            sql.SQL(", ").join(sql.Identifier(name) for name in columns.split(", ")),
            sql.Identifier(table),
            sql.SQL("1") if order == "1" else sql.Identifier(order),
        )
        with self._here.database.connect() as connection:
            for row in connection.execute(query, (self.game,)):
                pairs = zip(columns.split(", "), row, strict=True)
                _show(table, _flat({name: value for name, value in pairs if value is not None}))

    def _show_container(self, container_id: str) -> None:
        found = self._docker.inspect_container(container_id)
        limits, mount = found["HostConfig"], found["Mounts"][0]
        _show("container", f"{found['Name'].lstrip('/')} {container_id[:12]}, {found['State']['Status']}")
        _show("", f"image {found['Config']['Image']}, {limits['NanoCpus'] / 1e9:g} cores, {limits['Memory'] >> 20} MiB")
        _show("", f"state mounted on {mount['Destination']}, read-only root {limits['ReadonlyRootfs']}")


def _title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def _show(what: str, text: str) -> None:
    print(f"  {what:<16}  {text}", flush=True)


def _flat(fields: Mapping[Any, Any]) -> str:
    return "  ".join(f"{name}={value}" for name, value in fields.items())


def _expect(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise DemoFailed(f"{what} is {got!r}, expected {wanted!r}")
