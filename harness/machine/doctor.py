"""Checks the requirements of the harness on this machine: one line each, with its remedy.

It installs, starts and builds nothing. It creates and removes a network, since only that shows whether bridge networks
work here. It needs only the standard library, since the three packages may be missing.
"""

import grp
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import daemon, packages
from harness.errors import HarnessError
from harness.images import catalogue
from harness.images.catalogue import Service
from harness.machine import apt
from harness.machine.daemon_request import TIMEOUT_S, NoAnswer, request
from harness.machine.up import missing_programs, remedy
from harness.runs import identity

#: Bytes; images and containers of a run take about 1 GB.
FREE_DISK_BYTES = 2 << 30

#: Docker Engine 20.10, the oldest version that is tested.
OLDEST_API = (1, 41)


@dataclass(frozen=True)
class Check:
    """One requirement of the harness."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine(images: Mapping[str, Service]) -> Iterator[Check]:
    """Yield every check, in the order in which to fix failures; `images` are checked, too."""
    system = f"{platform.system()} {platform.release()}"
    yield Check("Linux", sys.platform == "linux", system, "run it in a Linux machine or virtual machine")
    python = sys.version_info[:2] >= (3, 11)
    yield Check("Python", python, f"{platform.python_version()}", "make venv PYTHON=/path/to/python3.11")
    yield _python_packages()
    sdk = packages.why_unusable("docker") is None
    if not daemon.configured_host():
        yield _programs()
        yield _access()
    answering = _answering(sdk)
    yield answering
    if answering.ok:
        yield from (_api_version(), _bridge_network(), _disk())
    if sdk:
        yield from _images(images, answering.ok)
    else:
        yield Check("images", False, "not looked at: that needs the Python packages", "python -m harness up")


def _python_packages() -> Check:
    reason = packages.why_unusable(*packages.NEEDED)
    return Check("Python packages", reason is None, reason or ", ".join(packages.NEEDED), "make venv, or as it says")


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


def _answering(sdk: bool) -> Check:
    """Use the SDK when it is installed: it reads config.json and certificates as tests do."""
    if sdk:
        reason = daemon.why_unavailable()
    else:
        try:
            _request("GET", "/version")
            reason = None
        except NoAnswer as error:
            reason = str(error)
    fix = "check the address in the environment" if daemon.configured_host() else remedy()
    return Check("Docker daemon", reason is None, reason or f"answers at {_address()}", fix)


def _address() -> str:
    return daemon.configured_host() or daemon.LOCAL_SOCKET


def _request(method: str, path: str, body: object = None) -> Any:
    """Send a request to the daemon; raises NoAnswer. The SDK, where installed, supports more kinds of addresses."""
    if packages.why_unusable("docker") is not None:
        return request(_address(), method, path, body)
    client = daemon.client()
    answer = client.request(method, f"{client.base_url}{path}", json=body, timeout=TIMEOUT_S)
    if not answer.ok:
        raise NoAnswer(answer.text.strip())
    return answer.json() if answer.text.strip() else None


def _api_version() -> Check:
    version = _request("GET", "/version")
    known = tuple(int(part) for part in version["ApiVersion"].split("."))
    detail = f"{version['ApiVersion']} (Docker Engine {version['Version']})"
    oldest = ".".join(map(str, OLDEST_API))
    return Check("API version", known >= OLDEST_API, detail, f"install a Docker Engine with API {oldest} or newer")


def _bridge_network() -> Check:
    labels = identity.current().labels()  # the next run sweeps it when this one is killed
    try:
        made = _request("POST", "/networks/create", {"Name": f"rtm-it-{secrets.token_hex(5)}", "Labels": labels})
        _request("DELETE", f"/networks/{made['Id']}")
    except NoAnswer as error:
        return Check("bridge networks", False, str(error), "install iptables and run as root outside of a container")
    return Check("bridge networks", True, "one was made and removed")


def _disk() -> Check:
    root = Path(_request("GET", "/info")["DockerRootDir"])
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        return Check("free disk", True, f"{root} is not on this machine, or closed to this user: not looked at")
    detail = f"{free / 1e9:.0f} GB at {root}"
    return Check("free disk", free >= FREE_DISK_BYTES, detail, f"free {FREE_DISK_BYTES / 1e9:.0f} GB there")


def _images(images: Mapping[str, Service], answering: bool) -> Iterator[Check]:
    for name, service in images.items():
        try:
            there = catalogue.up_to_date(service) if answering else None
        except HarnessError as error:
            yield Check(f"image {name}", False, str(error), "correct the environment")
            continue
        how = "" if apt.available() else ", if the daemon reaches an image registry"
        absent = "not made yet" if answering else "not known without a daemon"
        yield Check(f"image {name}", there is not None, there or absent, f"python -m harness up{how}")
