"""Half-open, slow and costly clients of every kind against a manager, and a good client that must not be affected.

Its inputs are clients: first slow ones, then as many whose requests are cheap to send and costly to answer. The full
run takes two minutes and bounds the good client's times; a shorter one checks only that every good request is answered.
"""

import http.client
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from harness import SlowClients, SlowKind
from harness.rtm import manager, stack

DEFAULT_COUNT = 500

#: The number of clients from which each part of the run lasts a minute and times count.
FULL = 500
FULL_S, SHORT_S = 60.0, 2.0
#: Seconds in which the good client is alone first, to measure the machine without slow clients.
ALONE_S = 5.0
P99_MS = 100.0
#: Seconds; the limit of any answer on any machine.
LIVENESS_S = 10.0
MEMORY_MB = 300
#: Seconds between two requests of the good client.
REST_S = 0.01

_CROWDS = {
    "slow": [kind for kind in SlowKind if not kind.is_costly],
    "costly": [kind for kind in SlowKind if kind.is_costly],
}
_RUNTIMES = "/api/v1/internal/runtimes"
#: The good client's requests, and the valid statuses.
_REQUESTS = (
    ("GET", "/healthz", {200}),
    ("GET", f"{_RUNTIMES}?limit=10", {200}),
    ("GET", f"{_RUNTIMES}/nobody", {404}),
    ("POST", f"{_RUNTIMES}/nobody/restart", {404}),
)


def run(seed: int, count: int, report: Callable[[str], None]) -> list[str]:
    """Run `count` slow clients that reconnect; return the good client's violations."""
    full = count >= FULL
    with (
        stack.running("slow-clients") as here,
        manager.start(here.environment, here.state_root.logs / "manager.log") as process,
    ):
        process.wait_until_ready()
        host, port = process.address.split(":")
        before_mb = _memory_mb(process.pid)
        if full:
            alone = _Seen()
            alone.request_until((host, int(port)), time.monotonic() + ALONE_S, random.Random(seed))
            for line in alone.summary():
                report(f"alone: {line}")
        violations = []
        for name, kinds in _CROWDS.items():
            with _crowd((host, int(port)), kinds, count, seed) as counts:
                seen = _Seen()
                until = time.monotonic() + (FULL_S if full else SHORT_S)
                seen.request_until((host, int(port)), until, random.Random(seed))
                report(f"{name} clients: {counts()}")
            violations += [f"{name} clients: {fault}" for fault in seen.violations(with_times=full)]
            for line in seen.summary():
                report(line)
        after_mb = _memory_mb(process.pid)
        if process.exit_code is not None:
            violations.append(f"the manager ended with {process.exit_code}")
    report(f"memory {before_mb} to {after_mb} MB")
    if after_mb > MEMORY_MB:
        violations.append(f"the manager has {after_mb} MB, more than {MEMORY_MB}")
    return violations


class _Seen:
    """The good client's observations."""

    def __init__(self) -> None:
        self._times_ms: dict[str, list[float]] = {}
        self._faults: list[str] = []
        self._kept: http.client.HTTPConnection | None = None

    def request_until(self, address: tuple[str, int], until: float, chooser: random.Random) -> None:
        """Send rounds of requests until then (monotonic), each on a new connection or on the last one."""
        while time.monotonic() < until:
            self.request_each(address, keep=chooser.random() < 0.5)
            time.sleep(REST_S)

    def request_each(self, address: tuple[str, int], *, keep: bool) -> None:
        """One round of requests, on the connection of the last round or on new ones."""
        for method, path, right in _REQUESTS:
            began = time.perf_counter()
            try:
                status = self._one(address, method, path, keep=keep)
            except (OSError, http.client.HTTPException) as error:
                status = 0
                self._faults.append(f"{method} {path}: {error!r}")
            took_ms = (time.perf_counter() - began) * 1000
            if status and status not in right:
                self._faults.append(f"{method} {path}: status {status}")
            self._times_ms.setdefault("/healthz" if path == "/healthz" else "others", []).append(took_ms)

    def _one(self, address: tuple[str, int], method: str, path: str, *, keep: bool) -> int:
        if self._kept is None or not keep:
            self.close()
            self._kept = http.client.HTTPConnection(*address, timeout=LIVENESS_S)
        self._kept.request(method, path, headers={"Connection": "keep-alive" if keep else "close"})
        answer = self._kept.getresponse()
        answer.read()
        return answer.status

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = None

    def violations(self, *, with_times: bool) -> list[str]:
        """The violations, of which at most ten faults are listed."""
        self.close()
        slow = [
            f"{what}: 99 of 100 answers within {_p99(times):.1f} ms, more than {P99_MS:g}"
            for what, times in self._times_ms.items()
            if with_times and _p99(times) > P99_MS
        ]
        return [*slow, *self._faults[:10]]

    def summary(self) -> Iterator[str]:
        """One line for each kind of request."""
        for what, times in self._times_ms.items():
            yield (
                f"{what}: {len(times)} requests, median {statistics.median(times):.1f} ms, "
                f"p99 {_p99(times):.1f} ms, longest {max(times):.1f} ms"
            )


def _p99(times: list[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]


@contextmanager
def _crowd(
    address: tuple[str, int], kinds: Sequence[SlowKind], number: int, seed: int
) -> Iterator[Callable[[], object]]:
    """Run the slow clients in a process of their own; yields a function that returns their counts."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_be_slow, args=(address, kinds, number, seed, theirs), daemon=True)
    child.start()
    try:
        ours.recv()

        def counts() -> object:
            ours.send("counts")
            return ours.recv()

        yield counts
    finally:
        ours.close()
        child.join(10)
        child.kill()


def _be_slow(address: tuple[str, int], kinds: Sequence[SlowKind], number: int, seed: int, line: Connection) -> None:
    kinds = random.Random(seed).sample(kinds, len(kinds))
    path = f"{_RUNTIMES}?limit=1000"
    with SlowClients(address, kinds=kinds, number=number, path=path, seed=seed) as slow:
        slow.wait_until_open()
        line.send("open")
        try:
            while line.recv():
                line.send(slow.counts)
        except EOFError:
            return


def _memory_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024
