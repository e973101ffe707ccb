"""`python -m bench page`: the tables of the last runs put into docs/performance.md, its plots drawn, the history kept.

The page's sentences are written by hand, its figures are not: what stands between the marks `<!-- bench NAME -->` and
`<!-- end -->` is replaced by what the bench of that name wrote to its file.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import history
from bench.errors import BenchError
from bench.history import HISTORY

PAGE = Path("docs", "performance.md")
PLOT = Path("docs", "performance.svg")
GROWTH = Path("docs", "performance-growth.svg")

_PART = re.compile(r"(<!-- bench (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: What a bench wrote to its file.
Content = Mapping[str, Any]


def write(folder: Path) -> None:
    """Renew page and plots from the files in `folder`; the part of a bench that was not run stays as it is.

    Raises BenchError when none was.
    """
    text = PAGE.read_text()
    files = {name: folder / f"bench-{name}.json" for name in names(text)}
    contents = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    if not contents:
        raise BenchError(f"no bench has left a file in {folder}: run python -m bench {names(text)[0]} first")
    PAGE.write_text(filled(text, contents))
    history.update(HISTORY, contents.values())
    _draw(list(contents.values()))


def names(text: str) -> list[str]:
    """The benches whose tables a page shows."""
    return [part["name"] for part in _PART.finditer(text)]


def filled(text: str, contents: Mapping[str, Content]) -> str:
    """The page with the tables of these benches."""

    def part(found: "re.Match[str]") -> str:
        content = contents.get(found["name"])
        if content is None:
            return found[0]
        notes = "".join(f"- {what}: {note}\n" for what, note in content["notes"].items())
        return f"{found[1]}\n{content['markdown']}\n\n{notes}\n{found[3]}"

    return _PART.sub(part, text)


def _draw(contents: Sequence[Content]) -> None:
    from bench import plot

    figures = [each for content in contents for each in content["figures"] if not each.get("unmeasured")]
    plot.draw(figures, PLOT)
    plot.draw_growth(growing([each for content in contents for each in content["measures"]]), GROWTH)


def growing(measures: Sequence[Any]) -> dict[str, dict[int, float]]:
    """Values by the number of games, of what was measured with several."""
    found: dict[str, dict[int, float]] = {}
    for each in measures:
        if each["games"] is not None and not each.get("unmeasured"):
            found.setdefault(each["what"], {})[each["games"]] = each["value"]
    return {what: dict(sorted(points.items())) for what, points in found.items() if len(points) > 1}
