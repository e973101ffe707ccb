"""Thousands of engines asked at once, against a client of a few lines that does nothing else.

That client is what one writes first: `asyncio.open_connection`, a line out, a head in, a semaphore. It keeps its
event loop, allows as many questions at once and gives up after the same time, but knows neither what a good answer is
nor whose fault a failure was.
"""

import asyncio
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from bench.comparison import Contest, Goal, Sample, Side
from bench.errors import BenchError
from bench.measure import Measure
from bench.synthetic import engines
from bench.watch.clocks import on_both_clocks
from rtmanager.adapters.probing import MOST_PARALLEL, EngineProbes
from rtmanager.ports.watching import ProbeTarget

#: Questions under way at once, on both sides.
WIDTH = MOST_PARALLEL

#: How long an engine may take: as by default where it is waited for, longer where all answer, for the other side may
#: share the processor with something else.
TIMEOUT_S, PATIENT_S = 2.0, 10.0

#: Descriptors that are wanted: the questions', and some for the rest.
DESCRIPTORS = WIDTH + 500

#: Rounds of 2,000 engines that answer, and of any that take long: those that hang take their timeout, or five times it.
ROUNDS, LONG_ROUNDS = 5, 1

GOAL = Goal(median=1.5)

#: The service's own default: within it, a cycle has to be over.
INTERVAL_S = 15.0

#: How many engines were asked, and how many of them are healthy.
Count = tuple[int, int]

Ask = Callable[[Sequence[ProbeTarget], float], Count]


@dataclass
class Probing:
    """The contests, and then how long a cycle took in each."""

    _cycles: dict[str, float] = field(default_factory=dict)

    def contests(self) -> Iterator[Contest]:
        """All healthy, all hanging, and more of both than may be asked at once."""
        allow_descriptors(DESCRIPTORS)
        with (
            engines.running() as there,
            closing(EngineProbes(parallel=WIDTH)) as probes,
            closing(PlainClient()) as plain,
        ):

            def contest(
                title: str, targets: Sequence[ProbeTarget], healthy: int, rounds: int, *, warm_up: bool = False
            ) -> Contest:
                expected = len(targets), healthy
                ours = _run(lambda *asked: _ours(probes, *asked), targets, expected)
                theirs = _run(plain.ask, targets, expected)
                return Contest(
                    title,
                    Side("the prober's questions", lambda: self._noted(title, ours())),
                    [Side("a plain asyncio client", theirs)],
                    rounds=rounds,
                    warm_up=warm_up,
                    goals={"CPU": GOAL},
                )

            yield contest("2,000 engines, all healthy", there.healthy(2000), 2000, ROUNDS, warm_up=True)
            yield contest("10,000 engines, all healthy", there.healthy(10_000), 10_000, LONG_ROUNDS)
            yield contest("2,000 engines, all hanging", there.hanging(2000), 0, LONG_ROUNDS)
            yield contest("10,000 engines, all hanging", there.hanging(10_000), 0, LONG_ROUNDS)

    def measures(self) -> Iterator[Measure]:
        """The longest cycle of each contest."""
        for title, seconds in self._cycles.items():
            yield Measure(f"a cycle over {title}, at most", seconds, "s", at_most=INTERVAL_S)

    def _noted(self, title: str, sample: Sample) -> Sample:
        self._cycles[title] = max(sample["wall"], self._cycles.get(title, 0.0))
        return sample


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

    def ask(self, targets: Sequence[ProbeTarget], timeout_s: float) -> Count:
        """Ask all of them."""
        return self._loop.run_until_complete(_all_heads(targets, timeout_s))

    def close(self) -> None:
        """Give the loop back."""
        self._loop.close()


async def _all_heads(targets: Sequence[ProbeTarget], timeout_s: float) -> Count:
    at_once = asyncio.Semaphore(WIDTH)
    heads = await asyncio.gather(*(_head(target, timeout_s, at_once) for target in targets))
    return len(heads), sum(head.startswith(b"HTTP/1.1 200 ") for head in heads)


async def _head(target: ProbeTarget, timeout_s: float, at_once: asyncio.Semaphore) -> bytes:
    async with at_once:
        writer = None
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(target.host, target.port)
                writer.write(f"GET /healthz HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n\r\n".encode())
                return await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return b""
        finally:
            if writer is not None:
                writer.close()


def _ours(probes: EngineProbes, targets: Sequence[ProbeTarget], timeout_s: float) -> Count:
    answers = probes.probe(targets, timeout_s)
    return len(answers), sum(answer.good for answer in answers.values())


def _run(ask: Ask, targets: Sequence[ProbeTarget], expected: Count) -> Callable[[], Sample]:
    """The `run` of a side; raises BenchError when the engines were not found as they are."""

    def run() -> Sample:
        timeout_s = PATIENT_S if expected[1] else TIMEOUT_S
        sample, found = on_both_clocks(lambda: ask(targets, timeout_s))
        if found != expected:
            raise BenchError(f"{found} engines were asked and found healthy, but there are {expected}")
        return sample

    return run
