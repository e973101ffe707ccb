"""Which benches there are.

To add one, write a module with a function that returns a `Bench`, and put its name here. The module is imported
only when the bench is run, so that each may need packages of its own.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module

from bench.comparison import Contest
from bench.errors import BenchError
from bench.measure import Measure


def _no_contests() -> Iterable[Contest]:
    return ()


def _no_measures() -> Iterable[Measure]:
    return ()


@dataclass(frozen=True)
class Bench:
    """A set of contests, held one after the other, and then of measures that stand alone.

    `contests` is best a generator: what stands before a `yield` is prepared when its contest is due and not earlier,
    so that it does not run beside the contests before it.
    """

    contests: Callable[[], Iterable[Contest]] = _no_contests
    measures: Callable[[], Iterable[Measure]] = _no_measures
    #: What its figures depend on besides the processor: see `calibration`.
    leans_on: Collection[str] = ()
    #: What a reader must know of the conditions: versions, images, settings.
    notes: Mapping[str, str] = field(default_factory=dict)


#: By name: the module whose `bench()` makes it, and what it is about.
BENCHES: Mapping[str, tuple[str, str]] = {
    "start": ("bench.work.start", "a start job against the bare SDK's create and start"),
    "burst": ("bench.work.burst", "sixty start jobs at once against the bare SDK at its best"),
    "calls": ("bench.work.calls", "restart, patch, stop and cleanup by REST against the bare SDK's calls"),
    "events": ("bench.events.bench", "a burst of Docker's events, heard and told"),
    "growth": ("bench.growth.bench", "what things cost with ten games, and with ten thousand"),
    "harness": ("bench.harness.bench", "services started, emptied and stopped; what a test costs beside its own work"),
    "idle": ("bench.idle.bench", "what a manager of a thousand games costs that has nothing to do"),
    "path": ("bench.path.bench", "jobs that need no Docker, from the stream of jobs to that of results"),
    "profile": ("bench.profile.bench", "one start job, drawn and accounted for to the last millisecond"),
    "recovery": ("bench.recovery.bench", "all that is due, done again after a kill and after outages (15 minutes)"),
    "rest": ("bench.rest.bench", "records read one by one and listed, against FastAPI on uvicorn"),
    "startup": ("bench.startup.bench", "from the start of the process to ready, against the imports alone"),
    "watch": ("bench.watch.bench", "engines probed, containers compared with the records, exits told"),
}


def load(name: str) -> Bench:
    """The bench of that name; raises BenchError when a package that it needs is missing."""
    try:
        made: Bench = import_module(BENCHES[name][0]).bench()
    except ModuleNotFoundError as error:
        raise BenchError(f"the Python package {error.name} is missing: pip install -e '.[bench]'") from error
    return made
