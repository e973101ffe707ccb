"""Probing thousands of engines at once, against a client of a few lines.

That client is the simplest one: `asyncio.open_connection`, one request, one response head, a semaphore. It keeps its
event loop, and has the same parallelism and timeout. It neither validates an answer nor classifies a failure.
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

#: Probes at once, on both sides.
WIDTH = MOST_PARALLEL

#: Timeouts in seconds: the default where engines hang; longer where all answer, because the other side may share the
#: processor with other work.
TIMEOUT_S, PATIENT_S = 2.0, 10.0

#: Descriptors needed: one for each probe, and some for the rest.
DESCRIPTORS = WIDTH + 500

#: Rounds of 2,000 engines that answer, and of the slower comparisons.
ROUNDS, LONG_ROUNDS = 5, 1

GOAL = Goal(median=1.5)

#: The service's default probe interval in seconds: a cycle must not take longer.
INTERVAL_S = 15.0

#: The number of probed engines, and of healthy ones.
Count = tuple[int, int]

Probe = Callable[[Sequence[ProbeTarget], float], Count]


@dataclass
class Probing:
    """The comparisons, and the longest cycle of each."""

    _cycles: dict[str, float] = field(default_factory=dict)

    def contests(self) -> Iterator[Contest]:
        """All healthy and all hanging, each with more engines than `WIDTH`, too."""
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
                ours = _run(lambda *arguments: _ours(probes, *arguments), targets, expected)
                theirs = _run(plain.probe, targets, expected)
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
        """The longest cycle of each comparison."""
        for title, seconds in self._cycles.items():
            yield Measure(f"a cycle over {title}, at most", seconds, "s", at_most=INTERVAL_S)

    def _noted(self, title: str, sample: Sample) -> Sample:
        self._cycles[title] = max(sample["wall"], self._cycles.get(title, 0.0))
        return sample


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit of this process and its children; raises BenchError when the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BenchError(f"{wanted} descriptors are needed, the hard limit is {hard}: raise it with ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class PlainClient:
    """Sends a request and reads the response's head."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def probe(self, targets: Sequence[ProbeTarget], timeout_s: float) -> Count:
        """Probe all targets."""
        return self._loop.run_until_complete(_all_heads(targets, timeout_s))

    def close(self) -> None:
        """Close the event loop."""
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


def _run(probe: Probe, targets: Sequence[ProbeTarget], expected: Count) -> Callable[[], Sample]:
    """The `run` of a side; raises BenchError when the counts are not the expected ones."""

    def run() -> Sample:
        timeout_s = PATIENT_S if expected[1] else TIMEOUT_S
        sample, found = on_both_clocks(lambda: probe(targets, timeout_s))
        if found != expected:
            raise BenchError(f"{found} engines were asked and found healthy, but there are {expected}")
        return sample

    return run
