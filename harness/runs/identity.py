"""Identity of a test run: each object names the run that made it.

Each container, network, directory and process of the harness carries the run's id and the identity of the run's
process. A pid alone does not suffice. It is reused, so the start time is recorded, too. It means nothing in another pid
namespace, after a reboot, or on another machine that shares the daemon.
"""

import atexit
import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

#: The prefix of every label of the harness.
PREFIX = "rtm-harness."

#: The environment variable that marks a process of a run.
PROCESS_VARIABLE = "RTM_HARNESS_RUNNER"

#: `1` keeps what a run made, for inspection, until `python -m harness sweep --kept`.
KEEP_VARIABLE = "RTM_IT_KEEP"


@dataclass(frozen=True)
class Runner:
    """The process of a run."""

    run: str
    machine: str
    boot: str
    pid_namespace: str
    pid: int
    start_time: int
    kept: str

    def labels(self) -> dict[str, str]:
        """The labels of this runner's objects."""
        return {PREFIX + name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> "Runner | None":
        """The runner that an object's labels name, or None when it is not an object of the harness."""
        try:
            values: dict[str, Any] = {name: labels[PREFIX + name] for name in cls.__dataclass_fields__}
            values |= {name: int(values[name]) for name in ("pid", "start_time")}
        except (KeyError, ValueError):
            return None
        return cls(**values)

    def environment(self) -> dict[str, str]:
        """The variable that marks a process of this runner."""
        return {PROCESS_VARIABLE: json.dumps(self.labels())}

    @classmethod
    def of_process(cls, pid: int) -> "Runner | None":
        """The runner that started process `pid`; None when it has no mark, has ended or is not readable."""
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None
        mark = f"{PROCESS_VARIABLE}=".encode()
        found = [each.removeprefix(mark) for each in variables if each.startswith(mark)]
        try:
            return cls.from_labels(json.loads(found[0])) if found else None
        except ValueError:
            return None

    def is_gone(self) -> bool:
        """Whether this runner has surely ended. False when that cannot be determined here."""
        here = current()
        if self.machine != here.machine:
            return False
        if self.boot != here.boot:
            return True
        if self.pid_namespace != here.pid_namespace:
            return False
        started = process_start_time(self.pid)
        return started != self.start_time and not (started is None and _is_hidden(self.pid))


def child_environment(changes: Mapping[str, str] | None = None, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """The environment of a child process: this process's own with `changes`, and this run's mark.

    Leaves out variables that begin with one of `without`. Beware of variables that the child's Python needs: PATH,
    HOME, TMPDIR, PYTHONPATH, PYTHONHOME, LD_LIBRARY_PATH.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(without)}
    return {**inherited, **(changes or {}), **current().environment()}


def python_path(*folders: Path) -> dict[str, str]:
    """PYTHONPATH for a child process: `folders`, then this process's own, which may hold its packages."""
    own = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([*map(str, folders), *([own] if own else [])])}


def keeps() -> bool:
    """Whether this run keeps what it made."""
    return os.environ.get(KEEP_VARIABLE) == "1"


def at_exit(action: Callable[[], object]) -> None:
    """Register `action` as `atexit.register` does, but for this process alone: a forked child does not call it."""
    process = os.getpid()
    atexit.register(lambda: action() if os.getpid() == process else None)


def current() -> Runner:
    """The identity of this process; a forked child gets one of its own."""
    return _identity(os.getpid())


@cache
def _identity(pid: int) -> Runner:
    machine = socket.gethostname()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    pid_namespace = os.readlink("/proc/self/ns/pid")
    start_time = process_start_time(pid) or 0
    # A hash and no random value: two threads that call first at the same time get the same id.
    run = hashlib.sha256(repr((machine, boot, pid_namespace, pid, start_time)).encode()).hexdigest()[:12]
    return Runner(run, machine, boot, pid_namespace, pid, start_time, "yes" if keeps() else "no")


def _is_hidden(pid: int) -> bool:
    """Whether the process exists but is hidden from this user: /proc with `hidepid` hides other users' processes."""
    if Path(f"/proc/{pid}").exists():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False


def process_start_time(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot; None when it does not run (or is a zombie)."""
    try:
        # The second field is the program's name in brackets and may itself contain spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
