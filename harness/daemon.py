"""Connection to the Docker daemon: its address, a client, and whether it answers.

The address is DOCKER_HOST, or the local socket. The harness uses the low-level client: the high-level one inspects
every container of a list with one request each.
"""

import os
import shutil
import socket
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from harness import packages, timing
from harness.errors import DaemonUnavailable, HarnessError
from harness.runs import identity

if TYPE_CHECKING:
    from docker import APIClient

LOCAL_SOCKET = "unix:///var/run/docker.sock"

#: Variables that may name the daemon's address; the first that is set counts. A project whose program has its own
#: variable inserts it at the front.
ADDRESS_VARIABLES = ["DOCKER_HOST"]

#: Timeout of a single call, in seconds.
CALL_TIMEOUT_S = 60


def configured_host() -> str | None:
    """The daemon's address from the environment, or None when no variable is set."""
    return next((address for name in ADDRESS_VARIABLES if (address := os.environ.get(name))), None)


def host() -> str:
    """The address of the daemon in use; with RTM_IT_TIMING=1, the address of the relay in front of it."""
    return timing.relayed(_own_host())


def _own_host() -> str:
    return configured_host() or LOCAL_SOCKET


def socket_address(host: str) -> str | tuple[str, int]:
    """A daemon's address as sockets take it: a path, or a host and a port. Raises HarnessError for another kind."""
    parts = urlsplit(host)
    if parts.scheme == "unix":
        return parts.path
    if parts.scheme in ("tcp", "http") and parts.hostname and parts.port:
        return parts.hostname, parts.port
    raise HarnessError(f"a daemon at {host!r}: expected unix:///path or tcp://host:port")


def published_address() -> tuple[str, str]:
    """The address to publish ports on, and the address at which this process reaches them."""
    parts = urlsplit(_own_host())
    if parts.scheme in ("tcp", "http", "https", "ssh") and parts.hostname:
        return "0.0.0.0", parts.hostname
    return "127.0.0.1", "127.0.0.1"


def connect(timeout_s: int = CALL_TIMEOUT_S, address: str | None = None) -> "APIClient":
    """Connect a new client to the daemon, or to the one at `address`.

    Raises DaemonUnavailable with the cause.
    """
    make = _client_class()
    tls = _tls() if address is None else False
    _knock(address or _own_host())
    address = address or host()
    try:
        return make(base_url=address, version="auto", timeout=timeout_s, tls=tls)
    except OSError as error:  # every error of requests is an OSError
        raise _unavailable(address, str(error)) from error
    except Exception as error:
        raise _unavailable(address, _why_not(error)) from error


@cache
def _client_class() -> "type[APIClient]":
    import docker

    class Credentials(docker.auth.AuthConfig):
        """The credentials of config.json. Never reported as empty: the SDK would read the file again."""

        is_empty = False

    class Client(docker.APIClient):
        """The SDK's client without its environment: proxies do not apply to the daemon.

        It ignores credential helpers that config.json names and that are not installed, as the docker CLI does. The SDK
        would fail at each build and pull.
        """

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            read: dict[str, Any] = dict(vars(self)["_auth_configs"])
            if not _helper_is_installed(read.get("credsStore")):
                read.pop("credsStore", None)
            helpers = read.get("credHelpers") or {}
            read["credHelpers"] = {where: name for where, name in helpers.items() if _helper_is_installed(name)}
            vars(self)["_auth_configs"] = Credentials(read)

        @property
        def trust_env(self) -> bool:
            return False

        @trust_env.setter
        def trust_env(self, _value: bool) -> None:
            """Ignored: requests sets it to true."""

    return Client


def _helper_is_installed(name: object) -> bool:
    return bool(name) and shutil.which(f"docker-credential-{name}") is not None


def _tls() -> Any:
    """The certificates that the environment names; raises DaemonUnavailable when they cannot be used."""
    from docker.errors import TLSParameterError
    from docker.utils import kwargs_from_env

    if _own_host().startswith("unix:"):
        return False  # certificates apply to network addresses only
    try:
        return kwargs_from_env().get("tls", False)
    except TLSParameterError as error:
        where = os.environ.get("DOCKER_CERT_PATH") or "~/.docker (DOCKER_CERT_PATH is not set)"
        cause = f"DOCKER_TLS_VERIFY or DOCKER_CERT_PATH is set, and certificates in {where} cannot be used: {error.msg}"
        raise _unavailable(_own_host(), cause) from error


def _why_not(error: Exception) -> str:
    """Why the SDK failed to create a client: a file that it reads, an address, or the answer."""
    from docker.errors import DockerException
    from docker.utils.config import find_config_file

    if isinstance(error, DockerException):
        return str(error)
    cause = f"{type(error).__name__}: {error}"
    if configuration := find_config_file():
        where = f"probably at what {configuration!s} says"
        return f"the Docker SDK fails ({cause}), {where}: mend it, or name another folder in DOCKER_CONFIG"
    return f"the Docker SDK fails: {cause}"


@cache
def client() -> "APIClient":
    """The client that this process shares; raises DaemonUnavailable."""
    _knock(_own_host())
    timing.report_at_exit(_own_host())
    shared = connect()
    identity.at_exit(shared.close)
    return shared


def why_unavailable() -> str | None:
    """Why no daemon can be used here, in one line; None when one answers."""
    try:
        client()
    except ImportError as error:
        return packages.missing("docker", error)
    except DaemonUnavailable as error:
        return str(error)
    return None


def _knock(address: str) -> None:
    """Open and close the daemon's socket: the errors of the socket are clearer than those of the SDK."""
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
            raise _unavailable(address, f"nothing listens there ({error.strerror or error})") from error


def _unavailable(address: str, cause: str) -> DaemonUnavailable:
    return DaemonUnavailable(
        f"no Docker daemon answers at {address}: {cause}; `python -m harness doctor` tells what to do"
    )
