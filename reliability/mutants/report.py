"""The result of a mutant, and the table of all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reliability.mutants.mutant import Mutant

_HEAD = "| what is broken | where | caught by |\n|---|---|---|"


@dataclass(frozen=True)
class Trial:
    """A tried mutant; `caught_by` is the test that failed, empty when none did."""

    mutant: Mutant
    caught_by: str
    why: str
    seconds: float

    def __str__(self) -> str:
        told = f"caught by {self.caught_by}: {self.why}" if self.caught_by else "SURVIVED"
        return f"{self.mutant.name:<24} {self.seconds:5.1f} s  {told}"


def table(trials: Sequence[Trial]) -> str:
    """All of them as a markdown table."""
    return "\n".join([_HEAD, *_rows(trials)])


def _rows(trials: Sequence[Trial]) -> Iterator[str]:
    for trial in trials:
        caught = f"`{short(trial.caught_by)}`" if trial.caught_by else "**nothing**"
        yield f"| {trial.mutant.breaks} | `{trial.mutant.file.removeprefix('rtmanager/')}` | {caught} |"


def short(test_id: str) -> str:
    """A test's id in the table: module and method, without the part of a sub-test."""
    named, _, _ = test_id.partition(" ")
    parts = named.removeprefix("integration.").split(".")
    return f"{parts[0]}: {parts[-1]}" if len(parts) > 1 else test_id
