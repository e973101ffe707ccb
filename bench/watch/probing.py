"""Thousands of engines asked at once, against a client of a few lines that does nothing else.

That client is what one writes first: `asyncio.open_connection`, a line out, a head in, a semaphore. It keeps its
event loop, allows as many questions at once and gives up after the same time, but knows neither what a good answer is
nor whose fault a failure was.
"""

import asyncio
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from bench.contest import Contest, Sample, Side
from bench.errors import BenchError
from bench.watch import engines
from bench.watch.clocks import on_both_clocks
from rtmanager.adapters.probing import MOST_PARALLEL, EngineProbes
from rtmanager.workers.watching import Target

#: Questions under way at once, on both sides.
WIDTH = MOST_PARALLEL

#: The service's own default.
TIMEOUT_S = 2.0

#: Descriptors that are wanted: the questions', and some for the rest.
DESCRIPTORS = WIDTH + 500

#: Rounds in which everybody waits for the timeout; the longer one has five times as many engines.
HANGING_ROUNDS = 5
LONG_ROUNDS = 1

#: How many engines were asked, and how many of them are healthy.
Count = tuple[int, int]

Ask = Callable[[Sequence[Target]], Count]


def contests() -> Iterator[Contest]:
    """All healthy, all hanging, and many more hanging than may be asked at once."""
    allow_descriptors(DESCRIPTORS)
    with engines.running() as there, closing(EngineProbes(parallel=WIDTH)) as probes, closing(PlainClient()) as plain:

        def contest(title: str, targets: Sequence[Target], healthy: int, rounds: int | None = None) -> Contest:
            expected = len(targets), healthy
            ours = Side("the prober's questions", _run(lambda each: _ours(probes, each), targets, expected))
            theirs = Side("a plain asyncio client", _run(plain.ask, targets, expected))
            return Contest(title, ours, [theirs], rounds=rounds)

        yield contest("2,000 engines, all healthy", there.healthy(2000), 2000)
        yield contest("2,000 engines, all hanging", there.hanging(2000), 0, HANGING_ROUNDS)
        yield contest("10,000 engines, all hanging", there.hanging(10_000), 0, LONG_ROUNDS)


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit of this process and its children; raises BenchError when the hard one is below."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchError(f"{wanted} descriptors are needed, the hard limit is {hard}: raise it with ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class PlainClient:
    """Asks and reads a head, no more."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def ask(self, targets: Sequence[Target]) -> Count:
        """Ask all of them."""
        return self._loop.run_until_complete(_all_heads(targets))

    def close(self) -> None:
        """Give the loop back."""
        self._loop.close()


async def _all_heads(targets: Sequence[Target]) -> Count:
    at_once = asyncio.Semaphore(WIDTH)
    heads = await asyncio.gather(*(_head(target, at_once) for target in targets))
    return len(heads), sum(head.startswith(b"HTTP/1.1 200 ") for head in heads)


async def _head(target: Target, at_once: asyncio.Semaphore) -> bytes:
    async with at_once:
        writer = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await asyncio.open_connection(target.host, target.port)
                writer.write(f"GET /healthz HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n\r\n".encode())
                return await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return b""
        finally:
            if writer is not None:
                writer.close()


def _ours(probes: EngineProbes, targets: Sequence[Target]) -> Count:
    answers = probes.probe(targets, TIMEOUT_S)
    return len(answers), sum(answer.good for answer in answers.values())


def _run(ask: Ask, targets: Sequence[Target], expected: Count) -> Callable[[], Sample]:
    """The `run` of a side; raises BenchError when the engines were not found as they are."""

    def run() -> Sample:
        sample, found = on_both_clocks(lambda: ask(targets))
        if found != expected:
            raise BenchError(f"{found} engines were asked and found healthy, but there are {expected}")
        return sample

    return run
