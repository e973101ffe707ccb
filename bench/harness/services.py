"""PostgreSQL and Redis: time until both answer, time to remove them, and time to empty them between two tests."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.comparison import WHOLE, Contest, Goal, Sample, Side, timed
from bench.figures import percentile
from bench.harness import testcontainers
from bench.harness.filled import Filled
from bench.measure import Measure
from harness import images
from harness.fixtures import container, services
from harness.rtm.database import MIGRATIONS

#: Few, because a round of starts takes ten seconds.
ROUNDS = 4

#: Limit of a reset in milliseconds, p95.
RESET_MS = 15.0

#: Seconds after which Docker and the kernel have removed everything of the previous side.
SETTLE_S = 0.5


def starting() -> Contest:
    """Compare starting and removing both services."""
    ours = Side("harness", _start_and_remove)
    floor = Side("Docker's own work: two containers that do nothing, side by side", _bare_containers)
    return Contest(
        "PostgreSQL and Redis",
        ours,
        [*testcontainers.sides(), floor],
        before=_settle,
        rounds=ROUNDS,
        goals={"both answer": Goal(median=0.25)},
    )


@dataclass
class Emptying:
    """Emptying both services, which every test pays for: the comparison, and our times."""

    _took_s: list[float] = field(default_factory=list)

    def contest(self, filled: Filled) -> Contest:
        """Our reset, which deletes rows, against TRUNCATE and FLUSHALL."""
        ours = timed(lambda: filled.services.empty([MIGRATIONS]))
        return Contest(
            "rows and streams of a test",
            Side("harness", lambda: self._noted(ours())),
            [Side("TRUNCATE and FLUSHALL on new connections", timed(filled.truncate))],
            before=filled.fill,
        )

    def measures(self) -> Iterator[Measure]:
        """The p95 of our reset over the counted rounds."""
        took_ms = percentile(self._took_s[1:], 95) * 1000
        yield Measure("rows and streams of a test emptied, p95", took_ms, "ms", at_most=RESET_MS)

    def _noted(self, sample: Sample) -> Sample:
        self._took_s.append(sample[WHOLE])
        return sample


def _settle() -> None:
    """Wait until the kernel has removed the network namespaces, which it does long after the container is gone."""
    time.sleep(SETTLE_S)


def _start_and_remove() -> Sample:
    began = time.perf_counter()
    with services.running():
        ready = time.perf_counter()
    return {"both answer": ready - began, "both gone": time.perf_counter() - ready}


def _bare_containers() -> Sample:
    image = images.redis()
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(lambda _: container.start(image, entrypoint=["sleep", "60"], network="host"), range(2)))
    ready = time.perf_counter()
    for each in made:
        each.remove()
    return {"both answer": ready - began, "both gone": time.perf_counter() - ready}
