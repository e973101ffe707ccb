"""What errors of the Docker SDK say to a person: the cause in a few words, and what can be done about it.

What an answer means is decided by the tables in `answers`.
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
    "pull_refused",
    "reason",
    "remedy",
    "timed_out",
    "words",
]

#: Docker's words in a refused pull (lower case), and what a person can do about it.
_PULL_REMEDIES = (
    (("toomanyrequests", "rate limit"), "the registry limits pulls: log in there, or wait"),
    (("dial tcp", "timeout", "deadline exceeded", "eof"), "check that the Docker host reaches the registry"),
    (("http response to https", "x509", "tls:"), "check the registry's certificate, or Docker's `insecure-registries`"),
    (
        ("denied", "unauthorized", "authentication required", "no basic auth"),
        "check the name, or `docker login` as the user that runs this service",
    ),
    (("manifest unknown", "not found", "does not exist"), "check that the tag was pushed"),
    (("no space left",), "free disk space on the Docker host"),
)

#: Docker's words in a refused create or start (lower case), and what a person can do about it.
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

#: Options of log drivers whose values are shown in a message.
_PUBLIC_LOG_OPTION = re.compile(r"(?:max-|cache-)|(?:mode|compress)$")


def timed_out(error: BaseException) -> bool:
    """Whether the time of an answer ran out, however many layers wrapped it."""
    return any(isinstance(cause, TimeoutError) for cause in causes(error))


def never_connected(error: BaseException) -> bool:
    """Whether there was no connection, so that the engine cannot have heard the question."""
    refused = (ConnectionRefusedError, FileNotFoundError, PermissionError)
    return any(isinstance(cause, refused) for cause in causes(error))


def reason(error: BaseException) -> str:
    """The innermost cause in a few words: `Connection refused` rather than four nested class names."""
    chain = list(causes(error))
    for cause in reversed(chain):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if any(isinstance(cause, (ProtocolError, HTTPException)) for cause in chain):
        return "the connection broke off before the answer was complete"
    return bounded(str(error)) or type(error).__name__


def remedy(error: BaseException) -> str:
    """What to do when there was no connection, or it broke off."""
    for cause in causes(error):
        if isinstance(cause, PermissionError):
            return "let this user use it: add the user to the group of the socket (`docker`), or run as root"
        if isinstance(cause, socket.gaierror):
            return "check the name of the host in RTMANAGER_DOCKER_HOST"
        if lack := lacking(cause):
            return lack.remedy
    return "check that Docker runs there, and that RTMANAGER_DOCKER_HOST is right"


def pull_refused(image_ref: str, said: str) -> str:
    """The message of a pull that failed with Docker's words `said`, which the caller has bounded."""
    # Docker writes it in its own way: with or without the registry, the tag, `library/`.
    named = sorted(filter(None, re.split(r"[/:@]", image_ref.lower())), key=len, reverse=True)
    meant = re.sub(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, named))})(?![\w.-])", " ", said.lower())
    return _with_remedy(f"image {image_ref} cannot be pulled: {said}", meant, _PULL_REMEDIES)


def launch_refused(spec: ContainerSpec, step: str, error: APIError) -> str:
    """The message of a container that Docker refused to `create` or `start`."""
    said = words(error)
    message = f"container {spec.name}: Docker refused to {step} it: {said}"
    if remedy := forbidden(step, error):
        return f"{message}; {remedy}"
    return _with_remedy(
        message, own_words(said), [(marks, _filled(remedy, spec)) for marks, remedy in _LAUNCH_REMEDIES]
    )


def _filled(remedy: str, spec: ContainerSpec) -> str:
    """A remedy with the values of the settings that it names."""
    settings = {"{log}": _log_settings(spec), "{mount}": spec.mount_path, "{network}": spec.network}
    for place, value in settings.items():
        remedy = remedy.replace(place, value)
    return remedy


def _log_settings(spec: ContainerSpec) -> str:
    """The variables of the log driver with their values; options of a remote driver may hold a token."""
    options = ",".join(
        f"{name}={value if _PUBLIC_LOG_OPTION.match(name) else '…'}" for name, value in spec.log_options.items()
    )
    return f"RTMANAGER_DOCKER_LOG_DRIVER={bounded(spec.log_driver)} and RTMANAGER_DOCKER_LOG_OPTS={bounded(options)}"


def name_of_nobody(name: str, seconds: float, error: APIError) -> str:
    """The message of a name that Docker calls taken for `seconds` though it shows no container of this name."""
    said = words(error).rstrip(".")
    return (
        f"container {name}: Docker refused to create it for {seconds:g} s: {said}; but no container has this name: if "
        "a later try fails, too, restart dockerd (without live-restore that stops all containers)"
    )


def _with_remedy(message: str, said: str, remedies: Iterable[tuple[tuple[str, ...], str]]) -> str:
    """The message with the first remedy of which a mark is in `said` (lower case)."""
    for marks, remedy in remedies:
        if any(mark in said for mark in marks):
            return f"{message}; {remedy}"
    return message
