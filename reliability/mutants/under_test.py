"""The suite in a copy of the tree, up to its first failure: `python -m reliability.mutants.under_test FILE MODULE…`.

Runs as a process whose working directory is the copy. It writes the outcome to FILE.
"""

import json
import re
import sys
import unittest
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.runs import identity
from reliability.mutants.mutant import MutantError

#: `AssertionError: …`, `subprocess.TimeoutExpired: …`, `KeyboardInterrupt`
_NAMES_ERROR = re.compile(r"([A-Za-z_]\w*\.)*[A-Z]\w*(:|$)")


@dataclass(frozen=True)
class Outcome:
    """How a run of the suite ended; `failed` is the test that failed, or empty, `why` its error line."""

    tests: int
    failed: str
    why: str
    skipped: int
    #: The run's id, which labels everything that it made on the daemon.
    run: str

    @classmethod
    def read(cls, path: Path) -> "Outcome":
        """Read the file that `main` wrote."""
        return cls(**json.loads(path.read_text()))


def check_copy(tree: Path) -> None:
    """Raise MutantError when Python imports the packages from elsewhere, for example from an installed project."""
    import harness
    import rtmanager

    for package in (rtmanager, harness):
        if tree.resolve() not in Path(str(package.__file__)).resolve().parents:
            raise MutantError(f"{package.__name__} is imported from {package.__file__} and not from the copy")


def run(modules: list[str]) -> Outcome:
    """Run the modules, up to the first failure."""
    suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2, failfast=True).run(suite)
    unexpected = [(test, "an unexpected success") for test in result.unexpectedSuccesses]
    failed, trace = next(iter([*result.failures, *result.errors, *unexpected]), (None, ""))
    return Outcome(
        tests=result.testsRun,
        failed=failed.id() if failed else "",
        why=last_word(trace),
        skipped=len(result.skipped),
        run=identity.current().run,
    )


def last_word(trace: str) -> str:
    """The line of a traceback that names the error: it follows the lines of the last place in the code."""
    _, _, after = trace.rpartition('\n  File "')
    return next((line for line in after.splitlines() if _NAMES_ERROR.match(line)), trace)[:200]


def main(arguments: list[str]) -> None:
    """Run the modules and write the outcome."""
    path, *modules = arguments
    check_copy(Path.cwd())
    Path(path).write_text(json.dumps(asdict(run(modules))))


if __name__ == "__main__":
    main(sys.argv[1:])
