"""PostgreSQL and Redis: from nothing to both answering, gone again, and emptied between two tests."""

import time

from bench.contest import Contest, Sample, Side, timed
from bench.harness import testcontainers
from bench.harness.filled import Filled
from harness.fixtures import services


def starting() -> Contest:
    """Starting and removing both."""
    return Contest("PostgreSQL and Redis", Side("harness", _start_and_remove), testcontainers.sides())


def emptying(filled: Filled) -> Contest:
    """What every test pays for finding both empty."""
    return Contest(
        "rows and streams of a test",
        Side("harness", timed(filled.services.empty)),
        [Side("TRUNCATE and FLUSHALL on new connections", timed(filled.truncate))],
        before=filled.fill,
    )


def _start_and_remove() -> Sample:
    began = time.perf_counter()
    with services.running() as (postgres, redis):
        with postgres.maintain() as connection:
            connection.execute("SELECT 1")
        with redis.client() as client:
            client.ping()
        ready = time.perf_counter()
    return {"both answer": ready - began, "both gone": time.perf_counter() - ready}
