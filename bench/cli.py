"""The command line: `python -m bench NAME [--runs N] [--json FILE]`, and `python -m bench page`."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from bench import page
from bench.calibration import Yardstick, apart
from bench.catalogue import BENCHES, Bench, load
from bench.errors import BenchError
from bench.measure import Measure
from bench.report import Result, tables, write_json
from harness.errors import HarnessError
from harness.runs import cleanup

#: Default directory of the benches' files.
FOLDER = Path("artifacts")


def run(name: str, rounds: int | None, json_path: Path) -> None:
    """Run every comparison and measure of one bench, print the tables, and write the JSON file."""
    began = time.monotonic()
    bench = load(name)
    results = []
    for contest in bench.contests():
        sys.stderr.write(f"== {contest.title}: {contest.rounds_of(rounds)} rounds of {len(contest.sides)}\n")
        results.append(Result.of(contest, rounds))
    measures = measured(bench)
    write_json(json_path, name, results, measures, bench.notes, asked_rounds=rounds)
    for each in tables([figure for result in results for figure in result.figures()], measures):
        print(each)
        print()
    for what, note in bench.notes.items():
        print(f"- {what}: {note}")
    sys.stderr.write(f"{name} took {time.monotonic() - began:.0f} s; every run is in {json_path}\n")


def measured(bench: Bench) -> list[Measure]:
    """The bench's measures; those taken while the machine's speed changed have a note."""
    if bench.measures is None:
        return []
    with closing(Yardstick.of(bench.leans_on)) as yardstick:
        before = yardstick.speed()
        measures = list(bench.measures())
        changed = apart(before, yardstick.speed())
    # A count, which has no unit, is the same at any speed.
    return [replace(each, disturbed=changed) if each.unit else each for each in measures]


def failures(error: BaseException) -> Iterator[str]:
    """Describe the first error, then the errors that cleaning up after it raised."""
    if error.__context__ is not None and not error.__suppress_context__:
        yield from failures(error.__context__)
    yield str(error) if isinstance(error, BenchError | HarnessError) else f"{type(error).__name__}: {error}"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="compare ours with other ways, in one run")
    benches = parser.add_subparsers(dest="bench", required=True, metavar="NAME")
    for name, (_, about) in BENCHES.items():
        options = benches.add_parser(name, help=about)
        options.add_argument("--runs", type=int, metavar="N", help="rounds of each contest, in place of its own number")
        options.add_argument("--json", type=Path, default=FOLDER / f"bench-{name}.json", metavar="FILE")
    benches.add_parser("page", help=f"the tables of the last runs put into {page.PAGE}, and its plot drawn")
    arguments = parser.parse_args(argv)
    if arguments.bench != "page" and arguments.runs is not None and arguments.runs < 1:
        parser.error(f"--runs is {arguments.runs}, but there has to be at least one")
    cleanup.unwind_on_sigterm()
    try:
        if arguments.bench == "page":
            page.write(FOLDER)
        else:
            run(arguments.bench, arguments.runs, arguments.json)
    except (BenchError, HarnessError) as error:
        sys.stderr.writelines(f"bench: {line}\n" for line in failures(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
