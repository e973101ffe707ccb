"""Checks that must fail on a mutant."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_UNITTEST = ("unittest", "--failfast", "--verbose")


@dataclass(frozen=True)
class Check:
    """A program that ends with exit code 1 when it detects a defect: `python -m` with `arguments`."""

    text: str
    arguments: tuple[str, ...]

    @property
    def tests(self) -> Sequence[str]:
        """The modules, classes or methods that it runs, when it is a run of tests."""
        return self.arguments[len(_UNITTEST) :] if self.arguments[: len(_UNITTEST)] == _UNITTEST else ()


def test(*names: str) -> Check:
    """Check by these tests, up to the first failure."""
    return Check(", ".join(names), (*_UNITTEST, *names))


def module(name: str) -> Check:
    """Check by this module of the suite."""
    return test(f"integration.{name}")


def cells(scenario: str, point: str, action: str = "exit") -> Check:
    """Check by these cells of the crash matrix."""
    how = ("--every", "--scenario", scenario, "--point", point, "--action", action)
    text = f"crash matrix: {scenario}, {point}={action}"
    return Check(text, ("reliability.crashes", "--jobs", "2", "--patience", "25", *how))


def chaos(seed: int, minutes: float) -> Check:
    """Check by this chaos run."""
    how = ("--seed", str(seed), "--minutes", f"{minutes:g}")
    return Check(f"chaos: seed {seed}, {minutes:g} minutes", ("reliability.chaos", *how))


def suite() -> Sequence[str]:
    """The modules of the suite."""
    return sorted(f"integration.{path.stem}" for path in (ROOT / "integration").glob("test_*.py"))


def whole(check: Check) -> Check:
    """The whole suite in place of one of its modules, that module first. Other checks stay as they are."""
    modules = suite()
    if not set(check.tests) & set(modules):
        return check
    return Check(f"the suite from {check.text}", test(*dict.fromkeys([*check.tests, *modules])).arguments)


def distinct(checks: Iterable[Check]) -> Sequence[Check]:
    """Each check once, and all tests in one run, which starts its servers only once."""
    found = list(dict.fromkeys(checks))
    tests = dict.fromkeys(name for check in found for name in check.tests)
    others = [check for check in found if not check.tests]
    return [test(*tests), *others] if tests else others
