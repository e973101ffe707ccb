"""Command line of the fuzz runs; exits 1 when a run finds a violation."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import random
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Protocol, cast


class FuzzRun(Protocol):
    """The interface of each module of this package."""

    DEFAULT_COUNT: int
    run: Callable[[int, int, Callable[[str], None]], list[str]]


def names() -> list[str]:
    """The runs of this package in alphabetical order."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in found if not module.name.startswith("_"))


def load(name: str) -> FuzzRun:
    """The module of one run."""
    return cast(FuzzRun, importlib.import_module(f"reliability.fuzz.{name}"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reliability.fuzz", description=__doc__)
    parser.add_argument("run", nargs="*", help="which runs; default: all")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run")
    parser.add_argument("--count", type=int, default=None, help="inputs, in place of each run's own number")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1, 1 << 31) if options.seed is None else options.seed
    failed = False
    for name in options.run or names():
        fuzz_run = load(name)
        count = options.count or fuzz_run.DEFAULT_COUNT
        print(f"== {name}: {count} inputs, seed {seed}", flush=True)
        began = monotonic()
        violations = fuzz_run.run(seed, count, lambda line: print(f"   {line}", flush=True))
        for violation in violations:
            print(f"   VIOLATION: {violation}")
        print(f"   {len(violations)} violations in {monotonic() - began:.1f} s", flush=True)
        failed = failed or bool(violations)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
