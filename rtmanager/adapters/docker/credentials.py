"""Finds registry credentials as the docker CLI does: in config.json and by credential helpers.

Verified with CLI 28.2: a fault in the file or in a helper is a warning, and the pull continues with what is left,
mostly anonymously. This module does the same, with two exceptions. It kills a helper that hangs and fails the pull,
where the CLI hangs. And a value of a wrong type invalidates that value only, not the whole file.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from select import POLLHUP, POLLIN, poll
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from rtmanager.domain.game import shown
from rtmanager.domain.image_ref import DEFAULT_REGISTRY
from rtmanager.domain.text import bounded
from rtmanager.resources import lacking, lacking_for_program, out_of

#: The CLI's key for the credentials of the default registry.
DEFAULT_REGISTRY_KEY = "https://index.docker.io/v1/"
#: A larger configuration file is not read.
MAX_CONFIG_BYTES = 1 << 20
#: A larger helper answer is not read.
MAX_ANSWER_BYTES = 1 << 18
#: Credentials with a longer header are ignored. Docker accepts 1 MiB for all headers together; one header may combine
#: an entry of the file with a helper's answer.
MAX_HEADER_BYTES = 1 << 16
#: Poll interval, in seconds, for the end of a helper and for an abort.
POLL_S = 0.05
#: Seconds to wait for remaining output when a helper has ended but one of its children keeps its output open.
LAST_OUTPUT_S = 0.2

_PROGRAM_PREFIX = "docker-credential-"
_NOT_FOUND = "credentials not found in native keychain"
#: The user name by which a helper marks its secret as an identity token.
_TOKEN_USER = "<token>"
#: Prefix of variables that a helper does not inherit: the manager's settings hold secrets.
_OWN_SETTINGS = "RTMANAGER_"

#: Numbers are ignored here, and Python rejects an integer of thousands of digits.
_DECODER = json.JSONDecoder(parse_int=float)

#: Header fields, by the field of a file entry.
_FIELDS = {
    "username": "username",
    "password": "password",
    "email": "email",
    "serveraddress": "serveraddress",
    "identitytoken": "identitytoken",
    "registrytoken": "registrytoken",
}


class HelperHangs(Exception):
    """A credential helper did not answer in time and was killed."""


class HelperFailed(Exception):
    """A credential helper gave no usable answer; the message says why and contains no secret."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials for one registry; `header` is empty when there are none, `note` says what was ignored and why."""

    header: str = ""
    note: str = ""


@dataclass(slots=True)
class _Config:
    """The relevant content of config.json, and the parts that could not be read."""

    auths: dict[str, dict[str, str]] = field(default_factory=dict)
    helpers: dict[str, str] = field(default_factory=dict)
    store: str = ""
    problems: list[str] = field(default_factory=list)


class DockerConfig:
    """The docker CLI's configuration of this process's user, read anew for each pull."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._warned_of: list[str] = []

    def credentials(self, registry: str, limit_s: float, unwanted: Callable[[], bool]) -> Credentials:
        """Find the credentials for one registry. Raises `HelperHangs` after `limit_s`, or once `unwanted()` is true."""
        path = config_path()
        config = read_config(path)
        self._warn(path, config.problems)
        key = DEFAULT_REGISTRY_KEY if registry == DEFAULT_REGISTRY else registry
        entry = _entry(config.auths, key)
        helper = config.helpers.get(key, config.store)
        if not helper and not config.auths and not config.helpers:
            helper = _default_store()
        note = "; ".join(f"{path}: {problem}" for problem in config.problems)
        if helper:
            try:
                entry = {**entry, **run_helper(helper, key, limit_s, unwanted)}
            except HelperFailed as error:
                note = str(error)
        return Credentials(_header(entry), bounded(note))

    def _warn(self, path: Path, problems: list[str]) -> None:
        """Log each problem once, not once per pull."""
        for problem in problems:
            if problem not in self._warned_of:
                self._logger.warning("docker's configuration cannot be read in full: %s: %s", path, problem)
        self._warned_of = problems


def config_path() -> Path:
    """Return the path of the CLI's configuration file."""
    directory = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return Path(directory) / "config.json"


