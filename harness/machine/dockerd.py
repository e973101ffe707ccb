"""Starts and stops a Docker daemon on a machine without a service manager.

It records pid and start time of the daemon, and only ever stops that process. The daemon runs in a session of its own,
so it outlives the command that started it.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import dropwhile
from pathlib import Path

from harness import daemon
from harness.errors import DaemonUnavailable, MachineNotReady
from harness.progress import report
from harness.runs.identity import process_start_time

#: Seconds in which a new daemon must answer.
START_TIMEOUT_S = 40.0

#: Seconds; a daemon stops its containers before it ends.
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Started:
    """A daemon that this module started: its pid, and the start time, since pids are reused."""

    pid: int
    start_time: int

    def is_running(self) -> bool:
        """Whether this very process is alive."""
        return process_start_time(self.pid) == self.start_time


def state_directory() -> Path:
    """The directory of the daemon's log and pid; created when missing."""
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor an entry of the user
        home = Path(tempfile.gettempdir()) / f"home-{os.getuid()}"
    base = os.environ.get("XDG_STATE_HOME") or home / ".local" / "state"
    directory = Path(base) / "runtime-manager"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def log_path() -> Path:
    """The log of the daemon that this module starts."""
    return state_directory() / "dockerd.log"


def ours() -> Started | None:
    """The running daemon that this module started, or None."""
    record = state_directory() / "dockerd.json"
    if not record.exists():
        return None
    started = Started(**json.loads(record.read_text()))
    return started if started.is_running() else None


def systemd_runs() -> bool:
    """Whether systemd is this machine's service manager."""
    return Path("/run/systemd/system").is_dir()


def start() -> None:
    """Start the daemon and wait until it answers; raises MachineNotReady with its last log lines."""
    if systemd_runs():
        _start_service()
        return
    try:
        _start()
    except _NetworksUnreadable as failure:
        aside = _set_networks_aside(failure)
        report(
            f"   dockerd cannot read its networks and panics; they are now in {aside}, and Docker starts without them"
        )
        _start()


class _NetworksUnreadable(MachineNotReady):
    """dockerd ended with a panic in its network store."""


def _start() -> None:
    program = shutil.which("dockerd") or "/usr/sbin/dockerd"
    with log_path().open("wb") as log:
        process = subprocess.Popen(
            [program],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Started(process.pid, process_start_time(process.pid) or 0)
    (state_directory() / "dockerd.json").write_text(json.dumps(asdict(started)))
    _wait_for_answer(process)
    process.returncode = 0  # the daemon outlives this process: otherwise Popen warns about it


def stop() -> bool:
    """Stop the daemon that this module started; False when there is none."""
    started = ours()
    if started is None:
        return False
    os.kill(started.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while started.is_running():
        if time.monotonic() > deadline:
            raise MachineNotReady(f"dockerd (pid {started.pid}) did not stop in {STOP_TIMEOUT_S:.0f} s")
        time.sleep(0.05)
    (state_directory() / "dockerd.json").unlink()
    return True


def wait_if_starting() -> bool:
    """Whether a daemon answers, after waiting for one that is just starting."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while daemon.why_unavailable() is not None:
        if not (running_pid() or systemd_runs()) or time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def running_pid() -> int | None:
    """The pid of the local daemon, whoever started it, from its pid file; None when it does not run."""
    try:
        pid = int(Path("/var/run/docker.pid").read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return pid if name == "dockerd" else None


def _start_service() -> None:
    done = subprocess.run(["systemctl", "start", "docker"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MachineNotReady(f"systemctl start docker failed: {done.stderr.strip()}; see `journalctl -u docker`")


def _wait_for_answer(process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            daemon.connect(timeout_s=5).close()
        except DaemonUnavailable:
            if process.poll() is not None:
                error = _NetworksUnreadable if _networks_unreadable() else MachineNotReady
                raise error(f"dockerd ended with exit code {process.returncode}:\n{_tail()}") from None
            if time.monotonic() > deadline:
                raise MachineNotReady(f"dockerd does not answer after {START_TIMEOUT_S:.0f} s:\n{_tail()}") from None
            time.sleep(0.1)
        else:
            return


def _networks_unreadable() -> bool:
    """Whether dockerd's panic comes from its network store.

    A power cut or a `kill -9` during the creation of a network leaves a partial entry there; each later start panics
    (moby/moby#45057).
    """
    text = "\n".join(_panic())
    return "libnetwork.New" in text or "libnetwork/datastore" in text


def _set_networks_aside(failure: MachineNotReady) -> Path:
    """Rename the network store of the local daemon, and return its new path; raises `failure` when there is none."""
    store = _data_root() / "network" / "files" / "local-kv.db"
    aside = store.with_name(f"{store.name}.unreadable-{time.strftime('%Y%m%dT%H%M%S')}")
    try:
        store.rename(aside)
    except FileNotFoundError:
        raise failure from None
    return aside


def _data_root() -> Path:
    """The data directory of the local daemon."""
    try:
        settings = json.loads(Path("/etc/docker/daemon.json").read_bytes())
    except FileNotFoundError:
        settings = {}
    return Path(settings.get("data-root", "/var/lib/docker"))


def _panic() -> list[str]:
    """The log from dockerd's panic on; empty when it has none."""
    lines = log_path().read_text(errors="replace").splitlines()
    return list(dropwhile(lambda line: not line.startswith(("panic:", "fatal error:")), lines))


def _tail(lines: int = 12) -> str:
    """The relevant lines of the log: a panic from its first line on, or else the last lines."""
    text = _panic()[:lines] or log_path().read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in text) + f"\n  the whole log: {log_path()}"
