"""Messages for errors of the Docker SDK: a short cause and a remedy.

The tables in `answers` decide what an answer means.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from http.client import HTTPException

from docker.errors import APIError
from urllib3.exceptions import ProtocolError

from rtmanager.adapters.docker.answers import causes, forbidden, own_words, words
from rtmanager.domain.container import LABEL_MEMORY, ContainerSpec
from rtmanager.domain.text import bounded
from rtmanager.resources import lacking

__all__ = [
    "launch_refused",
    "name_of_nobody",
    "never_connected",
    "reason",
    "remedy",
    "timed_out",
    "words",
]

#: Phrases of a refused create or start (lower case), and the remedy.
_LAUNCH_REMEDIES = (
    (("no such image",), "the image was removed after it was found: start again"),
    (("bind source path does not exist",), "the Docker host must see the state directory at the same path"),
    (("logging plugin", "logging driver", "log driver", "log opt"), "check {log}"),
    (("error mounting",), "check RTMANAGER_ENGINE_STATE_MOUNT_PATH={mount}: the image may have a file there"),
    (("oom-killed", "memory limit"), f"raise the image's label `{LABEL_MEMORY}`, or RTMANAGER_DEFAULT_MEMORY"),
    (("range of cpus",), "lower the CPU limit of the image, or RTMANAGER_DEFAULT_CPU_QUOTA"),
    (("docker-init",), "install docker-init on the Docker host (package `tini`)"),
    (("executable file not found", "no command specified", "permission denied"), "check the image's entry point"),
    (("network",), "check the network RTMANAGER_DOCKER_NETWORK={network}: `docker network ls`"),
    (("no space left",), "free disk space on the Docker host"),
)

#: Options of log drivers whose values may appear in a message.
_PUBLIC_LOG_OPTION = re.compile(r"(?:max-|cache-)|(?:mode|compress)$")


def timed_out(error: BaseException) -> bool:
    """Return whether a timeout caused the error, at any depth."""
    return any(isinstance(cause, TimeoutError) for cause in causes(error))


def never_connected(error: BaseException) -> bool:
    """Return whether no connection was made, so that the daemon received nothing."""
    refused = (ConnectionRefusedError, FileNotFoundError, PermissionError)
    return any(isinstance(cause, refused) for cause in causes(error))


def reason(error: BaseException) -> str:
    """Return the innermost cause in a few words, for example `Connection refused`."""
    chain = list(causes(error))
    for cause in reversed(chain):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if any(isinstance(cause, (ProtocolError, HTTPException)) for cause in chain):
        return "the connection broke off before the answer was complete"
    return bounded(str(error)) or type(error).__name__


def remedy(error: BaseException) -> str:
    """Return what to do when there is no connection, or it broke off."""
    for cause in causes(error):
        if isinstance(cause, PermissionError):
            return "let this user use it: add the user to the group of the socket (`docker`), or run as root"
        if isinstance(cause, socket.gaierror):
            return "check the name of the host in RTMANAGER_DOCKER_HOST"
        if lack := lacking(cause):
            return lack.remedy
    return "check that Docker runs there, and that RTMANAGER_DOCKER_HOST is right"


def launch_refused(spec: ContainerSpec, step: str, error: APIError) -> str:
    """Format a refused `create`, `rename` or `start` (`step`) with its remedy."""
    reply = words(error)
    message = f"container {spec.name}: Docker refused to {step} it: {reply}"
    if remedy := forbidden(step, error):
        return f"{message}; {remedy}"
    return _with_remedy(
        message, own_words(reply), [(marks, _filled(remedy, spec)) for marks, remedy in _LAUNCH_REMEDIES]
    )


def _filled(remedy: str, spec: ContainerSpec) -> str:
    """Fill in the values of the settings that a remedy names."""
    settings = {"{log}": _log_settings(spec), "{mount}": spec.mount_path, "{network}": spec.network}
    for place, value in settings.items():
        remedy = remedy.replace(place, value)
    return remedy


def _log_settings(spec: ContainerSpec) -> str:
    """List the log driver's variables with their values, masked where an option may hold a token."""
    options = ",".join(
        f"{name}={value if _PUBLIC_LOG_OPTION.match(name) else '…'}" for name, value in spec.log_options.items()
    )
    return f"RTMANAGER_DOCKER_LOG_DRIVER={bounded(spec.log_driver)} and RTMANAGER_DOCKER_LOG_OPTS={bounded(options)}"


def name_of_nobody(name: str, seconds: float, error: APIError) -> str:
    """Format a create that Docker refuses for a taken name though no container has this name."""
    reply = words(error).rstrip(".")
    return (
        f"container {name}: Docker refused to create it for {seconds:g} s: {reply}; but no container has this name: if "
        "a later try fails, too, restart dockerd (without live-restore that stops all containers)"
    )


def _with_remedy(message: str, reply: str, remedies: Iterable[tuple[tuple[str, ...], str]]) -> str:
    """Append the first remedy that has a mark in `reply` (lower case)."""
    for marks, remedy in remedies:
        if any(mark in reply for mark in marks):
            return f"{message}; {remedy}"
    return message