def read_config(path: Path) -> _Config:
    """Read the readable parts of the file; empty when it does not exist. Raises only for lack of a local resource."""
    config = _Config()
    try:
        content = _content(path)
        if not content.strip():
            return config
        # Like the CLI: only the first JSON value counts.
        document, _ = _DECODER.raw_decode(content.decode("utf-8", "replace").lstrip(" \t\r\n"))
    except FileNotFoundError:
        return config
    except OSError as error:
        if lack := lacking(error):
            raise out_of(lack) from error
        config.problems.append(error.strerror or str(error))
        return config
    except (ValueError, RecursionError) as error:
        config.problems.append(f"it is no JSON: {_without_content(error)}")
        return config
    _read_document(document, config)
    return config


def _content(path: Path) -> bytes:
    """Read a file; rejects a pipe, device or directory, and a file above `MAX_CONFIG_BYTES`, with `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(0, "it is a directory" if stat.S_ISDIR(mode) else "it is no file")
        content = file.read(MAX_CONFIG_BYTES + 1)
    if len(content) > MAX_CONFIG_BYTES:
        raise OSError(0, f"it has more than {MAX_CONFIG_BYTES} bytes")
    return content


def _without_content(error: Exception) -> str:
    """Describe a JSON error without quoting the content."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, line {error.lineno} column {error.colno}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "it cannot be read"


def _read_document(document: object, config: _Config) -> None:
    if document is None:
        return
    if not isinstance(document, dict):
        config.problems.append("it is no JSON object")
        return
    for key, entry in _object(document, "auths", config).items():
        found = _read_entry(key, entry, config)
        if found is not None:
            config.auths[key] = found
    for key, helper in _object(document, "credhelpers", config).items():
        if isinstance(helper, str):
            config.helpers[key] = helper
        elif helper is not None:
            config.problems.append(f"credHelpers of {shown(key)} is no text")
    store = _member(document, "credsstore")
    if isinstance(store, str):
        config.store = store
    elif store is not None:
        config.problems.append("credsStore is no text")


def _read_entry(key: str, entry: object, config: _Config) -> dict[str, str] | None:
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        config.problems.append(f"auths of {shown(key)} is no JSON object")
        return None
    found = {"serveraddress": key}
    for name, part in _FIELDS.items():
        value = _member(entry, name)
        if isinstance(value, str) and part != "serveraddress":
            found[part] = value
    auth = _member(entry, "auth")
    if isinstance(auth, str) and auth:
        pair = _decoded(auth)
        if pair is None:
            config.problems.append(f"auths of {shown(key)}: auth is not user:password in base64")
            return {}
        found["username"], found["password"] = pair
    if len(_header(found)) > MAX_HEADER_BYTES:
        config.problems.append(f"auths of {shown(key)} is too large, {MAX_HEADER_BYTES} bytes at most in base64")
        return {}
    return found


