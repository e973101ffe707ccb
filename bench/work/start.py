"""A start job, from its entry to its result, against the two Docker calls that it needs."""

import time
from collections.abc import Iterator

from bench.catalogue import Bench
from bench.comparison import WHOLE, Contest, Goal, Sample, Side, timed
from bench.docker import prepared_docker
from bench.work import bare, ours
from bench.work.bare import Bare
from bench.work.ours import Ours
from rtmanager.config.settings import Config

STARTS = 50

#: Runs between two removals of containers: a removal takes longer than a start, and idle engines cost nothing.
CLEARED_AFTER = 20


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    return Bench(
        contests=contests,
        notes={
            "Docker": prepared_docker(),
            "a start": "from before the XADD to the result in an XREAD that waits; nothing else runs on either side "
            f"but at most {CLEARED_AFTER} engines that wait",
            "its reference": "docker.APIClient's create and start with the same options; directory and image are there",
            "PostgreSQL and Redis": "containers on this machine, which sync nothing to the disk",
        },
    )


def contests() -> Iterator[Contest]:
    """One comparison, on real services and with a manager in a process of its own."""
    with ours.running() as manager, Bare(Config.from_environment(manager.here.environment)) as sdk:
        check_same(manager, sdk)
        yield Contest(
            "a start job",
            Side("XADD to result", lambda: _start(manager)),
            [Side("bare create + start", lambda: _launch(manager, sdk))],
            ours.now_and_then(manager.clear, CLEARED_AFTER),
            STARTS,
            {WHOLE: Goal(median=1.08, p95=1.20)},
        )


def check_same(manager: Ours, sdk: Bare) -> None:
    """Raises BenchError unless both sides create the same container."""
    (our_game, their_game), image = ours.new_games(2), manager.here.engine.ref
    containers = manager.start([our_game])[our_game], bare.launch(sdk.client, sdk.wanted(their_game, image))
    bare.check_same(*(sdk.client.inspect_container(each) for each in containers))
    manager.clear()


def _start(manager: Ours) -> Sample:
    (game_id,) = ours.new_games(1)
    began = time.perf_counter()
    container_id = manager.start([game_id])[game_id]
    took = time.perf_counter() - began
    ours.wait_for_engine(manager.here.network.client, container_id)
    return {WHOLE: took}


def _launch(manager: Ours, sdk: Bare) -> Sample:
    (game_id,) = ours.new_games(1)
    wanted = sdk.wanted(game_id, manager.here.engine.ref)
    sample = timed(lambda: bare.launch(sdk.client, wanted))()
    ours.wait_for_engine(sdk.client, wanted.name)
    return sample
