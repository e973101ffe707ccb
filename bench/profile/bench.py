"""The bench that draws one start job, the one in the middle of twelve, and says what each of its parts took."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING

from bench.catalogue import Bench
from bench.docker import prepared_docker
from bench.measure import Measure
from bench.profile import notes
from bench.profile.way import PYTHON, Job, Part, parts
from bench.work import ours
from bench.work.ours import Ours
from harness.fixtures import manager

if TYPE_CHECKING:
    from bench.profile.notes import Span

JOBS = 12
#: In the first ones modules are imported, connections made, and the image's first start is watched.
UNCOUNTED = 3

PICTURE = Path("docs", "performance-start.svg")


def bench() -> Bench:
    """The bench; its conditions are looked up now, and the images made if they are missing."""
    return Bench(
        measures=_measures,
        notes={
            "Docker": prepared_docker(),
            "a start job": f"the one in the middle of {JOBS}, one at a time; its parts follow each other without a gap",
            "how": "the manager's failpoints note the time, and so do the ways to PostgreSQL",
            "its picture": f"{PICTURE}",
        },
    )


def _measures() -> Iterator[Measure]:
    from bench.profile import picture

    jobs, spans = _observed()
    middle = median_low(job.took_ns for job in jobs)
    job = next(job for job in jobs if job.took_ns == middle)
    found = parts(job, spans)
    picture.draw(job, found, spans, PICTURE)
    return measures(job, found)


def measures(job: Job, found: Sequence[Part]) -> Iterator[Measure]:
    """The parts, what belongs together summed up, and the whole."""
    took: dict[str, int] = {}
    for part in found:
        what = f"{part.stage}: {_grouped(part.what)}"
        took[what] = took.get(what, 0) + part.took_ns
    for what, took_ns in took.items():
        yield Measure(what, took_ns / 1e6, "ms")
    yield Measure("one start job: all of the above", job.took_ns / 1e6, "ms")


def _grouped(what: str) -> str:
    return "Python between its effects" if what.startswith(PYTHON) else what.partition(",")[0]


def _observed() -> "tuple[list[Job], list[Span]]":
    """Jobs, one after the other, and all that the manager did meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "notes")
        command = (*manager.COMMAND[:2], "bench.profile.traced", str(path))
        with ours.running(command) as here:
            jobs = [_job(here) for _ in range(UNCOUNTED + JOBS)]
            here.process.terminate()
        return jobs[UNCOUNTED:], notes.spans(notes.read(path.read_text()))


def _job(here: Ours) -> Job:
    (game_id,) = ours.new_games(1)
    began_ns = time.monotonic_ns()
    container_id = here.start([game_id])[game_id]
    job = Job(began_ns, time.monotonic_ns())
    ours.wait_for_engine(here.here.network.client, container_id)
    return job
