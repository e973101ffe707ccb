"""PostgreSQL and Redis by testcontainers-python, in the ways its users start two containers.

As it comes, but for three things. Its reaper, a third container, is off: its image is one of a registry, and
starting it would only cost time. User and database are those that the image has, whose data directory is prepared
and asks the environment for neither. And the containers carry our labels, so that a later run sweeps what a killed
one left. How it waits is its own: for a query by `psql` inside the container and a PING from outside, looking again
after a second.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.comparison import Sample, Side
from harness import daemon, images
from harness.runs import identity
from harness.waiting import INTERVAL_S

T = TypeVar("T")

#: Runs all steps, and gives what each returned.
Steps = Callable[[Sequence[Callable[[], Any]]], list[Any]]


def sides() -> list[Side]:
    """Every way that is compared with."""
    alone, together = Stack(_one_after_the_other), Stack(_at_the_same_time)
    return [
        Side("testcontainers, one after the other", alone.run),
        Side("testcontainers, both on threads", together.run),
        Side(f"the same, looking every {INTERVAL_S * 1000:.0f} ms", _looking_often(together.run)),
    ]


def version() -> str:
    """Which testcontainers it is."""
    from importlib.metadata import version as version_of

    return f"testcontainers {version_of('testcontainers')}, reaper off, otherwise as it comes"


@dataclass(frozen=True)
class Stack:
    """Both services, by the way in which several things are done."""

    do: Steps

    def run(self) -> Sample:
        """From nothing to both answering, and back."""
        began = time.perf_counter()
        containers = self.do([_postgres, _redis])
        ready = time.perf_counter()
        self.do([container.stop for container in containers])
        return {"both answer": ready - began, "both gone": time.perf_counter() - ready}


def _one_after_the_other(steps: Sequence[Callable[[], T]]) -> list[T]:
    return [step() for step in steps]


def _at_the_same_time(steps: Sequence[Callable[[], T]]) -> list[T]:
    with ThreadPoolExecutor(len(steps)) as threads:
        return list(threads.map(lambda step: step(), steps))


def _looking_often(run: Callable[[], Sample]) -> Callable[[], Sample]:
    def run_so() -> Sample:
        config = _settings()
        before, config.sleep_time = config.sleep_time, INTERVAL_S
        try:
            return run()
        finally:
            config.sleep_time = before

    return run_so


def _settings() -> Any:
    """Its configuration. It reads the environment when it is imported."""
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    if (host := daemon.configured_host()) is not None:
        os.environ["DOCKER_HOST"] = host
    from testcontainers.core.config import testcontainers_config

    return testcontainers_config


def _postgres() -> Any:
    """A PostgreSQL that has answered."""
    _settings()
    from testcontainers.community.postgres import PostgresContainer

    made = PostgresContainer(images.postgres(), username="postgres", password="any", dbname="postgres", driver=None)
    return _started(made)


def _redis() -> Any:
    """A Redis that has answered."""
    _settings()
    from testcontainers.community.redis import RedisContainer

    return _started(RedisContainer(images.redis()))


def _started(container: Any) -> Any:
    """Start it; what is raised takes it away, which testcontainers leaves to its reaper."""
    try:
        return container.with_kwargs(labels=identity.current().labels()).start()
    except BaseException:
        container.stop()
        raise
