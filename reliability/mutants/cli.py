"""The command line of the mutants. Exit code 1: a mutant survived, or the list or the suite is wrong."""

import argparse
import sys
import time
from collections.abc import Sequence

from harness.errors import HarnessError
from harness.runs import cleanup
from reliability.mutants.catalogue import MUTANTS
from reliability.mutants.mutant import Mutant, MutantError
from reliability.mutants.report import Trial, table
from reliability.mutants.trial import ROOT, attempt, suite


def chosen(names: Sequence[str]) -> list[Mutant]:
    """The mutants with these names, or all without names; raises MutantError."""
    known = {mutant.name for mutant in MUTANTS}
    if unknown := sorted(set(names) - known):
        raise MutantError(f"there is no mutant {unknown[0]}; there are {', '.join(sorted(known))}")
    return [mutant for mutant in MUTANTS if not names or mutant.name in names]


def modules_for(mutant: Mutant, quick: bool) -> list[str]:
    """The modules to run: the one that should catch the mutant, and unless `quick` all others after it."""
    likely = f"integration.{mutant.module}"
    return [likely] if quick else [likely, *(module for module in suite() if module != likely)]


def check_list(mutants: Sequence[Mutant]) -> None:
    """Raise MutantError for an edit that cannot be made, before time is spent on the others."""
    if problems := [problem for mutant in mutants if (problem := mutant.problem(ROOT))]:
        raise MutantError("\n".join(problems))


def check_suite(modules: Sequence[str]) -> None:
    """Raise MutantError when the suite fails without any edit: then its failures prove nothing."""
    outcome = attempt(None, modules)
    if outcome.failed or not outcome.tests:
        raise MutantError(f"the suite fails on the unchanged tree: {outcome.failed or 'no tests'}: {outcome.why}")


def try_out(mutant: Mutant, quick: bool) -> Trial:
    """Run the suite against one mutant."""
    began = time.monotonic()
    outcome = attempt(mutant, modules_for(mutant, quick))
    return Trial(mutant, outcome.failed, outcome.why, time.monotonic() - began)


def run(mutants: Sequence[Mutant], quick: bool) -> list[Trial]:
    """Try all of them, after the unchanged tree."""
    check_list(mutants)
    modules = sorted({module for mutant in mutants for module in modules_for(mutant, quick)})
    _say(f"the unchanged tree: {len(modules)} modules of the suite")
    check_suite(modules)
    trials = []
    for mutant in mutants:
        trials.append(try_out(mutant, quick))
        _say(str(trials[-1]))
    return trials


def main(argv: list[str] | None = None) -> int:
    """Try mutants and print the table; return the exit code of the process."""
    parser = argparse.ArgumentParser(prog="python -m reliability.mutants", description="break the manager on purpose")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; all by default")
    parser.add_argument("--quick", action="store_true", help="run the module that should catch it, not the suite")
    arguments = parser.parse_args(argv)
    cleanup.unwind_on_sigterm()  # otherwise the suite would run on in a copy that is not removed
    try:
        trials = run(chosen(arguments.names), arguments.quick)
    except (MutantError, HarnessError) as error:
        _say(f"mutants: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(table(trials) + "\n")
    survivors = [trial.mutant.name for trial in trials if not trial.caught_by]
    if survivors:
        _say(f"{len(survivors)} of {len(trials)} survived: {', '.join(survivors)}")
    return 1 if survivors else 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
