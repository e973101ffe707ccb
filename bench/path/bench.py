"""The bench of the path: ten thousand jobs that need no Docker, from the stream of jobs to that of results.

The jobs are stops of games that were removed long ago, one of each game, so each has its result, its log row and no
more. The reference is what one would write first: read a stream, insert a row, add an entry, commit, job by job; it
knows no second instance, no order of two streams, no log, and does a job twice when it is killed.

Held on two settings of the one server: as tests have it, where a commit costs nothing, and as a platform has it, where
a commit is on the disk.
"""

import time
from collections.abc import Callable, Iterator

from bench.calibration import LOOPBACK
from bench.catalogue import Bench
from bench.comparison import WHOLE, Contest, Goal, Sample, Side
from bench.docker import prepared_docker
from bench.path.bare_loop import BareLoop
from bench.path.jobs import Jobs
from harness.rtm import manager, stack
from harness.rtm.stack import Stack

JOBS = 10_000
#: So many are done by both sides before, and do not count: connections are made, and what comes first is loaded.
FIRST = 500

#: And how many rounds are held with each: one takes twenty seconds, and is an average of ten thousand.
_SETTINGS = {
    "commits that cost nothing": ({"fsync": "off", "synchronous_commit": "off"}, 2),
    "commits on the disk": ({"fsync": "on", "synchronous_commit": "on"}, 1),
}


def bench() -> Bench:
    """The bench; its conditions are looked up now, and the images made if they are missing."""
    return Bench(
        contests=_contests,
        leans_on=(LOOPBACK,),
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
