"""What an error of the Docker SDK means: an answer, or no answer; and the words for the person who reads it.

The rule: whatever leaves open what the engine did (no connection, silence, a broken answer, an engine that
is going down) is no answer. Everything else that Docker says is one, the 500s included: it uses them for
ordinary refusals, such as a registry that it cannot reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPException

from docker.errors import APIError
from urllib3.exceptions import ProtocolError

#: Statuses by which a proxy in front of the engine, or the engine itself, says "not now".
_NOT_NOW = frozenset({408, 429, 502, 503, 504})

#: Words of a 500 that come from an engine that is going down, or that lost its containerd.
_GOING_DOWN = (
    "shutting down",
    "containerd.sock",
    "transport is closing",
    "client connection is closing",
    "error reading from server",
    "ttrpc: closed",
    "context canceled",
    "failed to update store",  # its network database is closed while the last seconds of its API run
    "database not open",
)

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
    (("range of cpus",), "lower the CPU limit of the image, or the configured default"),
    (("logging plugin", "log driver", "log opt"), "check the configured log driver and its options"),
    (("docker-init",), "install docker-init on the Docker host (package `tini`)"),
    (("executable file not found", "no command specified", "permission denied"), "check the image's entry point"),
    (("network",), "check the network: `docker network ls`"),
    (("no space left",), "free disk space on the Docker host"),
)


def words(error: APIError) -> str:
    """What Docker said, on one line."""
    return " ".join(str(error.explanation or error).split())


def is_answer(error: APIError) -> bool:
    """Whether the engine decided something; see the rule above."""
    status = error.status_code or 0
    if status in _NOT_NOW:
        return False
    said = words(error).lower()
    if status == 400 and "client version" in said:
        return False  # another engine than the one we agreed on a version with; ask it again
    return status < 500 or not any(mark in said for mark in _GOING_DOWN)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
    return str(error) or type(error).__name__


def pull_refused(image_ref: str, said: str) -> str:
    """The message of a pull that failed with Docker's words `said`."""
    return _with_remedy(f"image {image_ref} cannot be pulled: {said}", said, _PULL_REMEDIES)


def launch_refused(name: str, step: str, error: APIError) -> str:
    """The message of a container that Docker refused to `create` or `start`."""
    said = words(error)
    return _with_remedy(f"container {name}: Docker refused to {step} it: {said}", said, _LAUNCH_REMEDIES)


def _with_remedy(message: str, said: str, remedies: tuple[tuple[tuple[str, ...], str], ...]) -> str:
    lowered = said.lower()
    for marks, remedy in remedies:
        if any(mark in lowered for mark in marks):
            return f"{message}; {remedy}"
    return message
