"""The connection to the Docker daemon: which one, and whether it answers.

The address is RTMANAGER_DOCKER_HOST, else DOCKER_HOST, else the local socket. The low-level client is
used throughout: the high-level one inspects every container of a list, one request each.
"""

import atexit
import os
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.errors import DaemonUnavailable

if TYPE_CHECKING:
    from docker import APIClient

LOCAL_SOCKET = "unix:///var/run/docker.sock"

#: The daemon's answer to any single call must come within this many seconds.
CALL_TIMEOUT_S = 60


def configured_host() -> str | None:
    """The daemon's address that the environment names, or None when it names none."""
    return os.environ.get("RTMANAGER_DOCKER_HOST") or os.environ.get("DOCKER_HOST") or None


def host() -> str:
    """The address of the daemon in use."""
    return configured_host() or LOCAL_SOCKET


def published_address() -> tuple[str, str]:
    """The address to publish ports on, and the one to reach them at, from here."""
    parts = urlsplit(host())
    if parts.scheme in ("tcp", "http", "https", "ssh") and parts.hostname:
        return "0.0.0.0", parts.hostname
    return "127.0.0.1", "127.0.0.1"


def connect(timeout_s: int = CALL_TIMEOUT_S) -> "APIClient":
    """A new client of the daemon, once it has answered; raises DaemonUnavailable with the cause."""
    import docker
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    tls = kwargs_from_env().get("tls", False)
    try:
        client = docker.APIClient(base_url=host(), version="auto", timeout=timeout_s, tls=tls)
    except DockerException as error:
        raise DaemonUnavailable(_explain(error)) from error
    return client


@cache
def client() -> "APIClient":
    """The client that this process shares; raises DaemonUnavailable."""
    shared = connect()
    atexit.register(shared.close)
    return shared


def why_unavailable() -> str | None:
    """Why no daemon can be used here, in one line; None when one answers."""
    try:
        client()
    except ImportError as error:
        return f"the Python package {error.name} is missing: pip install docker"
    except DaemonUnavailable as error:
        return str(error)
    return None


def _explain(error: Exception) -> str:
    cause = str(error)
    for needle, meaning in (
        ("FileNotFoundError", "there is no such socket, so no daemon is running"),
        ("PermissionError", "this user may not open it: run as root or join the group docker"),
        ("ConnectionRefusedError", "nothing listens there"),
        ("Connection refused", "nothing listens there"),
    ):
        if needle in cause:
            cause = meaning
            break
    return f"no Docker daemon answers at {host()}: {cause}; `python -m harness doctor` tells what to do"
