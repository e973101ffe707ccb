"""The list of benches.

To add a bench, write a module with a function `bench()` that returns a `Bench`, and add its name here. The module is
imported only when the bench runs, so that each bench may need packages of its own.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module

from bench.comparison import Contest
from bench.errors import BenchError
from bench.measure import Measure


def _no_contests() -> Iterable[Contest]:
    return ()


@dataclass(frozen=True)
class Bench:
    """Comparisons, run one after the other, followed by measures without a reference.

    `contests` is best a generator: code before a `yield` then runs when its comparison is due, not beside earlier ones.
    """

    contests: Callable[[], Iterable[Contest]] = _no_contests
    #: None where every figure is a comparison.
    measures: Callable[[], Iterable[Measure]] | None = None
    #: Resources that its measures depend on, besides the processor: see `calibration`.
    leans_on: Collection[str] = ()
    #: Conditions that a reader needs: versions, images, settings.
    notes: Mapping[str, str] = field(default_factory=dict)


#: By name: the module whose `bench()` creates it, and a description.
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
    """Create the bench of that name; raises BenchError when a package that it needs is missing."""
    try:
        made: Bench = import_module(BENCHES[name][0]).bench()
    except ModuleNotFoundError as error:
        raise BenchError(f"the Python package {error.name} is missing: pip install -e '.[bench]'") from error
    return made
