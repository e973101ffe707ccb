"""The whole way of a burst in a manager's process: every game that crashed is told of on Redis.

Each needs a look at its record and its container, the end of its log, and a transaction; so the way takes as long as
there are crashes. That no event is lost meanwhile is what the listener's thread has to see to, among all the others.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from docker import APIClient

from bench import processes
from bench.errors import BenchError
from bench.figures import percentile
from bench.measure import Measure
from bench.synthetic import games, platform
from bench.synthetic.platform import Platform
from harness.errors import WaitFailed
from harness.waiting import wait_until

CRASHES = 500
#: Docker repeats nothing; but a burst as long as the other side's, with crashes that one can wait for, has to.
TIMES = 10

#: What is not told after so many seconds is not told at all.
TOLD_S = 60.0

STREAM = "runtime:health_events"


def measures() -> Iterator[Measure]:
    """Of one burst."""
    with platform.running(CRASHES) as here, here.manager(platform.NOTHING_PERIODIC) as process:
        process.wait_until_ready()
        processes.wait_until_at_rest(process.pid)
        lost = _burst(here.docker_host)
        late_ms = sorted(_late_ms(entry_id, event) for entry_id, event in _told(here))
        yield Measure(
            f"lost of {CRASHES * TIMES:,} events in a manager that sees to {CRASHES} crashes", lost, "", at_most=0
        )
        yield Measure(
            f"{CRASHES} crashes at once to their entries on health_events, p50", percentile(late_ms, 50), "ms"
        )
        yield Measure(
            f"{CRASHES} crashes at once to their entries on health_events, p99", percentile(late_ms, 99), "ms"
        )


def _burst(docker_host: str) -> int:
    """Let it happen; how many events the daemon could not get rid of."""
    with closing(APIClient(base_url=docker_host, version="auto")) as daemon:
        daemon.post(daemon.base_url + f"/deaths?count={CRASHES}&times={TIMES}").raise_for_status()
        return int(daemon.info()["LostEvents"])


def _told(here: Platform) -> list[tuple[str, Mapping[str, Any]]]:
    """The entries; raises BenchError unless there is one for each crash, and no other."""
    with here.redis.client() as redis:
        try:
            wait_until(f"{CRASHES} entries", lambda: redis.xlen(STREAM) >= CRASHES, timeout_s=TOLD_S, interval_s=0.1)
        except WaitFailed as failure:
            raise BenchError(str(failure)) from None
        told: Any = redis.xrange(STREAM)
    what = [(event["event_type"], event["game_id"]) for _, event in told]
    if sorted(what) != [("container_exited", game_id) for game_id in games.ids(CRASHES)]:
        raise BenchError(f"{len(what)} entries, some of which tell of something else than the {CRASHES} crashes")
    return list(told)


def _late_ms(entry_id: str, event: Mapping[str, str]) -> float:
    """From the crash, as the daemon says, to the entry, by Redis's clock, which is this machine's."""
    return float(int(entry_id.partition("-")[0]) - int(event["occurred_at_ms"]))
