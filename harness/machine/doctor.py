"""What this machine has and lacks for the harness: one check a line, each with its remedy.

Nothing is installed, started or built; a network is made and removed again, since only that shows whether
bridge networks work here.
"""

import grp
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import daemon
from harness.errors import HarnessError
from harness.machine import apt
from harness.machine.up import missing_programs, remedy

#: Images and containers of a run take about 1 GB.
FREE_DISK_BYTES = 2 << 30

#: Docker Engine 20.10, the oldest that this is tried with.
OLDEST_API = (1, 41)

PACKAGES = ("docker", "psycopg", "psycopg_pool", "redis")


@dataclass(frozen=True)
class Check:
    """One thing that the harness needs."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine() -> Iterator[Check]:
    """Every check, in the order in which to mend what is missing."""
    system = f"{platform.system()} {platform.release()}"
    yield Check("Linux", sys.platform == "linux", system, "run it in a Linux machine or virtual machine")
    python = sys.version_info[:2] >= (3, 11)
    yield Check("Python", python, f"{platform.python_version()}", "make venv PYTHON=/path/to/python3.11")
    packages = _python_packages()
    yield packages
    if not daemon.configured_host():
        yield _programs()
        yield _access()
    if packages.ok:
        answering = _answering()
        yield answering
        if answering.ok:
            yield from (_api_version(), _bridge_network(), _disk())
        yield from _images(answering.ok)


def _python_packages() -> Check:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    detail = f"missing: {', '.join(missing)}" if missing else ", ".join(PACKAGES)
    return Check("Python packages", not missing, detail, "make venv, then .venv/bin/python -m harness doctor")


def _programs() -> Check:
    missing = missing_programs()
    detail = f"missing: {', '.join(missing)}" if missing else "dockerd, iptables"
    return Check("Docker Engine", not missing, detail, remedy())


def _access() -> Check:
    user = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    try:
        group = grp.getgrnam("docker").gr_gid
    except KeyError:
        member = False
    else:
        member = group in os.getgroups()
    detail = f"{user}, {'in' if member else 'not in'} the group docker"
    socket = Path(daemon.LOCAL_SOCKET.removeprefix("unix://"))
    return Check("access", os.geteuid() == 0 or member or os.access(socket, os.W_OK), detail, remedy())


def _answering() -> Check:
    reason = daemon.why_unavailable()
    fix = "check the address in the environment" if daemon.configured_host() else remedy()
    return Check("Docker daemon", reason is None, reason or f"answers at {daemon.host()}", fix)


def _api_version() -> Check:
    version = daemon.client().version()
    known = tuple(int(part) for part in version["ApiVersion"].split("."))
    detail = f"{version['ApiVersion']} (Docker Engine {version['Version']})"
    oldest = ".".join(map(str, OLDEST_API))
    return Check("API version", known >= OLDEST_API, detail, f"install a Docker Engine with API {oldest} or newer")


def _bridge_network() -> Check:
    from docker.errors import APIError

    from harness.fixtures import network

    try:
        network.create().remove()
    except APIError as error:
        cause = str(error.explanation)
        return Check("bridge networks", False, cause, "install iptables and run as root outside of a container")
    return Check("bridge networks", True, "one was made and removed")


def _disk() -> Check:
    root = Path(daemon.client().info()["DockerRootDir"])
    if not root.is_dir():
        return Check("free disk", True, f"{root} is not on this machine: not looked at")
    free = shutil.disk_usage(root).free
    detail = f"{free / 1e9:.0f} GB at {root}"
    return Check("free disk", free >= FREE_DISK_BYTES, detail, f"free {FREE_DISK_BYTES / 1e9:.0f} GB there")


def _images(answering: bool) -> Iterator[Check]:
    from harness.images import catalogue

    for name, service in (
        ("PostgreSQL", catalogue.POSTGRES),
        ("Redis", catalogue.REDIS),
        ("game engine", catalogue.ENGINE),
    ):
        try:
            there = catalogue.up_to_date(service) if answering else None
        except HarnessError as error:
            yield Check(f"image {name}", False, str(error), "correct the environment")
            continue
        how = "" if apt.available() else ", if the daemon reaches an image registry"
        absent = "not made yet" if answering else "not known without a daemon"
        yield Check(f"image {name}", there is not None, there or absent, f"python -m harness up{how}")