def _decoded(auth: str) -> tuple[str, str] | None:
    try:
        raw = base64.b64decode(auth.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        return None
    user, colon, password = raw.decode("utf-8", "replace").partition(":")
    return (user, password.strip("\0")) if colon and user else None


def _member(document: Mapping[str, Any], name: str) -> object:
    """Return a member by its lower-case name, in any capitalization, as the CLI does."""
    found: object = None
    for key, value in document.items():
        if key.lower() == name and value is not None:
            found = value
    return found


def _object(document: Mapping[str, Any], name: str, config: _Config) -> dict[str, object]:
    found = _member(document, name)
    if found is None or isinstance(found, dict):
        return found or {}
    config.problems.append(f"{name} is no JSON object")
    return {}


def _entry(auths: Mapping[str, dict[str, str]], key: str) -> dict[str, str]:
    """Return the entry of a registry: by its name, else by an address with this host, as older CLIs wrote it."""
    if key in auths:
        return auths[key]
    return next((entry for name, entry in auths.items() if _host_of(name) == key), {})


def _host_of(address: str) -> str:
    if "://" in address:
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if host:
            # urlsplit lowers the case of a host; the CLI does not.
            written = parts.netloc.rpartition("@")[2]
            return written if port is not None else written.rstrip(":")
    return address.partition("/")[0]


def _default_store() -> str:
    """Return the helper that the CLI uses on Linux without configuration; empty when none is installed."""
    name = "pass" if shutil.which("pass") else "secretservice"
    return name if shutil.which(_PROGRAM_PREFIX + name) else ""


def _header(entry: Mapping[str, str]) -> str:
    """Return the value of `X-Registry-Auth`; empty without credentials."""
    if not any(entry.get(part) for part in ("username", "password", "identitytoken", "registrytoken")):
        return ""
    filled = {part: value for part, value in entry.items() if value}
    return base64.urlsafe_b64encode(json.dumps(filled).encode()).decode()


def run_helper(helper: str, key: str, limit_s: float, unwanted: Callable[[], bool]) -> dict[str, str]:
    """Request the credentials of a registry from a helper; all values are empty when it has none.

    Raises `HelperFailed`, or `HelperHangs` when it was killed.
    """
    program = _PROGRAM_PREFIX + helper
    output, code = _run(program, key, limit_s, unwanted)
    printed = output.decode("utf-8", "replace").strip()
    if code != 0:
        if printed == _NOT_FOUND:
            return {"username": "", "password": "", "identitytoken": ""}
        words = shown(printed, 200) if printed and "secret" not in printed.lower() else "nothing that could be shown"
        raise HelperFailed(f"the credential helper {program} failed with exit code {code} and said {words}")
    try:
        answer, _ = _DECODER.raw_decode(printed)
    except (ValueError, RecursionError):
        raise HelperFailed(f"the credential helper {program} did not answer with JSON") from None
    if answer is None:
        answer = {}
    if not isinstance(answer, dict):
        raise HelperFailed(f"the credential helper {program} did not answer with a JSON object")
    user, secret = (_member(answer, name) or "" for name in ("username", "secret"))
    if not isinstance(user, str) or not isinstance(secret, str):
        raise HelperFailed(f"the credential helper {program} answered with something that is no text")
    known = {"username": user, "password": secret, "identitytoken": "", "serveraddress": key}
    if user == _TOKEN_USER:
        known = {"username": "", "password": "", "identitytoken": secret, "serveraddress": key}
    if len(_header(known)) > MAX_HEADER_BYTES:
        raise HelperFailed(
            f"the credentials that {program} answered with are too large, {MAX_HEADER_BYTES} bytes at most in base64"
        )
    return known


def _run(program: str, key: str, limit_s: float, unwanted: Callable[[], bool]) -> tuple[bytes, int]:
    """Run a helper with `key` as input; returns its output and exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_SETTINGS)}
    try:
        process = subprocess.Popen(
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env=environment,
        )
    except FileNotFoundError:
        raise HelperFailed(f"the credential helper {program} is not installed (looked for on PATH)") from None
    except (OSError, ValueError) as error:
        if lack := lacking_for_program(error):
            raise out_of(lack) from error
        raise HelperFailed(f"the credential helper {shown(program)} cannot be run: {error}") from None
    try:
        output = b"".join(_output(process, program, key, limit_s, unwanted))
    finally:
        code = process.poll()
        if code is None:
            _kill(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()  # a child of the helper may keep the other end open
    return output, -signal.SIGKILL if code is None else code


def _output(
    process: subprocess.Popen[bytes], program: str, key: str, limit_s: float, unwanted: Callable[[], bool]
) -> Iterator[bytes]:
    """Yield the helper's output until it ends. Raises `HelperHangs` or `HelperFailed`."""
    if process.stdin is None or process.stdout is None:
        raise HelperFailed(f"the credential helper {program} has no input and output")
    with suppress(BrokenPipeError):  # it may ignore its input; only its output counts
        process.stdin.write(key.encode())
    process.stdin.close()
    source, until, taken = process.stdout.fileno(), monotonic() + limit_s, 0
    waiting = poll()
    waiting.register(source, POLLIN | POLLHUP)
    ended = False
    while True:
        if waiting.poll(POLL_S * 1000):
            piece = os.read(source, 1 << 16)
            if not piece:
                break
            taken += len(piece)
            if taken > MAX_ANSWER_BYTES:
                raise HelperFailed(f"the credential helper {program} answered with more than {MAX_ANSWER_BYTES} bytes")
            yield piece
        elif ended:
            return
        if not ended and process.poll() is not None:
            ended, until = True, min(until, monotonic() + LAST_OUTPUT_S)
        if monotonic() >= until or unwanted():
            if ended:
                return
            raise HelperHangs(
                f"the credential helper {program} had not answered after {limit_s:g} s and was killed; "
                "run it by hand as the user of this service"
            )
    try:
        process.wait(max(POLL_S, until - monotonic()))
    except subprocess.TimeoutExpired:
        raise HelperHangs(f"the credential helper {program} did not end within {limit_s:g} s and was killed") from None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a helper and its process group; a process that does not die is left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    with suppress(subprocess.TimeoutExpired):  # in uninterruptible sleep
        process.wait(1.0)
