"""PostgreSQL and Redis: from nothing to both answering, gone again, and emptied between two tests."""

import time
from concurrent.futures import ThreadPoolExecutor

from bench.contest import Contest, Sample, Side, timed
from bench.harness import testcontainers
from bench.harness.filled import Filled
from harness import images
from harness.fixtures import container, services

#: After so many seconds nothing of the side before is still being taken apart.
SETTLE_S = 0.5


def starting() -> Contest:
    """Starting and removing both."""
    ours = Side("harness", _start_and_remove)
    floor = Side("Docker's own work: two containers that do nothing, side by side", _bare_containers)
    return Contest("PostgreSQL and Redis", ours, [*testcontainers.sides(), floor], before=_settle)


def emptying(filled: Filled) -> Contest:
    """What every test pays for finding both empty."""
    return Contest(
        "rows and streams of a test",
        Side("harness", timed(filled.services.empty)),
        [Side("TRUNCATE and FLUSHALL on new connections", timed(filled.truncate))],
        before=filled.fill,
    )


def _settle() -> None:
    """The kernel takes network namespaces apart when their container is long gone: not at the next side's cost."""
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
