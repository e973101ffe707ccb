"""One trial: a copy of the tree with an edit, and a process that runs the suite on it.

A trial leaves nothing: it removes the copy, the artefacts of failed tests and all objects on the daemon.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import daemon
from harness.fixtures import stateroot
from harness.runs import identity
from reliability.mutants.mutant import Mutant, MutantError
from reliability.mutants.under_test import Outcome

ROOT = Path(__file__).parents[2]

#: The parts of the tree that the suite needs.
COPIED = ("rtmanager", "harness", "integration", "reliability", "docs", "setup.cfg", "pyproject.toml")

#: Seconds. The whole suite takes some minutes; a longer run hangs.
TIMEOUT_S = 1800

#: Seconds that a run has for its clean-up after SIGTERM.
END_S = 60

#: Variables that would lead a copy to other packages, or keep what it makes.
_DROPPED = ("PYTHONPATH", "PYTHONSAFEPATH", "RTM_IT_KEEP", "RTM_IT_LOG")


def suite() -> list[str]:
    """The modules of the suite."""
    return sorted(f"integration.{path.stem}" for path in (ROOT / "integration").glob("test_*.py"))


def attempt(mutant: Mutant | None, modules: Sequence[str]) -> Outcome:
    """The suite's outcome with the mutant's edit, or on an unchanged copy; raises MutantError."""
    with copied() as folder:
        if mutant is not None:
            mutant.apply(folder / "tree")
        outcome = _run(folder, modules)
    if left := left_by(outcome.run):
        raise MutantError(f"the run left {', '.join(left)} on the daemon")
    return outcome


@contextmanager
def copied() -> Iterator[Path]:
    """A folder with a copy of the project in `tree`, and `state` for the files of its tests."""
    folder = Path(tempfile.mkdtemp(prefix="rtm-mutant-"))
    try:
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / "tree" / name)
        (folder / "state").mkdir()
        yield folder
    finally:
        for directory in (folder / "state").iterdir():
            stateroot.remove(directory)  # the engine's user has written there
        shutil.rmtree(folder)


def environment(folder: Path) -> Mapping[str, str]:
    """The environment of a process that runs in the copy."""
    elsewhere = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each and Path(each) != ROOT]
    changes = {"RTM_INTEGRATION": "require", "RTM_IT_STATE_DIR": str(folder / "state")}
    if elsewhere:
        changes["PYTHONPATH"] = os.pathsep.join(elsewhere)
    return identity.child_environment(changes, without=_DROPPED)


def left_by(run: str) -> list[str]:
    """The objects on the daemon with a run's id."""
    client = daemon.client()
    mine = {"label": f"{identity.PREFIX}run={run}"}
    containers = [f"container {each['Id'][:12]}" for each in client.containers(all=True, filters=mine)]
    return containers + [f"network {each['Name']}" for each in client.networks(filters=mine)]


def _run(folder: Path, modules: Sequence[str]) -> Outcome:
    found, log = folder / "outcome.json", folder / "log"
    command = [sys.executable, "-m", "reliability.mutants.under_test", str(found), *modules]
    with log.open("w") as written:
        process = subprocess.Popen(
            command, cwd=folder / "tree", env=environment(folder), stdout=written, stderr=subprocess.STDOUT
        )
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise MutantError(f"the suite has not ended after {TIMEOUT_S} s:\n{_tail(log)}") from None
        finally:
            _end(process)
    if process.returncode != 0 or not found.exists():
        raise MutantError(f"the suite could not be run, exit code {process.returncode}:\n{_tail(log)}")
    return Outcome.read(found)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGTERM, at which the run removes what it made, and later SIGKILL; does nothing when it has ended."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
