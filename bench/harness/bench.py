"""The harness bench: starting and emptying services, and the cost of a whole test."""

from collections.abc import Iterator

from bench.calibration import DOCKER
from bench.catalogue import Bench
from bench.comparison import Contest
from bench.docker import prepared_docker
from bench.harness import services, testcontainers, whole_test
from bench.harness.filled import Filled
from harness import images


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    engine = prepared_docker()
    emptying = services.Emptying()
    return Bench(
        contests=lambda: _contests(emptying),
        measures=emptying.measures,
        leans_on=(DOCKER,),
        notes={
            "Docker": engine,
            "images of both sides": f"{images.postgres()} and {images.redis()}, present",
            "compared with": testcontainers.version(),
        },
    )


def _contests(emptying: services.Emptying) -> Iterator[Contest]:
    yield services.starting()
    yield emptying.contest(Filled.start())
    yield from whole_test.contests()
