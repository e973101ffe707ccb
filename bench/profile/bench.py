"""The profile bench: draws the median one of twelve start jobs, and lists the duration of each of its parts.

It also lists the parts of one cleanup, the call with the smallest share of Docker's time.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING

from bench.calibration import DOCKER, LOOPBACK
from bench.catalogue import Bench
from bench.docker import prepared_docker
from bench.measure import Measure
from bench.profile import notes
from bench.profile.critical_path import ANSWER, PYTHON, Job, Part, parts, parts_of_call
from bench.work import ours
from bench.work.ours import Ours
from harness.rtm import manager

if TYPE_CHECKING:
    from bench.profile.notes import Span

JOBS = 12
#: The first jobs do not count: they import modules, open connections, and watch the image's first start.
UNCOUNTED = 3

PICTURE = Path("docs", "performance-start.svg")


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    return Bench(
        measures=_measures,
        leans_on=(DOCKER, LOOPBACK),
        notes={
            "Docker": prepared_docker(),
            "a start job": f"the one in the middle of {JOBS}, one at a time; its parts follow each other without a gap",
            "a cleanup": f"the one in the middle of as many; {ANSWER}: the thread that waits for its end, and answers",
            "how": "the manager's failpoints note the time, and so do the ways to PostgreSQL",
            "its picture": f"{PICTURE}",
        },
    )


def _measures() -> Iterator[Measure]:
    from bench.profile import picture

    jobs, calls, spans = _observed()
    job, call = _middle(jobs), _middle(calls)
    found = parts(job, spans)
    picture.draw(job, found, spans, PICTURE)
    yield from measures("start", job, found)
    yield from measures("cleanup", call, parts_of_call(call, spans))


def _middle(jobs: Sequence[Job]) -> Job:
    middle = median_low(job.took_ns for job in jobs)
    return next(job for job in jobs if job.took_ns == middle)


def measures(kind: str, job: Job, found: Sequence[Part]) -> Iterator[Measure]:
    """The parts, with those of one kind summed up, and the whole."""
    took: dict[str, int] = {}
    for part in found:
        what = f"{part.stage}: {_grouped(part.what)}"
        took[what] = took.get(what, 0) + part.took_ns
    for what, took_ns in took.items():
        yield Measure(f"{kind}, {what}", took_ns / 1e6, "ms")
    yield Measure(f"{kind}: all of the above", job.took_ns / 1e6, "ms")


def _grouped(what: str) -> str:
    return "Python between its effects" if what.startswith(PYTHON) else what.partition(",")[0]


def _observed() -> "tuple[list[Job], list[Job], list[Span]]":
    """Run start jobs, then cleanups, one after the other; returns the counted ones, and the manager's spans."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "notes")
        command = (*manager.COMMAND[:2], "bench.profile.traced", str(path))
        with ours.running(command) as here:
            games = ours.new_games(UNCOUNTED + JOBS)
            jobs = [_job(here, game_id) for game_id in games]
            for game_id in games:
                here.call("POST", game_id, "stop", {"reason": "finished"})
            calls = [_cleanup(here, game_id) for game_id in games]
            here.process.terminate()
        return jobs[UNCOUNTED:], calls[UNCOUNTED:], notes.spans(notes.read(path.read_text()))


def _job(here: Ours, game_id: str) -> Job:
    began_ns = time.monotonic_ns()
    container_id = here.start([game_id])[game_id]
    job = Job(began_ns, time.monotonic_ns())
    ours.wait_for_engine(here.here.network.client, container_id)
    return job


def _cleanup(here: Ours, game_id: str) -> Job:
    began_ns = time.monotonic_ns()
    here.call("DELETE", game_id, "container")
    return Job(began_ns, time.monotonic_ns())
