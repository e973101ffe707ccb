"""The growth bench: the same work with ten, a hundred, a thousand and ten thousand games.

Each size has its own services, filled with records of running games and three operations of each in the history.
Work on all games is divided by the number of games; work on one game is not. Neither should grow.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from bench import processes
from bench.calibration import LOOPBACK
from bench.catalogue import Bench
from bench.docker import prepared_docker
from bench.errors import BenchError
from bench.growth import requests, statements
from bench.measure import Measure
from bench.synthetic import games, platform
from bench.synthetic.platform import Platform
from bench.watch.probing import DESCRIPTORS, PATIENT_S, WIDTH, allow_descriptors
from bench.watch.reconciling import drift_scan
from rtmanager.adapters.docker.runtime import DockerRuntime
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.findings import PostgresFindings
from rtmanager.adapters.probing import EngineProbes

SIZES = (10, 100, 1_000, 10_000)

#: Costs that may grow with the games: a start makes one pass over all of them, and holds the list in memory.
START, RSS = "start-up", "RSS"
GROWING = (START, RSS)
#: Largest factor of any other cost over its value with the fewest games: ten thousand games do not fit the processor's
#: caches. A cost that grows with the games would have a factor of a thousand.
NOISE = 2.0

#: Work on all games is repeated until it has processed about this many games.
GONE_THROUGH = 3_000


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    prepared_docker()
    return Bench(
        measures=_measures,
        leans_on=(LOOPBACK,),
        notes={
            "games": "they run: a record in a real PostgreSQL and three operations in the history, a container that a "
            "daemon plays, an engine on loopback",
            "a replay": f"a start of a game that runs, one of {requests.JOBS} at once, from its entry to its result",
        },
    )


def _measures() -> Iterator[Measure]:
    allow_descriptors(DESCRIPTORS)
    found: list[Measure] = []
    for size in SIZES:
        with platform.running(size) as here:
            with here.database.connect() as connection:
                games.fill_history(connection)
            found += [*_of_a_process(here, size), *_of_a_worker(here, size)]
            with here.database.connect() as connection:
                whole = list(statements.without_index(connection))
    yield from compared(found)
    yield Measure("statements that no index serves", len(whole), "", at_most=0, games=size)


def compared(found: Sequence[Measure]) -> Iterator[Measure]:
    """The measures by cost; those that should not grow are limited by their value with the fewest games."""
    for what in dict.fromkeys(each.what for each in found):
        first, *others = (each for each in found if each.what == what)
        yield first
        for each in others:
            yield each if what in GROWING else replace(each, at_most=first.value * NOISE)


def _of_a_process(here: Platform, size: int) -> Iterator[Measure]:
    ids = games.ids(size)
    began = time.perf_counter()
    with here.manager(platform.NOTHING_PERIODIC) as process:
        process.wait_until_ready()
        yield Measure(START, (time.perf_counter() - began) * 1000, "ms", games=size)
        processes.wait_until_at_rest(process.pid)  # the first round of probes and inspections is not delayed
        yield Measure("GET of one record", requests.read_s(process.address, ids) * 1000, "ms", games=size)
        yield Measure("list, by record", requests.list_s(process.address, ids) / size * 1e6, "µs", games=size)
        yield Measure("a replay", requests.replays_s(here, ids) / requests.JOBS * 1000, "ms", games=size)
        yield Measure(RSS, processes.rss_mb(process.pid), "MB", games=size)


def _of_a_worker(here: Platform, size: int) -> Iterator[Measure]:
    with (
        closing(Database(here.database.dsn, max_connections=4, silence_s=8)) as database,
        closing(DockerRuntime(here.docker_host)) as runtime,
        closing(EngineProbes(parallel=WIDTH)) as probes,
    ):
        database.open()
        one_pass = drift_scan(PostgresFindings(database, 1), runtime).step
        targets = here.engines.healthy(size)

        def cycle() -> None:
            good = sum(answer.good for answer in probes.probe(targets, PATIENT_S).values())
            if good != size:
                raise BenchError(f"{good} engines are found healthy, but there are {size}")

        yield Measure("CPU of a pass of the reconciler, by game", _by_game_us(one_pass, size), "µs", games=size)
        yield Measure("CPU of a cycle of probes, by game", _by_game_us(cycle, size), "µs", games=size)


def _by_game_us(work: Callable[[], object], size: int) -> float:
    """Microseconds of processor time of one call for each game: the minimum, because noise only adds time."""
    taken = []
    for _ in range(max(2, min(50, GONE_THROUGH // size))):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken) / size * 1e6
