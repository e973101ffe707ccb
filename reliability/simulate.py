"""Runs seeded histories (`simulation`) and reports whether an invariant was violated.

python -m reliability.simulate --histories 10000 python -m reliability.simulate --seed 4711         # one history again,
step by step
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from reliability.simulation import Violation, run
from rtmanager.domain.messages import Stream


def count(histories: int, first: int = 0) -> Counter[str]:
    """Run `histories` seeds from `first` on, and count their events. Raises `Violation`."""
    totals: Counter[str] = Counter()
    for seed in range(first, first + histories):
        simulation = run(seed)
        health_events = (message.stream is Stream.HEALTH_EVENTS for message in simulation.store.messages.values())
        totals["steps"] += len(simulation.trace)
        totals["jobs"] += simulation.accepted.total()
        totals["processes ended from outside"] += len(simulation.ended_by_world)
        totals["containers removed from outside"] += len(simulation.gone_by_world)
        totals["restarts of the runtime"] += simulation.outages
        totals["exchanged runtimes"] += simulation.exchanges
        totals["instances"] += simulation.owners
        totals["health events"] += sum(health_events)
    return totals


def main() -> int:
    """Run the command; exit code 1 when a history violates an invariant, after its seed and last steps."""
    parser = argparse.ArgumentParser(prog="python -m reliability.simulate")
    parser.add_argument("--histories", type=int, default=1000, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed; the others follow")
    parser.add_argument("--seed", type=int, help="only this one, with every step")
    arguments = parser.parse_args()
    try:
        if arguments.seed is not None:
            sys.stdout.write("\n".join(run(arguments.seed).trace) + "\n")
        else:
            totals = count(arguments.histories, arguments.first)
            found = ", ".join(f"{number} {what}" for what, number in totals.items())
            sys.stdout.write(f"{arguments.histories} histories, no violation: {found}\n")
    except Violation as violation:
        sys.stderr.write("\n".join([*getattr(violation, "__notes__", []), str(violation)]) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
