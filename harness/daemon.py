"""The connection to the Docker daemon: which one, and whether it answers.

The address is RTMANAGER_DOCKER_HOST, else DOCKER_HOST, else the local socket. The low-level client is
used throughout: the high-level one inspects every container of a list, one request each.
"""

import atexit
import os
import socket
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness import timing
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
    """The address at which the daemon in use is spoken to; with RTM_IT_TIMING=1 a relay stands in between."""
    return timing.relayed(_own_host())


def _own_host() -> str:
    return configured_host() or LOCAL_SOCKET


def published_address() -> tuple[str, str]:
    """The address to publish ports on, and the one to reach them at, from here."""
    parts = urlsplit(_own_host())
    if parts.scheme in ("tcp", "http", "https", "ssh") and parts.hostname:
        return "0.0.0.0", parts.hostname
    return "127.0.0.1", "127.0.0.1"


def connect(timeout_s: int = CALL_TIMEOUT_S, address: str | None = None) -> "APIClient":
    """A new client of the daemon, or of one at another `address`, once it has answered.

    Raises DaemonUnavailable with the cause.
    """
    import docker
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    tls = kwargs_from_env().get("tls", False) if address is None else False
    _knock(address or _own_host())
    address = address or host()
    try:
        made = docker.APIClient(base_url=address, version="auto", timeout=timeout_s, tls=tls)
    except DockerException as error:
        raise _unavailable(address, str(error)) from error
    if urlsplit(address).scheme in ("unix", "http+unix"):
        made.trust_env = False  # no proxy stands before a socket, and looking for one takes half of a call's time here
    return made


@cache
def client() -> "APIClient":
    """The client that this process shares; raises DaemonUnavailable."""
    _knock(_own_host())
    timing.report_at_exit(_own_host())
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


def _knock(address: str) -> None:
    """Open and close the daemon's socket: its own errors tell more than those of the SDK."""
    scheme, _, path = address.partition("://")
    if scheme != "unix":
        return
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CALL_TIMEOUT_S)
        try:
            connection.connect(path)
        except FileNotFoundError:
            raise _unavailable(address, "there is no such socket, so no daemon is running") from None
        except PermissionError:
            cause = "this user may not open it: run as root or join the group docker"
            raise _unavailable(address, cause) from None
        except OSError as error:
            raise _unavailable(address, f"nothing listens there ({error.strerror})") from error


def _unavailable(address: str, cause: str) -> DaemonUnavailable:
    return DaemonUnavailable(
        f"no Docker daemon answers at {address}: {cause}; `python -m harness doctor` tells what to do"
    )
