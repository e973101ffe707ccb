"""The path bench: ten thousand jobs that need no Docker, from the stream of jobs to that of results.

The jobs are stops of removed games, one of each game, so each has a result and a log row only. The reference is the
simplest loop: read a stream, insert a row, add an entry, commit, job by job. It has no second instance, no order of
two streams and no log, and repeats a job when it is killed.

The bench runs with two settings of one server: as in tests, where a commit does not sync; and as in production,
where a commit is on disk.
"""

import time
from collections.abc import Callable, Iterator

from bench.catalogue import Bench
from bench.comparison import WHOLE, Contest, Goal, Sample, Side
from bench.docker import prepared_docker
from bench.path.bare_loop import BareLoop
from bench.path.jobs import Jobs
from harness.rtm import manager, stack
from harness.rtm.stack import Stack

JOBS = 10_000
#: Uncounted jobs of both sides before the first round: they open connections and load modules.
FIRST = 500

#: Settings of PostgreSQL, and the rounds with each: a round takes twenty seconds, and averages ten thousand jobs.
_SETTINGS = {
    "commits that cost nothing": ({"fsync": "off", "synchronous_commit": "off"}, 2),
    "commits on the disk": ({"fsync": "on", "synchronous_commit": "on"}, 1),
}


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    return Bench(
        contests=_contests,
        notes={
            "Docker": prepared_docker(),
            "a job": f"a stop of a game that was removed; {JOBS:,} at once, one of each game",
            "the bare loop": "one thread, psycopg, redis-py: XREADGROUP of 200, then INSERT, XADD and COMMIT for each",
        },
    )


def _contests() -> Iterator[Contest]:
    with (
        stack.running("bench") as here,
        manager.start(here.environment, here.state_root.logs / "manager.log") as process,
        here.redis.client() as redis,
    ):
        process.wait_until_ready()
        jobs = Jobs(here.database, redis, JOBS)
        jobs.have_removed_games()
        bare = BareLoop(here.database, redis)
        first = Jobs(here.database, redis, FIRST)
        first.do()
        bare.do(first)
        for title, (settings, rounds) in _SETTINGS.items():
            _set(here, settings)
            yield Contest(
                f"{JOBS:,} replays, {title}",
                Side("the manager", lambda: _timed(jobs.do)),
                [Side("a bare loop", lambda: _timed(lambda: bare.do(jobs)))],
                rounds=rounds,
                goals={WHOLE: Goal(median=1 / 0.6, per_second=1000)},
                amount=JOBS,
                warm_up=False,
            )


def _timed(work: Callable[[], None]) -> Sample:
    began = time.perf_counter()
    work()
    return {WHOLE: time.perf_counter() - began}


def _set(here: Stack, settings: dict[str, str]) -> None:
    with here.postgres.maintain() as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = {value}")
        connection.execute("SELECT pg_reload_conf()")
