"""`python -m bench page`: writes docs/generated/performance.md from the files of the last runs, and draws its plots.

The page has a part for each bench, between the marks `<!-- bench NAME -->` and `<!-- end -->`. A bench without a
file keeps its earlier part. The results are also added to the history. docs/performance.md is written by hand.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import history
from bench.catalogue import BENCHES
from bench.errors import BenchError
from bench.history import HISTORY

PAGE = Path("docs", "generated", "performance.md")
PLOT = Path("docs", "performance.svg")
GROWTH = Path("docs", "performance-growth.svg")

_PART = re.compile(r"<!-- bench (?P<name>[a-z-]+) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)

_HEAD = """\
# Performance: the latest tables

This page is made by `python -m bench page`. [Performance](../performance.md) explains how to read it.
"""

#: The content of a bench's JSON file.
Content = Mapping[str, Any]


def write(folder: Path) -> None:
    """Write page, plots and history from the files in `folder`.

    Raises BenchError when it has none.
    """
    files = {name: folder / f"bench-{name}.json" for name in BENCHES}
    contents = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    if not contents:
        raise BenchError(f"no bench has left a file in {folder}: run python -m bench {next(iter(BENCHES))} first")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(parts(PAGE.read_text()) if PAGE.exists() else {}, contents))
    history.update(HISTORY, contents.values())
    _draw(list(contents.values()))


def parts(text: str) -> dict[str, str]:
    """The text between the marks, by bench."""
    return {part["name"]: part["body"] for part in _PART.finditer(text)}


def page(earlier: Mapping[str, str], contents: Mapping[str, Content]) -> str:
    """The page with the new tables of these benches, and the earlier parts of the others."""
    bodies = {**earlier, **{name: _body(content) for name, content in contents.items()}}
    shown = {name: bodies[name] for name in BENCHES if name in bodies}
    sections = (
        f"\n## {name}\n\n{about(name)}\n\n<!-- bench {name} -->\n{body}<!-- end -->\n" for name, body in shown.items()
    )
    return "".join([_HEAD, f"\n{goals(shown)}", *sections])


def about(name: str) -> str:
    """The description of a bench, as a sentence."""
    text = BENCHES[name][1]
    return f"{text[0].upper()}{text[1:]}."


def _body(content: Content) -> str:
    notes = "".join(f"- {what}: {note}\n" for what, note in content["notes"].items())
    return f"\n{content['markdown']}\n\n{notes}\n"


def goals(bodies: Mapping[str, str]) -> str:
    """The number of goals that are reached, and a line for each row that misses one or leaves it open."""
    verdicts = [(name, what, verdict) for name, body in bodies.items() for what, verdict in _verdicts(body)]
    count = Counter(verdict for _, _, verdict in verdicts)
    summary = f"Goals reached: {count['reached']} of {count.total()}.\n"
    others = "".join(f"- `{name}`: {what}: {verdict}\n" for name, what, verdict in verdicts if verdict != "reached")
    return summary + (f"\n{others}" if others else "")


def _verdicts(body: str) -> Iterator[tuple[str, str]]:
    """Yield the first cells and the verdict of each row that has a verdict."""
    for line in body.splitlines():
        if not line.startswith("| "):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found = re.search(r": (?:\*\*)?(reached|missed|open)(?:\*\*)?$", "\n".join(cells), re.MULTILINE)
        if found:
            games = f", {cells[1]} games" if re.fullmatch(r"[\d,]+", cells[1]) else ""
            yield f"{cells[0]}{games}", found[1]


def _draw(contents: Sequence[Content]) -> None:
    from bench import plot

    figures = [each for content in contents for each in content["figures"]]
    plot.draw(figures, PLOT)
    if costs := growing([each for content in contents for each in content["measures"]]):
        plot.draw_growth(costs, GROWTH)


def growing(measures: Sequence[Any]) -> dict[str, dict[int, float]]:
    """Values by the number of games, of the costs that were measured with several numbers."""
    found: dict[str, dict[int, float]] = {}
    for each in measures:
        if each["games"] is not None and not each.get("disturbed"):
            found.setdefault(each["what"], {})[each["games"]] = each["value"]
    return {what: dict(sorted(points.items())) for what, points in found.items() if len(points) > 1}
