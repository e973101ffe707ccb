"""One protection: how it is taken out, and what notices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reliability.mutants.mutant import Mutant


@dataclass(frozen=True)
class Edit:
    """`old` stands exactly once in `file`, a path below the project's root, and is replaced by `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Notice:
    """What has to fail: a `python -m` with these arguments, and what that is in a few words."""

    words: str
    arguments: Sequence[str]


@dataclass(frozen=True)
class Protection:
    """`edits` take it out; `noticed_by` fails then, and not before."""

    name: str
    #: What is lost without it, as somebody who uses the service would put it.
    without: str
    edits: Sequence[Edit]
    noticed_by: Notice

    def mutants(self) -> Sequence[Mutant]:
        """The edits, as what can make them."""
        return [Mutant(self.name, self.without, edit.file, edit.old, edit.new, "") for edit in self.edits]

    def problem(self, root: Path) -> str | None:
        """Why an edit cannot be made under `root`; None when all can."""
        return next((problem for each in self.mutants() if (problem := each.problem(root))), None)


def cells(scenario: str, point: str, action: str = "exit") -> Notice:
    """Those cells of the crash matrix."""
    how = ("--scenario", scenario, "--point", point, "--action", action)
    words = f"crash matrix: {scenario}, {point}={action}"
    return Notice(words, ("reliability.crashes", "--jobs", "2", "--patience", "25", *how))


def test(name: str) -> Notice:
    """That test."""
    return Notice(name, ("unittest", name))


def chaos(seed: int, minutes: float) -> Notice:
    """That run of chaos."""
    how = ("--seed", str(seed), "--minutes", f"{minutes:g}")
    return Notice(f"chaos: seed {seed}, {minutes:g} minutes", ("reliability.chaos", *how))
