"""One seed from begin to verdict: rounds of faults, each healed, brought to rest and checked.

The check after a round covers everything since the begin; a run ends with the first round that finds a violation.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cases.artefacts import Artefacts
from harness.errors import WaitFailed
from harness.waiting import wait_until
from reliability.chaos import checker, servers
from reliability.chaos.clients import Caller, Client, JobClient
from reliability.chaos.instances import Supervisor
from reliability.chaos.isolation_check import IsolationCheck
from reliability.chaos.nemesis import Nemesis, heal
from reliability.chaos.plan import Round, Size, plan
from reliability.chaos.platform import Platform, running
from reliability.chaos.watcher import Watcher
from reliability.invariants import is_quiet, unquiet

#: Seconds of faults in one round.
ROUND_S = 45.0

#: Seconds in which everything due must be done after healing.
QUIET_TIMEOUT_S = 90.0
#: Seconds in which a reconcile period may still correct violations when nothing is due any more.
SETTLE_TIMEOUT_S = 20.0


@dataclass
class Report:
    """The actions and observations of a run."""

    seed: int
    duration_s: float
    own_daemon: bool
    rounds: int = 0
    lasted_s: float = 0.0
    jobs: int = 0
    results: int = 0
    health_events: int = 0
    log_rows: int = 0
    deeds: Counter[str] = field(default_factory=Counter)
    manager_starts: int = 0
    #: Seconds from the end of the last fault until nothing is due, for each round.
    recoveries_s: list[float] = field(default_factory=list)
    #: Durations of the canaries' jobs beside a stuck game.
    canaries_s: list[float] = field(default_factory=list)
    #: Errors of Docker that needed an orderly restart, as by an operator.
    remedies: list[str] = field(default_factory=list)
    lists: int = 0
    events: int = 0
    problems: list[str] = field(default_factory=list)
    #: The directory with the history and the artefacts of a failed run.
    kept: str = ""


#: Yields the seconds of each round before it begins; it may change the platform then, and report violations.
Rounds = Callable[[Platform, Report], Iterator[float]]


def until_time_is_up(_: Platform, report: Report) -> Iterator[float]:
    """Rounds of equal length for about the time that was requested, at least one."""
    began = time.monotonic()
    yield min(ROUND_S, report.duration_s)
    while time.monotonic() - began < report.duration_s - ROUND_S:
        yield ROUND_S


def run(seed: int, seconds: float, size: Size, *, keep: bool = False, rounds: Rounds = until_time_is_up) -> Report:
    """Run a seed for about `seconds`; keeps its artefacts when it found a violation, or with `keep`."""
    report = Report(seed, seconds, size.own_daemon)
    began = time.monotonic()
    with running(size, f"chaos-{seed}") as platform:
        try:
            _run(platform, report, rounds)
        except BaseException as error:
            report.problems.append(f"run: {type(error).__name__}: {error}")
            raise
        finally:
            report.lasted_s = time.monotonic() - began
            if report.problems or keep:
                report.kept = str(_keep(platform, report))
    return report


def _run(platform: Platform, report: Report, rounds: Rounds) -> None:
    supervisor, watcher = Supervisor(list(platform.instances), platform.history), Watcher(platform)
    canary = IsolationCheck(platform)
    try:
        heal(platform)
        canary.prepare()
        for lasts_s in rounds(platform, report):
            _round(platform, report, canary, lasts_s)
            report.problems += watcher.violations
            report.problems += [each for instance in platform.instances for each in instance.complaints]
            if report.problems:
                break
        _count(platform, report)
    finally:
        watcher.stop()
        supervisor.close()
        report.lists, report.events, report.canaries_s = watcher.lists, watcher.events, canary.waits_s


def _round(platform: Platform, report: Report, canary: IsolationCheck, lasts_s: float) -> None:
    coming = plan(report.seed, report.rounds, lasts_s, platform.size)
    platform.history.note("run", "round", number=report.rounds, faults=len(coming.faults))
    report.rounds += 1
    _trouble(platform, coming)
    heal(platform)
    healed = time.monotonic()
    if not _quiet(platform, report):
        return
    report.recoveries_s.append(time.monotonic() - healed)
    report.problems += _judged(platform)
    if not report.problems:
        canary.prepare()
        report.problems += canary.sing()


def _trouble(platform: Platform, coming: Round) -> None:
    """Run clients and nemesis at once for the round's time."""
    nemesis = Nemesis(platform, coming.faults)
    clients: list[Client] = [
        *(JobClient(platform, f"lobby {number}", script) for number, script in enumerate(coming.jobs)),
        *(
            Caller(platform, f"caller {number}", script, ("gm", "admin")[number % 2])
            for number, script in enumerate(coming.calls)
        ),
    ]
    until = time.monotonic() + coming.lasts_s
    nemesis.start()
    for each in clients:
        each.start()
    nemesis.join()
    time.sleep(max(0.0, until - time.monotonic()))
    for each in clients:
        each.stop()


def _quiet(platform: Platform, report: Report) -> bool:
    """Whether the platform becomes quiet, if necessary after an operator's repair of Docker."""
    failure = _wait_until_quiet(platform)
    if failure and servers.STUCK in failure and platform.own_daemon:
        report.remedies.append(failure)
        platform.history.note("run", "Docker cannot remove a container", why=failure)
        servers.restart_daemon_twice(platform)
        heal(platform)
        failure = _wait_until_quiet(platform)
    if failure:
        report.problems.append(f"recovery: {failure}")
    return not failure


def _wait_until_quiet(platform: Platform) -> str:
    """What prevented quiescence; empty when nothing did."""
    try:
        wait_until(
            "nothing to be on its way",
            lambda: is_quiet(platform.world),
            timeout_s=QUIET_TIMEOUT_S,
            interval_s=0.2,
            describe=lambda _: "; ".join(unquiet(platform.world)),
        )
    except WaitFailed as failure:
        return str(failure)
    return ""


def _judged(platform: Platform) -> Sequence[str]:
    """The violations that persist; a restart of a crashed game may happen between two checks."""
    until = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        found = checker.everything(platform) if is_quiet(platform.world) else ["run: it is not quiet any more"]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.5)


def _count(platform: Platform, report: Report) -> None:
    world = platform.world
    report.jobs = len(checker.jobs(platform))
    report.results = len(world.entries("job_results"))
    report.health_events = len(world.entries("health_events"))
    report.log_rows = len(world.rows("SELECT FROM operation_log"))
    report.deeds = platform.history.counted
    report.manager_starts = sum(each.starts for each in platform.instances)


def _keep(platform: Platform, report: Report) -> Path:
    """Keep everything for inspection: history, logs, tables, streams, containers."""
    directory = platform.root.keep()
    sys.stderr.write(f"see {directory}\n")
    artefacts = Artefacts(directory)
    artefacts.tables(platform.database)
    artefacts.redis(platform.store)
    artefacts.attempt(
        "containers", lambda: artefacts.containers(platform.docker, [each["Id"] for each in platform.ours()])
    )
    (directory / "report.json").write_text(json.dumps(as_json(report), indent=1))
    return directory


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {name: getattr(report, name) for name in report.__dataclass_fields__}
