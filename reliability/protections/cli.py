"""The command line of the protections. Exit code 1: a removal was not detected, or the list is wrong."""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.runs import cleanup
from reliability.mutants.mutant import MutantError
from reliability.mutants.trial import ROOT, copied, environment
from reliability.protections.catalogue import PROTECTIONS
from reliability.protections.protection import Notice, Protection

TIMEOUT_S = 900.0
#: Markers of a line that contains the failure; the first one found is quoted.
_TELLING = ("last seen: ", "AssertionError: ", "Error: ", "I1: ", "I2: ", "I3: ", "I4: ", "I7: ", "I8: ", "log: ")
_QUOTED = 140


@dataclass(frozen=True)
class Trial:
    """The result of one removal; `said` is the output of the check that detected it."""

    protection: Protection
    noticed: bool
    said: str
    seconds: float

    def row(self) -> str:
        """The result as a row of a Markdown table."""
        said = self.said.replace("|", "\\|") if self.noticed else "**unnoticed**"
        return f"| {self.protection.name} | {self.protection.without} | {self.protection.noticed_by.words} | {said} |"


def attempt(protection: Protection | None, notice: Notice) -> tuple[bool, str]:
    """Whether the check fails in a copy with the edits, and its output."""
    with copied() as folder:
        for mutant in protection.mutants() if protection else ():
            mutant.apply(folder / "tree")
        log = folder / "log"
        with log.open("w") as written:
            done = subprocess.run(
                [sys.executable, "-m", *notice.arguments],
                cwd=folder / "tree",
                env=environment(folder),
                stdout=written,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                check=False,
            )
        return done.returncode != 0, _said(log)


def _said(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    for mark in _TELLING:
        for line in lines:
            if mark in line:
                return line[line.index(mark) :].removeprefix("last seen: ")[:_QUOTED].strip()
    return lines[-1][:_QUOTED] if lines else "nothing"


def run(protections: Sequence[Protection], side_by_side: int) -> Iterator[Trial]:
    """Remove each protection, after all checks have passed on the unchanged tree."""
    if problems := [problem for each in PROTECTIONS if (problem := each.problem(ROOT))]:
        raise MutantError("\n".join(problems))
    with ThreadPoolExecutor(side_by_side) as threads:
        notices = {each.noticed_by for each in protections}
        outcomes = threads.map(lambda notice: attempt(None, notice), notices)
        for notice, (failed, said) in zip(notices, outcomes, strict=True):
            if failed:
                raise MutantError(f"{notice.words} fails on the unchanged tree: {said}")
        yield from threads.map(_take_out, protections)


def _take_out(protection: Protection) -> Trial:
    began = time.monotonic()
    noticed, said = attempt(protection, protection.noticed_by)
    return Trial(protection, noticed, said, time.monotonic() - began)


def main(argv: list[str] | None = None) -> int:
    """Try the selected protections and print the table; return the exit code of the process."""
    parser = argparse.ArgumentParser(prog="python -m reliability.protections", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; all by default")
    parser.add_argument("--jobs", type=int, default=3, help="side by side (3)")
    arguments = parser.parse_args(argv)
    cleanup.unwind_on_sigterm()
    chosen = [each for each in PROTECTIONS if not arguments.names or each.name in arguments.names]
    trials = []
    try:
        for trial in run(chosen, arguments.jobs):
            trials.append(trial)
            print(
                f"{'noticed' if trial.noticed else 'UNNOTICED':<10}{trial.seconds:6.0f} s  {trial.protection.name}",
                flush=True,
            )
    except MutantError as error:
        sys.stderr.write(f"protections: {error}\n")
        return 1
    print("| taken out | what is lost | noticed by | what it says |\n|---|---|---|---|")
    for trial in trials:
        print(trial.row())
    return 0 if all(trial.noticed for trial in trials) else 1
