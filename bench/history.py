"""The last ten results of each row, one line each, in a committed file that shows regressions.

Two kinds of runs leave no line: measures outside their limits on a disturbed machine, and runs with a number of rounds
other than the bench's own. The file has no details of the machine.
"""

import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

HISTORY = Path("docs", "generated", "bench-history.tsv")

#: Results of each row that the file keeps.
KEPT = 10

_HEAD = "date\tcommit\tbench\trow\tresult"


@dataclass(frozen=True, order=True)
class Entry:
    """One result: the ratio of a comparison, or a value with its unit."""

    bench: str
    row: str
    date: str
    commit: str
    result: str

    @property
    def line(self) -> str:
        """The entry as a line of the file."""
        bench, row, date, commit, result = (" ".join(each.split()) for each in astuple(self))
        return "\t".join((date, commit, bench, row, result))


def update(path: Path, contents: Iterable[Mapping[str, Any]]) -> None:
    """Add the results of these files, each run once, and keep the last `KEPT` of each row."""
    known = {*read(path.read_text())} if path.exists() else set()
    known.update(entry for content in contents for entry in entries(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([_HEAD, *(entry.line for entry in last(known))]) + "\n")


def read(text: str) -> Iterator[Entry]:
    """Yield the entries of a file's text."""
    for line in text.splitlines()[1:]:
        date, commit, bench, row, result = line.split("\t")
        yield Entry(bench, row, date, commit, result)


def last(found: Iterable[Entry]) -> list[Entry]:
    """The newest `KEPT` entries of each row, ordered by bench, row and date."""
    by_row: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in sorted(found):
        by_row[entry.bench, entry.row].append(entry)
    return [entry for row in by_row.values() for entry in row[-KEPT:]]


def entries(content: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the results of a bench's file: every ratio, and every measure with a limit."""
    if "date" not in content or content["asked_rounds"] is not None:
        return
    run = {"bench": content["bench"], "date": content["date"], "commit": content["commit"]}
    for each in content["figures"]:
        row = f"{each['contest']}: {each['phase']} / {each['reference']}"
        yield Entry(row=row, result=f"{each['ratio']:.3f}", **run)
    for each in content["measures"]:
        if each["reached"] is not None:
            games = "" if each["games"] is None else f", {each['games']:,} games"
            yield Entry(row=f"{each['what']}{games}", result=f"{each['value']:.4g} {each['unit']}".strip(), **run)


def commit() -> str:
    """The measured commit, with a plus when files outside docs differ from it; `unknown` outside a repository."""
    try:
        named = _git("rev-parse", "--short=12", "HEAD")
        return f"{named}+" if _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs") else named
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
