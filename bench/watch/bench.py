"""The watch bench: probing, reconciling, and the delay of a published exit."""

from collections.abc import Iterator

from bench.calibration import LOOPBACK
from bench.catalogue import Bench
from bench.comparison import Contest
from bench.docker import prepared_docker
from bench.watch import exits, probing, real, reconciling
from bench.watch.probing import Probing


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    engine = prepared_docker()
    probes = Probing()
    return Bench(
        contests=lambda: _contests(probes),
        measures=probes.measures,
        leans_on=(LOOPBACK,),
        notes={
            "Docker, for the exits": engine,
            "engines that are probed": f"one process, an address on loopback each; {probing.WIDTH} are asked at once",
            "containers that are listed": "by the thousand from a daemon that says the same text every time, "
            f"{real.CONTAINERS} of a real one; records in a real PostgreSQL",
            "an exit": "from FinishedAt to the id of the entry, which Redis cuts down to a whole millisecond",
        },
    )


def _contests(probes: Probing) -> Iterator[Contest]:
    # Exits first: the kernel keeps the connections of the probes in its tables for two minutes, and Docker scans these
    # tables whenever a container ends.
    yield from exits.contests()
    yield from real.contests()
    yield from reconciling.contests()
    yield from probes.contests()
