"""One protection: the edits that remove it, and the check that detects the removal."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reliability.mutants.mutant import Mutant


@dataclass(frozen=True)
class Edit:
    """An edit: `old` occurs exactly once in `file`, a path below the project's root, and is replaced by `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Notice:
    """The check that must fail: `python -m` with these arguments, and a short description."""

    words: str
    arguments: Sequence[str]


@dataclass(frozen=True)
class Protection:
    """A protection: `edits` remove it; then `noticed_by` fails, and not before."""

    name: str
    #: The loss without it, as a user of the service would describe it.
    without: str
    edits: Sequence[Edit]
    noticed_by: Notice

    def mutants(self) -> Sequence[Mutant]:
        """The edits as mutants."""
        return [Mutant(self.name, self.without, edit.file, edit.old, edit.new, "") for edit in self.edits]

    def problem(self, root: Path) -> str | None:
        """Why an edit cannot be made under `root`; None when all can."""
        return next((problem for each in self.mutants() if (problem := each.problem(root))), None)


def cells(scenario: str, point: str, action: str = "exit") -> Notice:
    """The check by these cells of the crash matrix."""
    how = ("--scenario", scenario, "--point", point, "--action", action)
    words = f"crash matrix: {scenario}, {point}={action}"
    return Notice(words, ("reliability.crashes", "--jobs", "2", "--patience", "25", *how))


def test(name: str) -> Notice:
    """The check by this test."""
    return Notice(name, ("unittest", name))


def chaos(seed: int, minutes: float) -> Notice:
    """The check by this chaos run."""
    how = ("--seed", str(seed), "--minutes", f"{minutes:g}")
    return Notice(f"chaos: seed {seed}, {minutes:g} minutes", ("reliability.chaos", *how))
