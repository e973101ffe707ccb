"""PostgreSQL and Redis together: both start at the same time, so both cost the time of the slower one."""

import atexit
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

from harness import ending, postgres, redis, timing
from harness.postgres import Database, Layout, Postgres
from harness.redis import Redis


@dataclass(frozen=True)
class Services:
    """What the tests of one process share: `database` is theirs alone, and emptied between tests."""

    postgres: Postgres
    redis: Redis
    database: Database

    @timing.span("emptying PostgreSQL and Redis")
    def empty(self) -> None:
        """Forget everything: rows and streams."""
        self.database.empty()
        self.redis.flush()


@contextmanager
def running() -> Iterator[tuple[Postgres, Redis]]:
    """Both, answering; taken away at the end, also when only one of them came up."""
    with ExitStack() as stack:
        yield _both(stack)


@cache
def shared(layout: Layout = postgres.RUNTIME_MANAGER) -> Services:
    """The services of this process, started at the first call; `ending` takes them away when the process ends.

    Two layouts share the servers, and have a database each.
    """
    server, store = servers()
    return Services(server, store, server.create_database(layout))


@cache
@timing.span("starting PostgreSQL and Redis")
def servers() -> tuple[Postgres, Redis]:
    """The servers of this process, started at the first call."""
    ending.leave_nothing()
    # Never left: it is the process's labels by which they are found at its end, also by a process that comes later.
    server, store = _both(ExitStack())
    atexit.register(server.kept.close)  # runs before `ending`, which was registered earlier
    return server, store


def _both(stack: ExitStack) -> tuple[Postgres, Redis]:
    """Start both at the same time; `stack` then knows how to close those that came up, also when one did not."""
    with ThreadPoolExecutor(2) as threads:
        starting = threads.submit(postgres.start), threads.submit(redis.start)
    failures = []
    for each in starting:
        if error := each.exception():
            failures.append(error)
        else:
            stack.callback(each.result().close)
    if failures:
        raise failures[0]
    return starting[0].result(), starting[1].result()
