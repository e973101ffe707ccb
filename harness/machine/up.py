"""Provides a Docker daemon on this machine: installs what is missing, starts it, waits until it answers.

It does so only for the local daemon, as root, on a machine with apt. Elsewhere the error names the steps for the user.
A daemon from the environment is used as it is and never installed.
"""

import os
import shutil

from harness import daemon
from harness.errors import MachineNotReady
from harness.fixtures.dockerd import needs
from harness.machine import apt, dockerd
from harness.progress import report, step

#: The daemon, and what its bridge networks and tests' own daemons need; without the command-line client.
PACKAGES = ("docker.io", "iptables", "iproute2")


def up() -> None:
    """Provide a daemon that answers; raises MachineNotReady with the remedy where that is impossible."""
    _have_daemon()
    if not daemon.configured_host() and apt.may_install() and (missing := needs.missing()):
        packages = sorted(set(missing.values()))
        with step(f"installing {' and '.join(packages)} (missing for daemons of a test's own: {', '.join(missing)})"):
            apt.install(packages)


def _have_daemon() -> None:
    reason = daemon.why_unavailable()
    if reason is None:
        return
    if daemon.configured_host():
        raise MachineNotReady(f"{reason}\n  the address is from the environment, so nothing is installed or started")
    if os.geteuid() != 0:
        raise MachineNotReady(f"{reason}\n  {remedy()}")
    if missing := missing_programs():
        _install(missing)
    if dockerd.wait_if_starting():
        return
    with step("starting dockerd"):
        dockerd.start()
    if started := dockerd.ours():
        report(f"   it stays running (pid {started.pid}, log {dockerd.log_path()});")
        report("   `python -m harness down --engine` stops it")


def missing_programs() -> list[str]:
    """The programs that a local daemon needs and this machine lacks."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return [program for program in ("dockerd", "iptables") if shutil.which(program, path=path) is None]


def remedy() -> str:
    """The steps for the user to get a daemon that answers on this machine."""
    if apt.available():
        install = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
    else:
        install = "install the Docker Engine and iptables with this system's package manager"
    if os.geteuid() != 0:
        if os.path.exists(daemon.LOCAL_SOCKET.removeprefix("unix://")):
            return "as root: usermod -aG docker $USER, then log in anew; or run this as root"
        return "run `python -m harness up` as root; or " + (f"as root: {install}" if apt.available() else install)
    if missing_programs():
        return "python -m harness up" if apt.available() else install
    return "systemctl start docker" if dockerd.systemd_runs() else "python -m harness up"


def _install(missing: list[str]) -> None:
    if not apt.may_install():
        raise MachineNotReady(f"missing here: {', '.join(missing)}\n  {remedy()}")
    with step(f"installing {' and '.join(PACKAGES)} (missing: {', '.join(missing)})"):
        apt.install(PACKAGES)
