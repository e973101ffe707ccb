"""Managers on one platform, a fault proxy in front of each dependency, and start jobs."""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from harness.errors import WaitFailed
from harness.fixtures import container
from harness.fixtures.log_tail import log_tail
from harness.rtm import manager, stack
from harness.rtm.lines import Lines
from harness.rtm.manager import ManagerProcess
from harness.rtm.stack import Stack
from harness.waiting import wait_until

#: Jobs due at once; their Docker calls take some seconds.
JOBS = 10
#: Seconds to wait for all results, and between two checks.
DONE_S = 120.0
POLL_INTERVAL_S = 0.01


@dataclass
class Fleet:
    """The managers, and the fault proxies in front of their dependencies."""

    here: Stack
    lines: Lines
    log: Path
    # `Any`: redis-py annotates replies as unions of everything, differently in each release.
    redis: Any
    managers: list[ManagerProcess] = field(default_factory=list)

    def have(self, count: int) -> Sequence[ManagerProcess]:
        """Bring the fleet to `count` ready managers; replaces those that have ended."""
        self.managers = [each for each in self.managers if each.exit_code is None]
        started = [self._start() for _ in range(count - len(self.managers))]
        self.managers += started
        for each in started:
            each.wait_until_ready()
        return self.managers

    def add_jobs(self) -> int:
        """Add start jobs of new games; returns the number of results when all are done."""
        done = self._results()
        for _ in range(JOBS):
            game_id = f"bench-{secrets.token_hex(5)}"
            fields = {"game_id": game_id, "image_ref": self.here.engine.ref, "requested_at_ms": "0"}
            self.redis.xadd("runtime:start_jobs", fields)
        return done + JOBS

    def wait_for(self, results: int) -> float:
        """Wait for so many results; returns the time by the monotonic clock. Raises BenchError when there are more."""
        self._wait(results)
        now = time.monotonic()
        if self._results() > results:
            raise BenchError(f"{self._results()} results where {results} are due")
        return now

    def wait_until_begun(self, results: int) -> None:
        """Wait until two of the jobs are done."""
        self._wait(results - JOBS + 2)

    def clear(self) -> None:
        """Remove the games' containers behind the managers' backs."""
        client = self.here.network.client
        for container_id in self.here.network.containers():
            container.remove(client, container_id)

    def close(self) -> None:
        """Kill the managers."""
        for each in self.managers:
            each.kill()

    def _results(self) -> int:
        return int(self.redis.xlen("runtime:job_results"))

    def _wait(self, count: int) -> None:
        try:
            wait_until(
                f"{count} results", lambda: self._results() >= count, timeout_s=DONE_S, interval_s=POLL_INTERVAL_S
            )
        except WaitFailed as failure:
            raise BenchError(f"{failure}\n{log_tail(self.log)}") from None

    def _start(self) -> ManagerProcess:
        address = {manager.ADDRESS_VARIABLE: manager.free_address()}
        return manager.start({**self.here.environment, **self.lines.environment, **address}, self.log)


@contextmanager
def gathered() -> Iterator[Fleet]:
    """A platform without managers; removes it and the started managers at the end."""
    with ExitStack() as cleanup:
        here = cleanup.enter_context(stack.running("bench"))
        lines = cleanup.enter_context(Lines(here.database, here.redis, here.environment["RTMANAGER_DOCKER_HOST"]))
        redis = cleanup.enter_context(here.redis.client())
        fleet = Fleet(here, lines, here.state_root.logs / "manager.log", redis)
        cleanup.callback(fleet.close)
        yield fleet
