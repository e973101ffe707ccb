"""Compares single records read by sixteen clients, and the whole list page by page."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from bench import child
from bench.comparison import WHOLE, Contest, Goal, Sample, Side
from bench.errors import BenchError
from bench.figures import percentile
from bench.rest import games, pages, readers
from bench.rest.servers import Server
from bench.rest.wire import RUNTIMES
from harness.rtm import manager, stack
from rtmanager.config.dsn import to_conninfo

CLIENTS = 16
READS = 1500
READ_ROUNDS = 12
LIST_ROUNDS = 8

ALL = "all requests"
P99 = "99 of 100 requests"
#: The default page size, and the largest.
PAGES = (100, 1000)

#: Characters shown on either side of a difference.
_AROUND = 60

#: Highest ratio of the times: one and a half times the rate.
FASTER = 1 / 1.5


def contests() -> Iterator[Contest]:
    """The comparisons on one PostgreSQL, with both servers up; each is idle while the other is measured."""
    with both_servers() as servers:
        check_that_they_agree(servers)
        yield Contest(
            f"a record, read by {CLIENTS} clients",
            *_sides(servers, _one_by_one),
            rounds=READ_ROUNDS,
            goals={ALL: Goal(median=FASTER), P99: Goal(median=1.0)},
            amount=READS,
            amount_of=(ALL,),
        )
        for limit in PAGES:
            yield Contest(
                f"{games.GAMES:,} records in pages of {limit:,}",
                *_sides(servers, partial(_listed, limit=limit)),
                rounds=LIST_ROUNDS,
                goals={WHOLE: Goal(median=FASTER)},
                amount=games.GAMES,
                amount_of=(WHOLE,),
            )


@contextmanager
def both_servers() -> Iterator[Sequence[Server]]:
    """Run the manager and the reference on one database with the games."""
    with (
        stack.running("bench") as here,
        manager.start(here.environment, here.state_root.logs / "manager.log") as process,
    ):
        process.wait_until_ready()
        with here.database.connect() as connection:
            games.fill(connection)
        conninfo = to_conninfo(here.database.dsn, statement_timeout_ms=5000)
        with child.running("bench.rest.reference", conninfo) as line:
            port, pid = map(int, line.split())
            yield [
                Server("the manager", int(process.address.rpartition(":")[2]), process.pid),
                Server("FastAPI on uvicorn", port, pid),
            ]


def check_that_they_agree(servers: Sequence[Server]) -> None:
    """Raises BenchError unless all servers answer the same, for two records and a list's second page."""
    first = pages.content(servers[0].port, f"{RUNTIMES}?limit=100")
    assert isinstance(first, dict)
    for path in (f"/{games.game_id(4711)}", f"/{games.game_id(4712)}", f"?limit=100&cursor={first['next_cursor']}"):
        ours, *others = (json.dumps(pages.content(server.port, RUNTIMES + path)) for server in servers)
        for theirs in others:
            if theirs != ours:
                raise BenchError(f"the servers differ in {RUNTIMES}{path}: {difference(ours, theirs)}")


def difference(one: str, other: str) -> str:
    """An excerpt of both texts around their first difference."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    begin = max(0, sum(1 for _ in same) - _AROUND)
    return f"…{one[begin : begin + 2 * _AROUND]}… and …{other[begin : begin + 2 * _AROUND]}…"


def _sides(servers: Sequence[Server], run: Callable[[Server], Sample]) -> tuple[Side, Sequence[Side]]:
    """Our side, and the others."""
    ours, *others = (Side(server.name, partial(server.loaded, partial(run, server))) for server in servers)
    return ours, others


_seeds = itertools.count()


def _one_by_one(server: Server) -> Sample:
    reading = readers.read(server.port, clients=CLIENTS, reads=READS, seed=next(_seeds))
    return {ALL: reading.whole_s, P99: percentile(reading.each_s, 99)}


def _listed(server: Server, limit: int) -> Sample:
    return {WHOLE: pages.go_through(server.port, limit)}
