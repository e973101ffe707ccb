"""The manager's side of the work: a process on real services, used through its streams and REST interface."""

import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.errors import BenchError
from harness.fixtures import container
from harness.fixtures.container import Container
from harness.fixtures.network import Network
from harness.rtm import manager, stack
from harness.rtm.manager import ManagerProcess
from harness.rtm.stack import Stack
from harness.waiting import wait_until

if TYPE_CHECKING:
    from docker import APIClient

RESULTS = "runtime:job_results"

#: Seconds to wait for results, and for the manager to be at rest.
DONE_S = 60.0
#: Containers removed at once. With eight, Docker 20.10 keeps endpoints of removed containers,
#: and the network cannot be removed.
REMOVING = 2

#: Whether the manager still has to process removed games.
_BUSY = "SELECT EXISTS (SELECT FROM runtime_records WHERE status = 'running') OR EXISTS (SELECT FROM outbox) AS busy"


@dataclass
class Ours:
    """A ready manager, and its services."""

    here: Stack
    process: ManagerProcess
    #: `Any`: redis-py annotates replies as unions of everything, differently in each release.
    redis: Any
    rest: HTTPConnection
    _last_result: str = field(default="0-0", repr=False)

    def start(self, game_ids: Sequence[str]) -> Mapping[str, str]:
        """Add a start job for each game, and wait for all results; returns the containers by game."""
        pipe = self.redis.pipeline(transaction=False)
        for game_id in game_ids:
            fields = {"game_id": game_id, "image_ref": self.here.engine.ref, "requested_at_ms": "0"}
            pipe.xadd("runtime:start_jobs", fields)
        pipe.execute()
        return {game_id: checked(result) for game_id, result in self._results(set(game_ids)).items()}

    def call(self, method: str, game_id: str, operation: str, body: object = None) -> Mapping[str, Any]:
        """Make a REST call on the kept connection; returns the record of the answer."""
        path = f"/api/v1/internal/runtimes/{game_id}/{operation}"
        headers = {"Content-Type": "application/json", "X-Galaxy-Caller": "gm"}
        self.rest.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.rest.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        if answer.status != 200:
            raise BenchError(f"{method} {path} is answered {answer.status}: {found}")
        return found

    def clear(self) -> None:
        """Remove all containers of the network, and wait until the manager has recorded that."""
        take_away(self.here.network)
        with self.here.database.connect() as connection:

            def is_at_rest() -> bool:
                row = connection.execute(_BUSY).fetchone()
                return row is not None and not row[0]

            wait_until("the manager to be at rest", is_at_rest, timeout_s=DONE_S)

    def _results(self, games: set[str]) -> Mapping[str, Mapping[str, str]]:
        found: dict[str, Mapping[str, str]] = {}
        until = time.monotonic() + DONE_S
        while len(found) < len(games):
            left_ms = max(1, round((until - time.monotonic()) * 1000))
            answers = self.redis.xread({RESULTS: self._last_result}, block=left_ms)
            if not answers:
                raise BenchError(f"{len(found)} of {len(games)} results within {DONE_S:g} s\n{self.process.log_tail()}")
            for self._last_result, result in answers[0][1]:
                if result["game_id"] not in games or result["game_id"] in found:
                    raise BenchError(f"a result that is not due: {result}")
                found[result["game_id"]] = result
        return found


def checked(result: Mapping[str, str]) -> str:
    """The container of a start's result; raises BenchError for a start that failed or changed nothing."""
    if result["outcome"] != "success" or result["error_code"] or not result["container_id"]:
        raise BenchError(f"a start that did not start anything: {result}")
    return result["container_id"]


def new_games(count: int) -> list[str]:
    """New random game ids."""
    return [f"bench-{secrets.token_hex(5)}" for _ in range(count)]


def now_and_then(work: Callable[[], object], every: int) -> Callable[[], None]:
    """Wrap `work` so that the first call runs it, and then every `every`th."""
    calls = itertools.count()

    def call() -> None:
        if next(calls) % every == 0:
            work()

    return call


def wait_for_engine(client: "APIClient", container_id: str) -> None:
    """Wait until the engine is up: its start would use processor time of the next measurement."""
    Container(container_id, client).wait_for_log("listens")


def take_away(network: Network) -> None:
    """Remove the containers of a network, several at once: that takes Docker a third of the time."""
    with ThreadPoolExecutor(REMOVING) as threads:
        list(threads.map(partial(container.remove, network.client), network.containers()))


@contextmanager
def emptied(network: Network) -> Iterator[None]:
    """Remove the containers at the end: the network's own removal takes one after the other and waits 10 s."""
    try:
        yield
    finally:
        take_away(network)


@contextmanager
def running(command: Sequence[str] = manager.COMMAND) -> Iterator[Ours]:
    """A platform with a ready manager; removes all of it at the end."""
    with (
        stack.running("bench") as here,
        emptied(here.network),  # runs after the manager has ended, so that it cannot restart anything
        manager.start(here.environment, here.state_root.logs / "manager.log", command) as process,
        here.redis.client() as redis,
    ):
        process.wait_until_ready()
        address = urlsplit(process.base_url)
        rest = HTTPConnection(address.hostname or "", address.port, timeout=DONE_S)
        try:
            yield Ours(here, process, redis, rest)
        finally:
            rest.close()
