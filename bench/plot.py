"""The plots of docs/performance.md: ratios as a share of their goals, and costs by the number of games."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # after the backend is chosen

_REACHED, _MISSED = "#4c9f70", "#c8553d"


pyplot.rcParams["svg.hashsalt"] = "bench"  # the same figures give the same file


def draw(figures: Sequence[Any], path: Path) -> None:
    """Draw a bar for each figure with a goal; a bar that ends before the line at 1 reaches its goal."""
    with_goal = [each for each in figures if each["goal"] and each["goal"]["median"]]
    names = [f"{each['contest']}: {each['phase']}" for each in with_goal]
    shares = [each["ratio"] / each["goal"]["median"] for each in with_goal]
    figure, axes = pyplot.subplots(figsize=(9, 0.35 * len(with_goal) + 1))
    axes.barh(names, shares, color=[_REACHED if share <= 1 else _MISSED for share in shares])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("ours / reference, as a share of what is to be reached (shorter is better)")
    _save(figure, path)


def draw_growth(costs: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Draw a line for each cost by the number of games, as a multiple of its value with the fewest."""
    figure, axes = pyplot.subplots(figsize=(9, 4))
    for what, points in costs.items():
        axes.plot(list(points), [value / next(iter(points.values())) for value in points.values()], "o-", label=what)
    axes.axhline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("games")
    axes.set_ylabel("times what it is with the fewest games")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
