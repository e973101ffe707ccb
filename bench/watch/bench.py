"""The bench of watching: probing, reconciling, and how soon an exit is told."""

from collections.abc import Iterator

from bench.catalogue import Bench
from bench.contest import Contest
from bench.docker import prepared_docker
from bench.watch import exits, probing, reconciling


def bench() -> Bench:
    """The bench; its conditions are looked up now, and the images made if they are missing."""
    engine = prepared_docker()
    return Bench(
        contests=_contests,
        notes={
            "Docker, for the exits": engine,
            "engines that are probed": f"one process, an address on loopback each; {probing.WIDTH} are asked at once",
            "containers that are listed": "a daemon that says the same text every time; records in memory",
            "an exit": "from FinishedAt to the id of the entry, which Redis cuts down to a whole millisecond",
        },
    )


def _contests() -> Iterator[Contest]:
    # Exits first: the kernel remembers the connections of the probes for two minutes, and Docker goes through all that
    # it remembers whenever a container ends.
    yield from exits.contests()
    yield from reconciling.contests()
    yield from probing.contests()
