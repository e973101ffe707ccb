"""The plot of docs/performance.md: each figure that has a goal, as the share of it that is used up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # after the backend is chosen

_REACHED, _MISSED = "#4c9f70", "#c8553d"


def draw(figures: Sequence[Any], path: Path) -> None:
    """A bar for each; the line at 1 is the goal, and a bar that ends before it keeps it."""
    asked = [each for each in figures if each["goal"] and each["goal"]["median"]]
    names = [f"{each['contest']}: {each['phase']}" for each in asked]
    shares = [each["ratio"] / each["goal"]["median"] for each in asked]
    pyplot.rcParams["svg.hashsalt"] = "bench"  # the same figures give the same file
    figure, axes = pyplot.subplots(figsize=(9, 0.35 * len(asked) + 1))
    axes.barh(names, shares, color=[_REACHED if share <= 1 else _MISSED for share in shares])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("ours / reference, as a share of what is to be reached (shorter is better)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
