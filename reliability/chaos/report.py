"""The report of a run: a table for the terminal, and a file for comparisons."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from reliability.chaos.run import Report, as_json

#: Ignored by git.
FOLDER = Path("artifacts")


def written(report: Report) -> Path:
    """Write the report to a file; return its path."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"chaos-{report.seed}.json"
    path.write_text(json.dumps(as_json(report), indent=1) + "\n")
    return path


def table(report: Report) -> str:
    """The report for a terminal."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    daemon = "a Docker daemon of its own" if report.own_daemon else "the machine's Docker daemon"
    yield f"seed {report.seed}: {report.rounds} rounds in {report.lasted_s:.0f} s on {daemon}"
    yield f"  jobs {report.jobs}, results {report.results}, log rows {report.log_rows}, health {report.health_events}"
    yield f"  managers started {report.manager_starts} times; checked {report.lists} lists, {report.events} events"
    yield from _section("faults", _faults(report))
    yield from _section("clients", _clients(report))
    yield f"  quiet after {_seconds(report.recoveries_s)}; canaries {_seconds(report.canaries_s)}"
    for remedy in report.remedies:
        yield f"  Docker had to be restarted: {remedy}"
    for problem in report.problems:
        yield f"  VIOLATION {problem}"
    if report.kept:
        yield f"  history, logs, tables and streams are in {report.kept}"


def _faults(report: Report) -> Counter[str]:
    """Faults by kind, without those that missed."""
    found: Counter[str] = Counter()
    for key, count in report.deeds.items():
        who, what, outcome = key.split(": ", 2)
        if who == "nemesis" and outcome == "ok" and not what.endswith(", over"):
            found[what] += count
    return found


def _clients(report: Report) -> Counter[str]:
    found: Counter[str] = Counter()
    for key, count in report.deeds.items():
        who, _, outcome = key.split(": ", 2)
        if who != "nemesis":
            found[f"{'jobs' if who == 'lobby' else 'calls'} {outcome}"] += count
    return found


def _section(name: str, counts: Counter[str]) -> Iterator[str]:
    yield f"  {name} {counts.total()}: " + ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))


def _seconds(values: list[float]) -> str:
    if not values:
        return "nothing"
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.1f} s (median of {len(ordered)}), {ordered[-1]:.1f} s at most"
