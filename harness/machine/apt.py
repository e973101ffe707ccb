"""Debian's package manager: installs packages, and downloads them without installing."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.errors import MachineNotReady

#: Seconds that apt may wait for another apt to finish.
LOCK_TIMEOUT_S = 120


def available() -> bool:
    """Whether this machine installs its packages with apt."""
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def may_install() -> bool:
    """Whether this process may install packages."""
    return available() and os.geteuid() == 0


def install(packages: Sequence[str]) -> None:
    """Install `packages`; updates the package lists only when the first try fails."""
    _with_fresh_lists(["install", "-y", "--no-install-recommends", *packages])


def download(packages: Sequence[str], into: Path) -> list[Path]:
    """Download `packages` and all their dependencies into `into`, as for an empty system; installs nothing."""
    (into / "archives" / "partial").mkdir(parents=True)
    status = into / "status"
    status.touch()
    options = {
        "Dir::State::status": status,
        "Dir::Cache": into,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    _with_fresh_lists([*given, "install", "-y", "--download-only", *packages])
    return sorted((into / "archives").glob("*.deb"))


def _with_fresh_lists(arguments: Sequence[str]) -> None:
    """Run apt-get; when it fails, update the package lists as root and run it once more."""
    first = _apt_get(arguments)
    if first.returncode == 0:
        return
    if os.geteuid() == 0:
        update = _apt_get(["update"])
        if update.returncode != 0:
            raise MachineNotReady(_failure(["update"], update))
        first = _apt_get(arguments)
        if first.returncode == 0:
            return
    raise MachineNotReady(_failure(arguments, first))


def _apt_get(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT_S}", *arguments]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _failure(arguments: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
    tail = "\n".join(f"    {line}" for line in done.stdout.strip().splitlines()[-12:])
    return f"apt-get {' '.join(arguments)} failed with exit code {done.returncode}:\n{tail}"
