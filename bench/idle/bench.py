"""The idle bench: a thousand running games, without requests, jobs or events.

Two managers run over the same time, each with its own database, daemon and engines. One has its periodic work put
off. The other runs with the defaults: it probes every engine every 15 s and inspects every container every 30 s.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from bench import processes
from bench.calibration import LOOPBACK
from bench.catalogue import Bench
from bench.docker import prepared_docker
from bench.errors import BenchError
from bench.measure import Measure
from bench.synthetic import platform
from harness.rtm.manager import ManagerProcess

GAMES = 1000

#: Seconds; a multiple of the default intervals of probes (15 s) and inspections (30 s).
QUIET_S = 30.0

CPU_PERCENT, RSS_MB = 1.0, 80.0


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    prepared_docker()
    return Bench(
        measures=_measures,
        leans_on=(LOOPBACK,),
        notes={
            "idle": f"{GAMES:,} games that have run for hours, looked at for {QUIET_S:g} s; real PostgreSQL and Redis, "
            "a daemon that plays the containers, engines on loopback that answer",
            "nothing to do": "probes, inspections and reconciling put off by RTMANAGER_PROBE_INTERVAL and its like",
        },
    )


@dataclass(frozen=True)
class ProcessSample:
    """Clock, processor time and memory of a manager at one moment."""

    at: float
    cpu_s: float
    rss_mb: float

    @classmethod
    def of(cls, process: ManagerProcess) -> "ProcessSample":
        """Measure the process now."""
        return cls(time.monotonic(), processes.cpu_s(process.pid), processes.rss_mb(process.pid))

    def cpu_percent_since(self, before: "ProcessSample") -> float:
        """Processor time since `before`, in percent of one core."""
        return (self.cpu_s - before.cpu_s) / (self.at - before.at) * 100


def _measures() -> Iterator[Measure]:
    with ExitStack() as cleanup:
        quiet = _started(cleanup, platform.NOTHING_PERIODIC)
        watching = _started(cleanup, {})
        processes.wait_until_at_rest(quiet.pid)
        before = {each.pid: ProcessSample.of(each) for each in (quiet, watching)}
        time.sleep(QUIET_S)
        for what, process, cpu_limit in (
            ("nothing to do", quiet, CPU_PERCENT),
            ("with probes and inspections as by default", watching, None),
        ):
            if process.exit_code is not None:
                raise BenchError(f"the manager has ended\n{process.log_tail()}")
            now = ProcessSample.of(process)
            cpu = now.cpu_percent_since(before[process.pid])
            yield Measure(f"CPU, {what}", cpu, "% of a core", at_most=cpu_limit, games=GAMES)
            yield Measure(f"RSS, {what}", now.rss_mb, "MB", at_most=RSS_MB, games=GAMES)


def _started(cleanup: ExitStack, settings: Mapping[str, str]) -> ManagerProcess:
    here = cleanup.enter_context(platform.running(GAMES))
    process = cleanup.enter_context(here.manager(settings))
    process.wait_until_ready()
    return process
