"""The command line of the mutants. Exit code 1: a mutant survived, or the list or a check is wrong."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from harness.errors import HarnessError
from harness.runs import cleanup
from reliability.mutants.catalogue import GROUPS
from reliability.mutants.check import ROOT, distinct, whole
from reliability.mutants.mutant import Mutant, MutantError
from reliability.mutants.trial import attempt

_HEAD = "| mutant | what it breaks | check | what failed |\n|---|---|---|---|"


@dataclass(frozen=True)
class Trial:
    """A tried mutant; `failure` is what failed in its check, None when the mutant survived."""

    mutant: Mutant
    failure: str | None
    seconds: float

    def __str__(self) -> str:
        result = "SURVIVED" if self.failure is None else f"caught by {self.failure}"
        return f"{self.mutant.name:<24} {self.seconds:5.1f} s  {result}"

    def row(self) -> str:
        """The result as a row of a Markdown table."""
        failure = "**nothing**" if self.failure is None else self.failure.replace("|", "\\|")
        return f"| {self.mutant.name} | {self.mutant.breaks} | {self.mutant.check.text} | {failure} |"


def chosen(names: Sequence[str], group: str) -> Sequence[Mutant]:
    """The mutants with these names, or the group without names; raises MutantError."""
    known = {mutant.name: mutant for mutants in GROUPS.values() for mutant in mutants}
    if unknown := sorted(set(names) - known.keys()):
        raise MutantError(f"there is no mutant {unknown[0]}; there are {', '.join(sorted(known))}")
    return [known[name] for name in names] or GROUPS[group]


def in_whole_suite(mutant: Mutant) -> Mutant:
    """The mutant against the whole suite, where its check is a module of it."""
    return Mutant(mutant.name, mutant.breaks, *mutant.edits, check=whole(mutant.check))


def run(mutants: Sequence[Mutant], jobs: int) -> Iterator[Trial]:
    """Try the mutants, after all their checks have passed on the unchanged tree; raises MutantError."""
    if problems := [problem for mutant in mutants for problem in mutant.problems(ROOT)]:
        raise MutantError("\n".join(problems))
    stop = Event()
    with ThreadPoolExecutor(jobs) as threads:
        try:
            checks = distinct(mutant.check for mutant in mutants)
            _print(f"the unchanged tree: {'; '.join(check.text for check in checks)}")
            for failure in threads.map(lambda check: attempt((), check, stop), checks):
                if failure is not None:
                    raise MutantError(f"a check fails on the unchanged tree: {failure}")
            yield from threads.map(lambda mutant: _try(mutant, stop), mutants)
        finally:
            stop.set()


def _try(mutant: Mutant, stop: Event) -> Trial:
    began = time.monotonic()
    failure = attempt(mutant.edits, mutant.check, stop)
    return Trial(mutant, failure, time.monotonic() - began)


def main(argv: Sequence[str] | None = None) -> int:
    """Try mutants and print the table; return the exit code of the process."""
    parser = argparse.ArgumentParser(prog="python -m reliability.mutants", description="break the manager on purpose")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; a group by default")
    parser.add_argument("--group", choices=list(GROUPS), default="mutants", help="which without names (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="run the module that should catch it, not the suite")
    parser.add_argument("--jobs", type=int, default=1, help="side by side (%(default)s)")
    arguments = parser.parse_args(argv)
    cleanup.unwind_on_sigterm()  # otherwise checks would run on in copies that are not removed
    trials = []
    try:
        mutants = chosen(arguments.names, arguments.group)
        for trial in run(mutants if arguments.quick else [in_whole_suite(each) for each in mutants], arguments.jobs):
            trials.append(trial)
            _print(str(trial))
    except (MutantError, HarnessError) as error:
        _print(f"mutants: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    print("\n".join([_HEAD, *(trial.row() for trial in trials)]))
    survivors = [trial.mutant.name for trial in trials if trial.failure is None]
    if survivors:
        _print(f"{len(survivors)} of {len(trials)} survived: {', '.join(survivors)}")
    return 1 if survivors else 0


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
