"""One trial: a copy of the tree with edits, and a process that runs a check on it.

A trial leaves nothing: it removes the copy, the artefacts of failed tests and all objects on the daemon.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from harness import daemon
from harness.fixtures import stateroot
from harness.runs import identity
from reliability.mutants.check import ROOT, Check
from reliability.mutants.failure import failed_test, marked_line
from reliability.mutants.mutant import Edit, MutantError

#: The parts of the tree that the checks need.
COPIED = ("rtmanager", "harness", "integration", "reliability", "docs", "setup.cfg", "pyproject.toml")

#: Seconds. The whole suite takes some minutes; a longer run hangs.
TIMEOUT_S = 1800

#: Seconds between two polls of a running check.
POLL_S = 0.1

#: Seconds that a run has for its clean-up after SIGTERM.
END_S = 60

#: Variables that would lead a copy to other packages, or keep what it makes.
_DROPPED = ("PYTHONPATH", "PYTHONSAFEPATH", "RTM_IT_KEEP", "RTM_IT_LOG")

#: Checks that pass without a test or a cell.
_EMPTY = re.compile(r"^(Ran 0 tests|0 cells) ", re.MULTILINE)


def attempt(edits: Sequence[Edit], check: Check, stop: Event) -> str | None:
    """What failed when the check ran on a copy with the edits; None when it passed.

    Raises MutantError when the check could not be run to its end, for example because `stop` was set.
    """
    with copied() as folder:
        for edit in edits:
            edit.apply(folder / "tree")
        code = _run(folder, check, stop)
        log, run = (folder / "log").read_text(errors="replace"), folder / "run"
        if code not in (0, 1) or not run.exists():
            raise MutantError(f"{check.text} could not be run, exit code {code}:\n{_tail(log)}")
        if left := left_by(run.read_text()):
            raise MutantError(f"the run left {', '.join(left)} on the daemon")
    return _result(code, check, log)


def _result(code: int, check: Check, log: str) -> str | None:
    if code == 0 and _EMPTY.search(log):
        raise MutantError(f"{check.text} runs nothing:\n{_tail(log)}")
    if code == 0:
        return None
    failure = failed_test(log) if check.tests else marked_line(log)
    if failure is None:
        raise MutantError(f"{check.text} could not be run, no test failed:\n{_tail(log)}")
    return failure


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


def _run(folder: Path, check: Check, stop: Event) -> int:
    command = [sys.executable, "-m", "reliability.mutants.under_test", str(folder / "run"), *check.arguments]
    deadline = time.monotonic() + TIMEOUT_S
    with (folder / "log").open("w") as written:
        process = subprocess.Popen(
            command, cwd=folder / "tree", env=environment(folder), stdout=written, stderr=subprocess.STDOUT
        )
        try:
            while (code := process.poll()) is None:
                if time.monotonic() > deadline:
                    log = (folder / "log").read_text(errors="replace")
                    raise MutantError(f"{check.text} has not ended after {TIMEOUT_S} s:\n{_tail(log)}")
                if stop.wait(POLL_S):
                    raise MutantError(f"{check.text} was stopped")
        finally:
            _end(process)
    return code


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGTERM, at which the run removes what it made, and later SIGKILL; does nothing when it has ended."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: str) -> str:
    return "\n".join(log.splitlines()[-20:])
