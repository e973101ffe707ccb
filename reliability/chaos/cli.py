"""`python -m reliability.chaos`: runs seeds one after the other, until one finds a violation."""

import argparse
import secrets
import sys
from collections.abc import Sequence

from harness.fixtures import dockerd
from harness.runs import flag
from reliability.chaos import report
from reliability.chaos.plan import Size
from reliability.chaos.run import run

MINUTES = 6.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the seeds; exit code 0 when none found a violation."""
    parser = argparse.ArgumentParser(prog="python -m reliability.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, action="append", help="may be given several times; default: one by chance")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each seed (%(default)s)")
    parser.add_argument("--main-daemon", action="store_true", help="leave Docker itself alone")
    parser.add_argument("--keep", action="store_true", help="leave history, logs, tables and streams in any case")
    options = parser.parse_args(arguments)
    flag.begin()
    reason = dockerd.why_unavailable()
    if reason and not options.main_daemon:
        print(f"Docker itself is left alone: {reason}", file=sys.stderr)
    size = Size(own_daemon=not options.main_daemon and not reason)
    bad = [
        seed
        for seed in options.seed or [secrets.randbelow(1 << 30)]
        if not _is_well(seed, options.minutes, size, options.keep)
    ]
    if bad:
        print(
            "again: " + ", ".join(f"make chaos SEED={seed} MINUTES={options.minutes:g}" for seed in bad),
            file=sys.stderr,
        )
    return 1 if bad else 0


def _is_well(seed: int, minutes: float, size: Size, keep: bool) -> bool:
    print(f"chaos: seed {seed}, {minutes:g} minutes", file=sys.stderr, flush=True)
    found = run(seed, minutes * 60, size, keep=keep)
    path = report.written(found)
    print(f"{report.table(found)}\n  {path}", file=sys.stderr, flush=True)
    return not found.problems
