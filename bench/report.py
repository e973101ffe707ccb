"""The results of a bench: markdown tables for readers, and a JSON file with every run for programs."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import history
from bench.comparison import Contest, Goal, Samples, hold
from bench.figures import Figure, Spread, figures
from bench.measure import Measure

_HEAD = (
    "| what | ours, median / p95 | compared with | its median / p95 | ratio, interval (p95) | to reach | rounds |\n"
    "|---|---|---|---|---|---|---|"
)
_VERDICTS = {True: "reached", False: "**missed**", None: "open"}
_MEASURES_HEAD = "| what | games | measured | to reach |\n|---|---|---|---|"


@dataclass(frozen=True)
class Result:
    """A comparison that was run."""

    contest: Contest
    samples: Samples

    @classmethod
    def of(cls, contest: Contest, rounds: int | None) -> "Result":
        """Run the comparison."""
        return cls(contest, hold(contest, rounds))

    def figures(self) -> list[Figure]:
        """The figures of the comparison."""
        return list(figures(self.contest, self.samples))


def table(found: Sequence[Figure]) -> str:
    """The figures as a markdown table."""
    return "\n".join([_HEAD, *_rows(found)])


def measures_table(found: Sequence[Measure]) -> str:
    """The measures as a markdown table."""
    rows = (
        f"| {each.what} | {'' if each.games is None else f'{each.games:,}'} | {_measured(each)} | {_limits(each)} |"
        for each in found
    )
    return "\n".join([_MEASURES_HEAD, *rows])


def number(value: float) -> str:
    """The number as text, with three significant digits where they matter."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _measured(each: Measure) -> str:
    value = f"{number(each.value)} {each.unit}"
    return f"{value} ({each.disturbed})" if each.disturbed else value


def _rows(found: Sequence[Figure]) -> Iterator[str]:
    for each in found:
        ours, theirs = _cell(each.ours, each.ours_per_second), _cell(each.theirs, each.theirs_per_second)
        ratio = f"**{each.ratio:.2f}**, {each.low:.2f} to {each.high:.2f} ({each.ratio_p95:.2f})"
        goal = _wanted(each.goal, each.reached) if each.goal else ""
        what = f"{each.contest}: {each.phase}"
        yield f"| {what} | {ours} | {each.reference} | {theirs} | {ratio} | {goal} | {each.rounds} |"


def _cell(spread: Spread, per_second: float | None) -> str:
    rate = "" if per_second is None else f", {number(per_second)}/s"
    return f"{number(spread.median_ms)} / {number(spread.p95_ms)} ms{rate}"


def _wanted(goal: Goal, reached: bool | None) -> str:
    limits = [
        *([] if goal.median is None else [f"≤ {goal.median:.2f}"]),
        *([] if goal.p95 is None else [f"p95 ≤ {goal.p95:.2f}"]),
        *([] if goal.per_second is None else [f"≥ {number(goal.per_second)}/s"]),
    ]
    return _judged(limits, reached)


def _limits(measure: Measure) -> str:
    limits = [
        *([] if measure.at_most is None else [f"≤ {number(measure.at_most)}"]),
        *([] if measure.at_least is None else [f"≥ {number(measure.at_least)}"]),
    ]
    return _judged(limits, measure.reached)


def _judged(limits: Sequence[str], reached: bool | None) -> str:
    return f"{', '.join(limits)}: {_VERDICTS[reached]}" if limits else ""


def write_json(
    path: Path,
    bench: str,
    results: Sequence[Result],
    measures: Sequence[Measure],
    notes: Mapping[str, str],
    *,
    asked_rounds: int | None = None,
) -> None:
    """Write figures, measures and runs; `notes` has the conditions that a reader needs.

    `asked_rounds` is the number of rounds from the command line; None for the bench's own.
    """
    found = [figure for result in results for figure in result.figures()]
    content: dict[str, Any] = {
        "bench": bench,
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commit": history.commit(),
        "asked_rounds": asked_rounds,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "notes": dict(notes),
        "figures": [{**asdict(each), "reached": each.reached} for each in found],
        "measures": [{**asdict(each), "reached": each.reached} for each in measures],
        "seconds": {result.contest.title: result.samples for result in results},
        "markdown": "\n\n".join(tables(found, measures)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def tables(found: Sequence[Figure], measures: Sequence[Measure]) -> Iterator[str]:
    """Yield the tables that are not empty."""
    if found:
        yield table(found)
    if measures:
        yield measures_table(measures)
