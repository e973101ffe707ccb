"""What a bench found: a table for people, in markdown, and a JSON file with every single run for programs."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.contest import Contest, Samples, hold
from bench.figures import Figure, Spread, figures

_HEAD = (
    "| what | ours, median / p95 / max ms | compared with | its median / p95 / max ms | times as quick (at least) "
    "| rounds |\n"
    "|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Result:
    """A contest that was held."""

    contest: Contest
    samples: Samples

    @classmethod
    def of(cls, contest: Contest, rounds: int) -> "Result":
        """Hold it now."""
        return cls(contest, hold(contest, rounds))

    def figures(self) -> list[Figure]:
        """What it comes to."""
        return list(figures(self.contest, self.samples))


def table(found: Sequence[Figure]) -> str:
    """The figures as a markdown table."""
    return "\n".join([_HEAD, *_rows(found)])


def _rows(found: Sequence[Figure]) -> Iterator[str]:
    for each in found:
        ours, theirs = map(_cell, (each.ours, each.theirs))
        times = f"**{each.times_as_quick:.2f}** ({each.at_least:.2f})"
        yield f"| {each.contest}: {each.phase} | {ours} | {each.reference} | {theirs} | {times} | {each.rounds} |"


def _cell(spread: Spread) -> str:
    return f"{spread.median_ms:.1f} / {spread.p95_ms:.1f} / {spread.longest_ms:.1f}"


def write_json(path: Path, bench: str, results: Sequence[Result], notes: Mapping[str, str]) -> None:
    """Write figures and runs; `notes` is what a reader must know of the conditions."""
    content: dict[str, Any] = {
        "bench": bench,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "notes": dict(notes),
        "figures": [asdict(each) for result in results for each in result.figures()],
        "seconds": {result.contest.title: result.samples for result in results},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
