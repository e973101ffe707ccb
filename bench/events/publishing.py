"""A burst in a whole manager: each crashed game needs an entry on `runtime:health_events`.

Each crash needs a read of its record, an inspect, the end of its log, and a transaction. The duration therefore grows
with the crashes. Meanwhile the listener's thread competes with all others, and must not lose an event.
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
#: Docker repeats no event. Repeating them makes the burst as long as the listener's, with few enough crashes to await.
TIMES = 10

#: Seconds to wait for all entries.
PUBLISHED_S = 60.0

STREAM = "runtime:health_events"


def measures() -> Iterator[Measure]:
    """The lost events, and the delay of the entries, of one burst."""
    with platform.running(CRASHES) as here, here.manager(platform.NOTHING_PERIODIC) as process:
        process.wait_until_ready()
        processes.wait_until_at_rest(process.pid)
        lost = _burst(here.docker_host)
        late_ms = sorted(_late_ms(entry_id, event) for entry_id, event in _published(here))
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
    """Crash the games; returns the number of events that the daemon lost."""
    with closing(APIClient(base_url=docker_host, version="auto")) as daemon:
        daemon.post(daemon.base_url + f"/deaths?count={CRASHES}&times={TIMES}").raise_for_status()
        return int(daemon.info()["LostEvents"])


def _published(here: Platform) -> list[tuple[str, Mapping[str, Any]]]:
    """The entries on the stream; raises BenchError unless there is exactly one for each crash."""
    with here.redis.client() as redis:
        try:
            wait_until(
                f"{CRASHES} entries", lambda: redis.xlen(STREAM) >= CRASHES, timeout_s=PUBLISHED_S, interval_s=0.1
            )
        except WaitFailed as failure:
            raise BenchError(str(failure)) from None
        entries: Any = redis.xrange(STREAM)
    what = [(event["event_type"], event["game_id"]) for _, event in entries]
    if sorted(what) != [("container_exited", game_id) for game_id in games.ids(CRASHES)]:
        raise BenchError(f"{len(what)} entries, some of which tell of something else than the {CRASHES} crashes")
    return list(entries)


def _late_ms(entry_id: str, event: Mapping[str, str]) -> float:
    """Milliseconds from the crash by the daemon's clock to the entry by Redis's; both use this machine's clock."""
    return float(int(entry_id.partition("-")[0]) - int(event["occurred_at_ms"]))
