"""PostgreSQL and Redis together: both start at the same time, so both cost the time of the slower one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from harness import postgres, redis
from harness.postgres import Postgres
from harness.redis import Redis


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
