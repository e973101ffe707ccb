"""The picture of one start job: the whole, and enlarged the time before and after Docker's start.

Each thread has a lane. The critical path has full colour; other work is pale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # after the backend is chosen
from matplotlib.patches import Patch

from bench.profile.critical_path import EXECUTOR, INGEST, OPERATION, RELAY, Job, Part
from bench.profile.notes import Span

LANES = (INGEST, EXECUTOR, OPERATION, RELAY)
START = "docker.start"

_COLOURS = {"postgres": "#336791", "redis": "#c6302b", "docker": "#7fa650", "directory": "#d9a441"}
_OTHER = "#9a9a9a"
#: Shorter bars have no name; a share of the panel's width.
_NAMED = 0.012
#: Room for the names above the first lane, in lanes.
_ROOM = 1.6


@dataclass(frozen=True)
class _Panel:
    """A section of the job's time; `named` switches the names of its parts on."""

    title: str
    began_ns: int
    ended_ns: int
    named: bool

    def shows(self, part: Part | Span) -> bool:
        """Whether the part overlaps the panel."""
        return part.ended_ns > self.began_ns and part.began_ns < self.ended_ns

    def names(self, part: Part) -> bool:
        """Whether the part is long enough for a name."""
        return self.named and part.took_ns > _NAMED * (self.ended_ns - self.began_ns)


def draw(job: Job, parts: Sequence[Part], spans: Sequence[Span], path: Path) -> None:
    """Draw the picture into that file."""
    pyplot.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 8})
    panels = _panels(job, parts)
    figure, all_axes = pyplot.subplots(len(panels), 1, figsize=(11, 11), height_ratios=(1, 2, 2))
    for axes, panel in zip(all_axes, panels, strict=True):
        _set_up(axes, panel, job)
        _pale(axes, [span for span in spans if panel.shows(span)], job)
        _full(axes, panel, [part for part in parts if panel.shows(part)], job)
    kinds = [Patch(color=colour, label=kind) for kind, colour in _COLOURS.items()]
    all_axes[0].legend(handles=[*kinds, Patch(color=_OTHER, label="Python and threads")], ncols=5, loc=(0, 1.0))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _panels(job: Job, parts: Sequence[Part]) -> Sequence[_Panel]:
    start = next(part for part in parts if part.what == START)
    return (
        _Panel("one start job", job.began_ns, job.ended_ns, named=False),
        _Panel("until Docker starts the container", job.began_ns, start.began_ns, named=True),
        _Panel("since Docker has started it", start.ended_ns, job.ended_ns, named=True),
    )


def _set_up(axes: Any, panel: _Panel, job: Job) -> None:
    axes.set_title(f"{panel.title}: {_ms(panel.ended_ns - panel.began_ns):.1f} ms", loc="right")
    axes.set_xlim(_ms(panel.began_ns - job.began_ns), _ms(panel.ended_ns - job.began_ns))
    axes.set_xlabel("ms since the entry was added")
    axes.set_yticks(range(len(LANES)), LANES)
    axes.set_ylim(len(LANES) - 0.5, -_ROOM if panel.named else -0.5)


def _pale(axes: Any, spans: Sequence[Span], job: Job) -> None:
    """Draw what the job's threads do, on the critical path or not."""
    for span in spans:
        lane = next((number for number, name in enumerate(LANES) if span.thread.startswith(name)), None)
        if lane is not None:
            began, width = _ms(span.began_ns - job.began_ns), _ms(span.ended_ns - span.began_ns)
            axes.barh(lane, width, 0.3, began, color=_colour(span.what), alpha=0.25)


def _full(axes: Any, panel: _Panel, parts: Sequence[Part], job: Job) -> None:
    """Draw the critical path."""
    for part in parts:
        lane, began, width = LANES.index(part.stage), _ms(part.began_ns - job.began_ns), _ms(part.took_ns)
        axes.barh(lane, width, 0.5, began, color=_colour(part.what), edgecolor="white", linewidth=0.4)
        if panel.names(part):
            text = f"{part.what} {width:.2f}"
            axes.text(began + width / 2, lane - 0.28, text, rotation=38, rotation_mode="anchor", fontsize=6.5)


def _ms(nanoseconds: int) -> float:
    return nanoseconds / 1e6


def _colour(what: str) -> str:
    return _COLOURS.get(what.partition(".")[0], _OTHER)
