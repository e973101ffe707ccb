"""PostgreSQL and Redis together: both start at the same time, so both cost the time of the slower one."""

import atexit
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

from harness import postgres, redis
from harness.postgres import Database, Layout, Postgres
from harness.redis import Redis


@dataclass(frozen=True)
class Services:
    """What the tests of one process share: `database` is theirs alone, and emptied between tests."""

    postgres: Postgres
    redis: Redis
    database: Database

    def empty(self) -> None:
        """Forget everything: rows and streams."""
        self.database.empty()
        self.redis.flush()


@contextmanager
def running() -> Iterator[tuple[Postgres, Redis]]:
    """Both, answering; taken away at the end, also when only one of them came up."""
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        starting = threads.submit(postgres.start), threads.submit(redis.start)
        failures = []
        for each in starting:
            if error := each.exception():
                failures.append(error)
            else:
                stack.callback(each.result().close)
        if failures:
            raise failures[0]
        yield starting[0].result(), starting[1].result()


@cache
def shared(layout: Layout = postgres.RUNTIME_MANAGER) -> Services:
    """The services of this process, started at the first call and taken away when the process ends.

    Two layouts share the servers, and have a database each.
    """
    server, store = _servers()
    return Services(server, store, server.create_database(layout))


@cache
def _servers() -> tuple[Postgres, Redis]:
    cleanup = ExitStack()
    atexit.register(cleanup.close)
    return cleanup.enter_context(running())
