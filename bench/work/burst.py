"""Sixty start jobs at once, against the bare SDK with its best number of threads."""

import time
from collections.abc import Iterator

from bench.catalogue import Bench
from bench.comparison import WHOLE, Contest, Goal, Sample, Side, timed
from bench.docker import prepared_docker
from bench.errors import BenchError
from bench.work import ours
from bench.work.bare import Bare
from bench.work.ours import Ours
from bench.work.start import check_same
from rtmanager.config.settings import Config

JOBS = 60
#: Few: a round takes most of a minute with its cleanup, and averages sixty starts.
ROUNDS = 2

#: The SDK's numbers of threads, and the containers of each trial; two threads take a third longer.
WIDTHS = (4, 8)
TRIED = 12


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    notes = {
        "Docker": prepared_docker(),
        "the burst": f"{JOBS} entries in one pipeline, and a manager with its defaults",
    }
    return Bench(contests=lambda: _contests(notes), notes=notes)


def _contests(notes: dict[str, str]) -> Iterator[Contest]:
    with ours.running() as manager, Bare(Config.from_environment(manager.here.environment)) as sdk:
        check_same(manager, sdk)
        rates = {width: TRIED / _tried(manager, sdk, width) for width in WIDTHS}
        width = max(rates, key=lambda width: rates[width])
        tried = ", ".join(f"{rate:.1f}/s {width} at once" for width, rate in rates.items())
        notes["its reference"] = f"threads with a client each, the best of what {TRIED} starts showed: {tried}"
        yield Contest(
            f"{JOBS} start jobs at once",
            Side("XADD to the last result", lambda: _start(manager)),
            [Side(f"bare create + start, {width} at once", lambda: _launch(manager, sdk, JOBS, width))],
            manager.clear,
            ROUNDS,
            {WHOLE: Goal(median=1.08)},
            JOBS,
            warm_up=False,
        )


def _tried(manager: Ours, sdk: Bare, width: int) -> float:
    took = _launch(manager, sdk, TRIED, width)[WHOLE]
    manager.clear()
    return took


def _start(manager: Ours) -> Sample:
    games = ours.new_games(JOBS)
    began = time.perf_counter()
    manager.start(games)
    took = time.perf_counter() - began
    _check_running(manager, JOBS)
    return {WHOLE: took}


def _launch(manager: Ours, sdk: Bare, count: int, width: int) -> Sample:
    wanted = [sdk.wanted(game_id, manager.here.engine.ref) for game_id in ours.new_games(count)]
    sdk.connect(width)
    sample = timed(lambda: sdk.launch_all(wanted, width))()
    _check_running(manager, count)
    return sample


def _check_running(manager: Ours, count: int) -> None:
    network = manager.here.network
    running = network.client.containers(filters={"network": [network.network_id]})
    if len(running) != count:
        raise BenchError(f"{len(running)} containers run where {count} were started")
