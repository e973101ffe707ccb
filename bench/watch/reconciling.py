"""One pass of the reconciler over many games that run as they should, against the list call that it has to make.

The references are floors: the same call by our adapter, which reads every container into a value, and by the SDK,
which stops at the JSON. What the pass takes beyond the first is the records and the comparing.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

from docker import APIClient

from bench.contest import Contest, Sample, Side
from bench.errors import BenchError
from bench.watch import child, crowd
from bench.watch.clocks import on_both_clocks
from rtmanager.adapters.docker.runtime import DockerRuntime
from rtmanager.testing.findings import MemoryFindings
from rtmanager.testing.store import MemoryStore
from rtmanager.workers.attention import Attention, Hint
from rtmanager.workers.reconcile import Reconciler
from rtmanager.workers.strays import Strays

GAMES = 10_000


def contests() -> Iterator[Contest]:
    """A pass in which everything agrees, as nearly every pass finds it."""
    with (
        child.running("bench.watch.crowded_daemon", str(GAMES)) as host,
        closing(DockerRuntime(host)) as runtime,
        closing(APIClient(base_url=host, version="auto")) as sdk,
    ):
        one_pass = reconciler(runtime, GAMES).step
        yield Contest(
            f"one pass over {GAMES:,} records and containers",
            Side("the reconciler", counted(one_pass, lambda: int(sdk.info()["Lists"]))),
            [
                Side("the list call by our adapter", lambda: on_both_clocks(runtime.list_games)[0]),
                Side("the list call by the SDK", lambda: on_both_clocks(lambda: sdk.containers(all=True))[0]),
            ],
        )


def counted(one_pass: Callable[[], object], lists: Callable[[], int]) -> Callable[[], Sample]:
    """The `run` of the pass; raises BenchError unless it asks for the list exactly once."""

    def run() -> Sample:
        before = lists()
        sample, _ = on_both_clocks(one_pass)
        asked = lists() - before
        if asked != 1:
            raise BenchError(f"one pass asked Docker for the list {asked} times")
        return sample

    return run


def reconciler(runtime: DockerRuntime, games: int) -> Reconciler:
    """Over records that agree with the containers of as many games."""
    logger = logging.getLogger("bench")
    store = MemoryStore(_now)
    for record in crowd.records(games):
        store.put_record(record)
    return Reconciler(
        records=store.records,
        findings=MemoryFindings(store),
        runtime=runtime,
        attention=_Nobody(logger),
        strays=Strays(logger),
        house=crowd.HOUSE,
        clock=_now,
        logger=logger,
    )


class _Nobody(Attention):
    """Nobody should have to be looked at: a game that differs would make this another measurement."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(lambda *_: True, logger=logger)

    def look(self, game_id: str, hint: Hint | None = None, *, delay_s: float = 0.0) -> None:
        raise BenchError(f"game {game_id} differs from its record")


def _now() -> datetime:
    return datetime.now(UTC)
