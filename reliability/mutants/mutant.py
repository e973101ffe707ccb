"""A mutant: one edit of one file that breaks one thing a user relies on."""

from dataclasses import dataclass
from pathlib import Path


class MutantError(Exception):
    """The list, or the trial itself, is invalid: the result proves nothing about the suite."""


@dataclass(frozen=True)
class Mutant:
    """An edit: `old` occurs exactly once in `file`, a path below the project's root, and is replaced by `new`."""

    name: str
    #: The defect, as a user of the service would describe it.
    breaks: str
    file: str
    old: str
    new: str
    #: The module of the suite that should catch it.
    module: str

    def problem(self, root: Path) -> str | None:
        """Why the edit cannot be made under `root`; None when it can."""
        path = root / self.file
        if not path.is_file():
            return f"{self.name}: there is no {self.file}"
        found = path.read_text().count(self.old)
        if found != 1:
            return f"{self.name}: its old text stands {found} times in {self.file}, and not once:\n{self.old}"
        return None

    def apply(self, root: Path) -> None:
        """Make the edit under `root`; raises MutantError."""
        if problem := self.problem(root):
            raise MutantError(problem)
        path = root / self.file
        path.write_text(path.read_text().replace(self.old, self.new))
