"""A mutant: edits of the Runtime Manager, and the check that must detect them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reliability.mutants.check import Check


class MutantError(Exception):
    """The list, or the trial itself, is invalid: the result proves nothing about the check."""


@dataclass(frozen=True)
class Edit:
    """An edit: `old` occurs exactly once in `file`, a path below `rtmanager/`, and is replaced by `new`."""

    file: str
    old: str
    new: str

    def changed(self, root: Path) -> str:
        """The text of the file under the project's `root` after the edit; raises MutantError."""
        path = self._path(root)
        if not path.is_file():
            raise MutantError(f"there is no rtmanager/{self.file}")
        text = path.read_text()
        if (found := text.count(self.old)) != 1:
            raise MutantError(f"its old text stands {found} times in {self.file}, and not once:\n{self.old}")
        return text.replace(self.old, self.new)

    def apply(self, root: Path) -> None:
        """Make the edit under `root`; raises MutantError."""
        self._path(root).write_text(self.changed(root))

    def _path(self, root: Path) -> Path:
        return root / "rtmanager" / self.file


class Mutant:
    """A defect: after its edits `check` fails, and not before. `breaks` is the defect as a user describes it."""

    def __init__(self, name: str, breaks: str, *edits: Edit, check: Check) -> None:
        self.name = name
        self.breaks = breaks
        self.edits = edits
        self.check = check

    def problems(self, root: Path) -> Iterator[str]:
        """Why edits cannot be made under `root`."""
        for edit in self.edits:
            try:
                edit.changed(root)
            except MutantError as error:
                yield f"{self.name}: {error}"
