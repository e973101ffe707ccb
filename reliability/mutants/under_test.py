"""A check in a copy of the tree: `python -m reliability.mutants.under_test FILE MODULE [ARGUMENT…]`.

Runs as a process whose working directory is the copy. It writes the id of its run to FILE and becomes
`python -m MODULE ARGUMENT…`, which keeps the id.
"""

import os
import sys
from pathlib import Path

import harness
import rtmanager
from harness.runs import identity


def check_copy(tree: Path) -> None:
    """End the process when Python imports the packages from elsewhere, for example from an installed project."""
    for package in (rtmanager, harness):
        if tree.resolve() not in Path(str(package.__file__)).resolve().parents:
            sys.exit(f"{package.__name__} is imported from {package.__file__} and not from the copy")


if __name__ == "__main__":
    check_copy(Path.cwd())
    Path(sys.argv[1]).write_text(identity.current().run)
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
