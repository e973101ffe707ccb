"""The recovery bench: ten start jobs after a fault, against the same ten without one.

After a kill the clock starts with the kill; when no instance is left, the next one is started at once. After an
outage the clock starts when the dependency is back; the jobs are due since the middle of the outage.
"""

import time
from collections.abc import Callable, Iterator

from bench.catalogue import Bench
from bench.comparison import WHOLE, Contest, Sample, Side
from bench.docker import prepared_docker
from bench.recovery import fleet
from bench.recovery.fleet import JOBS, Fleet

#: Seconds without a dependency.
OUTAGE_S = 60.0
KILLS, OUTAGES = 5, 2


def bench() -> Bench:
    """Create the bench: build missing images and record the conditions."""
    return Bench(
        contests=_contests,
        notes={
            "Docker": prepared_docker(),
            "due": f"{JOBS} start jobs, each of a new game",
            "an outage": f"{OUTAGE_S:g} s, connections cut and refused on the line to the manager; the server goes on",
        },
    )


def _contests() -> Iterator[Contest]:
    with fleet.gathered() as ours:
        yield _contest("kill -9 of the only instance", lambda: _kill(ours, 1), ours, 1, KILLS)
        yield _contest("kill -9 of one of three", lambda: _kill(ours, 3), ours, 3, KILLS)
    for name, server in (("PostgreSQL", "postgres"), ("Redis", "redis"), ("Docker", "docker")):
        with fleet.gathered() as ours:
            away = _outage(ours, server)
            yield _contest(f"{OUTAGE_S:g} s without {name}", away, ours, 1, OUTAGES)


def _contest(title: str, trouble: Callable[[], Sample], ours: Fleet, managers: int, rounds: int) -> Contest:
    def well() -> Sample:
        began = time.monotonic()
        return {WHOLE: ours.wait_for(ours.add_jobs()) - began}

    def before() -> None:
        ours.clear()
        ours.have(managers)

    return Contest(title, Side("after it", trouble), [Side("without it", well)], before, rounds)


def _kill(ours: Fleet, managers: int) -> Sample:
    victim = ours.have(managers)[0]
    due = ours.add_jobs()
    ours.wait_until_begun(due)
    began = time.monotonic()
    victim.kill()
    if managers == 1:
        ours.have(1)
    return {WHOLE: ours.wait_for(due) - began}


def _outage(ours: Fleet, server: str) -> Callable[[], Sample]:
    def outage() -> Sample:
        proxy = ours.lines[server]
        proxy.refuse()
        time.sleep(OUTAGE_S / 2)
        due = ours.add_jobs()
        time.sleep(OUTAGE_S / 2)
        began = time.monotonic()
        proxy.pass_on()
        return {WHOLE: ours.wait_for(due) - began}

    return outage
