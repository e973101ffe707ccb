"""PostgreSQL and Redis by testcontainers-python, in the ways its users start two containers.

The library runs with its defaults, except for three things. Its reaper, a third container, is off: its image needs a
registry, and its start only costs time. User and database are those of the image's prepared data directory, which
needs no environment. The containers carry our labels, so that a later run removes what a killed run leaves. The
waiting is its own: a `psql` query inside the container and a PING from outside, repeated after a second.
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

#: Runs all steps, and returns their results.
Steps = Callable[[Sequence[Callable[[], Any]]], list[Any]]


def sides() -> list[Side]:
    """Every way that serves as a reference."""
    alone, together = Stack(_one_after_the_other), Stack(_at_the_same_time)
    return [
        Side("testcontainers, one after the other", alone.run),
        Side("testcontainers, both on threads", together.run),
        Side(f"the same, looking every {INTERVAL_S * 1000:.0f} ms", _polling_often(together.run)),
    ]


def version() -> str:
    """The version of testcontainers, for the notes."""
    from importlib.metadata import version as version_of

    return f"testcontainers {version_of('testcontainers')}, reaper off, otherwise as it comes"


@dataclass(frozen=True)
class Stack:
    """Both services; `do` runs the steps one after the other, or at the same time."""

    do: Steps

    def run(self) -> Sample:
        """Start both until they answer, then stop them."""
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


def _polling_often(run: Callable[[], Sample]) -> Callable[[], Sample]:
    def run_so() -> Sample:
        config = _settings()
        before, config.sleep_time = config.sleep_time, INTERVAL_S
        try:
            return run()
        finally:
            config.sleep_time = before

    return run_so


def _settings() -> Any:
    """The configuration of testcontainers, which reads the environment on import."""
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    if (host := daemon.configured_host()) is not None:
        os.environ["DOCKER_HOST"] = host
    from testcontainers.core.config import testcontainers_config

    return testcontainers_config


def _postgres() -> Any:
    """A PostgreSQL that answers."""
    _settings()
    from testcontainers.community.postgres import PostgresContainer

    made = PostgresContainer(images.postgres(), username="postgres", password="any", dbname="postgres", driver=None)
    return _started(made)


def _redis() -> Any:
    """A Redis that answers."""
    _settings()
    from testcontainers.community.redis import RedisContainer

    return _started(RedisContainer(images.redis()))


def _started(container: Any) -> Any:
    """Start the container; stops it when that fails, which testcontainers leaves to its reaper."""
    try:
        return container.with_kwargs(labels=identity.current().labels()).start()
    except BaseException:
        container.stop()
        raise
