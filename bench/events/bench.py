"""The events bench: a burst read by the listener alone, and the same burst in a whole manager."""

from collections.abc import Iterator

from bench.calibration import LOOPBACK
from bench.catalogue import Bench
from bench.docker import prepared_docker
from bench.events import listening, publishing
from bench.events.listening import Listening
from bench.measure import Measure
from bench.synthetic import published


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    prepared_docker()
    burst = Listening()
    return Bench(
        contests=burst.contests,
        measures=lambda: _measures(burst),
        leans_on=(LOOPBACK,),
        notes={
            "a burst": f"{listening.EVENTS:,} deaths, as fast as a daemon in Python can publish them",
            "that daemon": f"as Docker 20.10: a queue of {published.QUEUE:,} events for each listener, and an event is "
            f"lost when a full one is left full for {published.PATIENCE_S * 1000:g} ms",
            "the whole manager": f"on real PostgreSQL and Redis; {publishing.CRASHES} games that run, each reported to "
            f"have died {publishing.TIMES} times",
        },
    )


def _measures(burst: Listening) -> Iterator[Measure]:
    yield from burst.measures()
    yield from publishing.measures()
