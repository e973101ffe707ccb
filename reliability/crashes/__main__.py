"""The whole matrix: `python -m reliability.crashes`; prints verdicts and a table, writes artifacts/crashes.json."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from harness.fixtures import postgres
from harness.runs import flag
from reliability.crashes.cells import FAILED, Verdict
from reliability.crashes.matrix import ACTIONS, Matrix, Reached, settings
from reliability.crashes.platform import REST_TIMEOUT_S
from reliability.crashes.scenarios import SCENARIOS


def main() -> bool:
    """Run the selected cells; return whether all passed."""
    parser = argparse.ArgumentParser(prog="python -m reliability.crashes", description=__doc__)
    parser.add_argument("--jobs", type=int, default=8, help="cells side by side (8): they mostly wait")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this; may be repeated")
    parser.add_argument("--point", default="", help="only points that begin with this")
    parser.add_argument("--action", action="append", choices=ACTIONS, help="only this")
    parser.add_argument(
        "--patience", type=float, default=REST_TIMEOUT_S, help="seconds until all is at rest (%(default)g)"
    )
    parser.add_argument("--every", action="store_true", help="what the workers reach in every operation, not in four")
    arguments = parser.parse_args()
    flag.begin()
    began = time.monotonic()
    with ExitStack() as stack:
        server = stack.enter_context(postgres.start(settings=settings(arguments.jobs)))
        matrix = Matrix(server, arguments.jobs, stack, arguments.patience)
        reached = matrix.observe(arguments.scenario or tuple(SCENARIOS))
        todo = [
            cell
            for cell in reached.cells(arguments.action or ACTIONS, every=arguments.every)
            if cell.point.startswith(arguments.point)
        ]
        print(f"{len(todo)} cells, {arguments.jobs} side by side", flush=True)
        verdicts = []
        for number, verdict in enumerate(matrix.run(todo), 1):
            verdicts.append(verdict)
            if verdict.outcome == FAILED or number % 25 == 0:
                print(f"{number:>5}  {verdict.outcome:<12} {verdict.seconds:5.1f} s  {verdict.cell}", flush=True)
            if verdict.why:
                print(verdict.why, flush=True)
    return _report(reached, verdicts, time.monotonic() - began, whole=not (arguments.scenario or arguments.point))


def _report(reached: Reached, verdicts: Sequence[Verdict], seconds: float, *, whole: bool) -> bool:
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    print(f"\n{'operation':<22}{'points':>8}{'cells':>8}  outcomes")
    for scenario, points in reached.by_scenario.items():
        ours = Counter(verdict.outcome for verdict in verdicts if verdict.cell.scenario == scenario)
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(ours.items()))
        print(f"{scenario:<22}{len(set(points)):>8}{ours.total():>8}  {counts}")
    print(f"{outcomes.total()} cells in {seconds:.0f} s: " + ", ".join(f"{n} {what}" for what, n in outcomes.items()))
    never = sorted(reached.never()) if whole else []
    if never:
        print(f"never reached: {', '.join(never)}")
    folder = Path("artifacts")
    folder.mkdir(exist_ok=True)
    found = {"seconds": round(seconds), "never reached": never, "cells": [asdict(verdict) for verdict in verdicts]}
    (folder / "crashes.json").write_text(json.dumps(found, indent=1))
    return not outcomes[FAILED]


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
