"""Times small fixed pieces of work before and after a measurement, to detect a change of the machine's speed.

A value that was measured once misses its limit only when both timings agree. Comparisons need none of this: both sides
of a round run at about the same speed, and the interval of the ratio shows how much the rounds differ (`figures`).
"""

import socket
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import child
from harness.rtm import engine_image

if TYPE_CHECKING:
    from docker import APIClient

#: Resources that a bench may depend on.
CPU, LOOPBACK, DOCKER = "CPU", "loopback", "Docker"

#: Largest difference between the two timings, as a share of the faster one.
MOST_APART = 0.20

#: Repetitions. The result is the median; for the processor, the mean of the middle half.
_CPU_RUNS, _LOOPBACK_RUNS, _DOCKER_RUNS = 16, 15, 5
#: Seconds between two runs on the processor: the speed of a shared core changes within a second.
CPU_PAUSE_S = 0.2
_LOOP = 300_000
_ROUND_TRIPS = 400

#: Seconds of each piece of work, by resource.
Speed = Mapping[str, float]


def apart(before: Speed, after: Speed) -> str:
    """Return how the machine's speed changed between the two timings; empty when they agree."""
    reasons = []
    for what, took in before.items():
        slower, faster = max(took, after[what]), min(took, after[what])
        if slower > faster * (1 + MOST_APART):
            change = "slower" if after[what] > took else "faster"
            reasons.append(f"{what} {slower / faster - 1:.0%} {change} afterwards")
    return ", ".join(reasons)


@dataclass
class Yardstick:
    """The pieces of work, by resource; `close` releases what they use."""

    works: Mapping[str, Callable[[], float]]
    _cleanup: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(cls, leans_on: Iterable[str]) -> "Yardstick":
        """Create the pieces of work for these resources; the processor is always included."""
        made = cls({})
        works: dict[str, Callable[[], float]] = {CPU: cpu_s}
        if LOOPBACK in leans_on:
            works[LOOPBACK] = _loopback(made._cleanup)
        if DOCKER in leans_on:
            works[DOCKER] = _docker(made._cleanup)
        made.works = works
        return made

    def close(self) -> None:
        """Stop the echo process, and close the connection to Docker."""
        self._cleanup.close()

    def speed(self) -> Speed:
        """Run each piece of work; return its seconds."""
        return {name: work() for name, work in self.works.items()}


def cpu_s() -> float:
    """Seconds for a fixed amount of Python: the mean of runs over three seconds, without the extreme quarters."""
    taken = []
    for _ in range(_CPU_RUNS):
        taken.append(_timed(_loop))
        time.sleep(CPU_PAUSE_S)
    quarter = _CPU_RUNS // 4
    return statistics.fmean(sorted(taken)[quarter:-quarter])


def _loop() -> None:
    total = 0
    for number in range(_LOOP):
        total += number & 7


def _loopback(cleanup: ExitStack) -> Callable[[], float]:
    port = int(cleanup.enter_context(child.running("bench.echo")))
    line = cleanup.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def round_trips() -> None:
        for _ in range(_ROUND_TRIPS):
            line.sendall(b"x")
            line.recv(1)

    return lambda: _median(round_trips, _LOOPBACK_RUNS)


def _docker(cleanup: ExitStack) -> Callable[[], float]:
    from harness import daemon

    client = cleanup.enter_context(closing(daemon.connect()))
    image = engine_image().ref
    return lambda: statistics.median(_start_s(client, image) for _ in range(_DOCKER_RUNS))


def _start_s(client: "APIClient", image: str) -> float:
    """Seconds to create and start a container that only sleeps."""
    from harness.runs import identity

    began = time.perf_counter()
    made = client.create_container(
        image,
        entrypoint=["sleep", "60"],
        command=[],
        labels=identity.current().labels(),
        host_config=client.create_host_config(network_mode="none"),
    )
    try:
        client.start(made["Id"])
        return time.perf_counter() - began
    finally:
        client.remove_container(made["Id"], force=True)


def _median(work: Callable[[], object], runs: int) -> float:
    taken: Sequence[float] = [_timed(work) for _ in range(runs)]
    return statistics.median(taken)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
