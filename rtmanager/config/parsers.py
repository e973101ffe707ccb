"""Parsers of the text of environment variables.

A parser returns the value, or raises `InvalidSetting` with the expected form, worded to follow "is not". The caller
adds the variable's name, and its text unless that is secret.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rtmanager.domain.errors import InvalidValue, RuntimeManagerError
from rtmanager.domain.image_policy import ImagePattern, parse_patterns
from rtmanager.domain.messages import OUTBOX_PREFIX
from rtmanager.domain.system_paths import system_directory

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


#: Longest path of a Unix socket in bytes (`sun_path` without its NUL).
LONGEST_SOCKET_PATH = 107

#: Names with a meaning in Docker; none of these networks resolves a container's name.
_NOT_A_GAME_NETWORK = frozenset({"host", "none", "default", "bridge"})


#: Variables that systems and interpreters read: with the state directory as value, programs of an image fail.
_SYSTEM_VARIABLES = frozenset({"PATH", "HOME", "HOSTNAME", "IFS", "ENV", "BASH_ENV"})
_SYSTEM_VARIABLE_PREFIXES = ("LD_", "PYTHON")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; an empty host means every interface when listening."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisAddress(Address):
    """The address of Redis, and whether to use TLS."""

    tls: bool = False


class InvalidSetting(Exception):
    """The expected form of a value; the caller adds the variable and the value."""


def is_pipe_or_device(path: str) -> bool:
    """Return whether opening the path might block: a pipe waits for its writer. Raises `OSError`."""
    mode = os.stat(path).st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def encodable(text: str) -> str:
    """Return `text` if every adapter can send it: UTF-8 without a NUL. Raises `InvalidSetting`."""
    # Bytes of the environment that are not UTF-8 arrive as surrogates.
    if re.search(r"[\x00\ud800-\udfff]", text):
        raise InvalidSetting("text in UTF-8 without a NUL")
    return text


def any_text(text: str) -> str:
    return text


def optional(parse: Callable[[str], str]) -> Callable[[str], str]:
    """Extend a parser to accept empty text."""
    return lambda text: parse(text) if text else ""


def duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0.001 <= seconds <= 366 * 86400:
        raise InvalidSetting("a duration from 1ms to 8784h such as 500ms, 2s, 5m or 1h")
    return seconds


def duration_within(low: str, high: str) -> Callable[[str], float]:
    """Return a parser of durations from `low` to `high`, both written as durations."""

    def parse(text: str) -> float:
        try:
            seconds = duration(text)
        except InvalidSetting:
            seconds = 0.0
        if not duration(low) <= seconds <= duration(high):
            raise InvalidSetting(f"a duration from {low} to {high}")
        return seconds

    return parse


def retention(text: str) -> float:
    """Parse a retention into seconds; 0 keeps for ever."""
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if text != "0" and not 60.0 <= seconds <= 10 * 366 * 86400:
        raise InvalidSetting("0, which keeps for ever, or a duration from 1m to 87840h such as 720h")
    return seconds


#: A worker's period: a shorter one would occupy the processor and Docker with nothing else.
period = duration_within("100ms", "8784h")


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise InvalidSetting(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise InvalidSetting(f"one of {', '.join(choices)}")
        return text

    return parse


def can_be_looked_up(host: str | None) -> bool:
    """Return whether this is an IP address, or a valid DNS name: no part of it is empty or longer than 63 bytes."""
    name = (host or "").strip("[]")
    try:
        if ":" in name:
            socket.inet_pton(socket.AF_INET6, name.partition("%")[0])
        elif re.fullmatch(r"[0-9.]*[0-9]", name):
            socket.inet_aton(name)
        else:
            name.encode("idna")
    except (OSError, UnicodeError):
        return False
    return True


def _without_zone(text: str) -> str:
    if re.search(r"\[[^]]*%", text):
        raise InvalidSetting("an address without an IPv6 zone: a zone, the part after %, is not supported here")
    return text


def address(text: str) -> Address:
    _without_zone(text)
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/@]*)):([0-9]{1,5})", text)
    if not match or int(match[3]) > 65535 or not can_be_looked_up(match[1] or match[2]):
        raise InvalidSetting("an address host:port, or :port for every interface")
    return Address(match[1] or match[2] or "", int(match[3]))


_NAME_PART = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def host_names(text: str) -> frozenset[str]:
    """Parse host names to lower case, without a port or a final dot; empty text: none."""
    names = set()
    for item in text.split(",") if text else ():
        name, _, port = item.strip().lower().partition(":")
        name = name.removesuffix(".")
        parts = name.split(".")
        good = len(name) <= 253 and all(_NAME_PART.fullmatch(part) for part in parts)
        if not good or (":" in item and not re.fullmatch(r"[0-9]{1,5}", port)):
            raise InvalidSetting(
                "names of hosts separated by commas, such as rtmanager.example.org; no URL, no wildcard, "
                "and an international name in its xn-- form"
            )
        names.add(name)
    return frozenset(names)


def remote_address(text: str) -> Address:
    parsed = address(text)
    if not parsed.host or not parsed.port:
        raise InvalidSetting("an address host:port such as redis:6379")
    return parsed


def redis_address(text: str) -> RedisAddress:
    """Parse `host:port`, the form of the contract, or a URL without the parts that other variables set."""
    match = re.fullmatch(r"(?:(rediss?)://)?(.*?)(/0?)?", _without_zone(text), re.IGNORECASE)
    scheme, rest = ((match[1] or "").lower(), match[2]) if match else ("", text)
    if "@" in rest:
        raise InvalidSetting(
            "an address without user and password: those are RTMANAGER_REDIS_USERNAME and RTMANAGER_REDIS_PASSWORD"
        )
    if "/" in rest or "?" in rest:
        raise InvalidSetting(
            "an address such as redis:6379, redis://redis:6379 or rediss://redis:6379, of the database 0"
        )
    if scheme and not re.search(r":[0-9]*$", rest):
        rest = f"{rest}:6379"
    try:
        found = remote_address(rest)
    except InvalidSetting as error:
        raise InvalidSetting(
            "an address host:port such as redis:6379, or redis://host:port, with TLS rediss://host:port"
        ) from error
    return RedisAddress(found.host, found.port, scheme == "rediss")


def http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        good = good and not re.search(r"\s", text) and can_be_looked_up(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise InvalidSetting("a base URL such as http://lobby:8095")
    if "?" in text or "#" in text:
        raise InvalidSetting("a base URL without ? and #: a path is appended to it")
    return text.rstrip("/")


def docker_host(text: str) -> str:
    if text.startswith("tcp:"):
        _without_zone(text)
    match = re.fullmatch(r"unix:///.+|tcp://(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+)(?::([0-9]{1,5}))?/?", text)
    if not match or not 0 < int(match[2] or 1) <= 65535:
        raise InvalidSetting("a Docker endpoint, unix:///var/run/docker.sock or tcp://host:2375")
    if not can_be_looked_up(match[1]):
        raise InvalidSetting("a Docker endpoint whose host name has parts of 1 to 63 characters")
    if match[1] is None and len(os.fsencode(text.removeprefix("unix://"))) > LONGEST_SOCKET_PATH:
        raise InvalidSetting(f"a Docker endpoint whose socket has a path of at most {LONGEST_SOCKET_PATH} bytes")
    return text


def absolute_path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable() or ".." in text.split("/") or not text.strip("/"):
        raise InvalidSetting("an absolute path below /, without ..")
    return "/" + "/".join(part for part in text.split("/") if part not in ("", "."))


def path_outside(*tops: str) -> Callable[[str], str]:
    """Return a parser of absolute paths outside of these directories, which belong to kernel and runtime."""

    def parse(text: str) -> str:
        path = absolute_path(text)
        if f"/{path.split('/')[1]}" in tops:
            raise InvalidSetting(f"an absolute path outside of {', '.join(tops)}")
        return path

    return parse


def state_root(text: str) -> str:
    """Parse an absolute path that is no system directory. Links are resolved only when it is opened."""
    path = absolute_path(text)
    if found := system_directory(path):
        raise InvalidSetting(f"a directory for games alone, such as /var/lib/galaxy-games: {found} is the system's")
    return path


def optional_path(text: str) -> str:
    return absolute_path(text) if text else ""


def directory_mode(text: str) -> int:
    if not re.fullmatch(r"0{0,2}[0-7]{3}", text) or not int(text, 8) & 0o700 == 0o700:
        raise InvalidSetting(
            "an octal directory mode that lets its owner read, write and enter, such as 0750, without setuid, setgid "
            "and sticky bits"
        )
    return int(text, 8)


def free_bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})([kmgt]?)", text.lower())
    if match is None:
        raise InvalidSetting("a number of bytes such as 1m or 2g, or 0 for no limit")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2]]


def environment_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise InvalidSetting("the name of an environment variable such as GAME_STATE_PATH")
    if text in _SYSTEM_VARIABLES or text.startswith(_SYSTEM_VARIABLE_PREFIXES):
        raise InvalidSetting(
            "a name such as GAME_STATE_PATH: the system or an interpreter in the container reads this variable"
        )
    return text


def docker_name(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", text):
        raise InvalidSetting("a Docker network name: letters, digits, _ . -")
    if text in _NOT_A_GAME_NETWORK:
        raise InvalidSetting(
            "a network of its own (docker network create galaxy-net): in this one, engines have no names"
        )
    return text


def options(text: str) -> dict[str, str]:
    if not text:
        return {}
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not key.strip() or not equals for key, equals, _ in pairs):
        raise InvalidSetting("comma-separated key=value pairs such as max-size=10m,max-file=3")
    found = {key.strip(): value.strip() for key, _, value in pairs}
    if len(found) < len(pairs):
        raise InvalidSetting("key=value pairs with each key once")
    return found


def exporter(text: str) -> str:
    if text != "none":
        raise InvalidSetting("none: no OpenTelemetry exporter is built in")
    return text


def by_domain(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Adapt a parser of the domain: its `InvalidValue` already has the expected form."""

    def wrapped(text: str) -> Any:
        try:
            return parse(text)
        except RuntimeManagerError as error:
            raise InvalidSetting(str(error).partition("expected ")[2]) from error

    return wrapped


def image_patterns(text: str) -> tuple[ImagePattern, ...]:
    try:
        return parse_patterns(text)
    except InvalidValue as error:
        raise InvalidSetting(
            "a list of patterns [registry[:port]/]path[:tag] such as registry.example/games/**, with commas or white "
            f"space between them: {error}"
        ) from error


def stream_name(text: str) -> str:
    """Return `text` if it is not one of the manager's own keys. Raises `InvalidSetting`."""
    if text.startswith(OUTBOX_PREFIX):
        raise InvalidSetting(f"the name of a stream: keys that begin with {OUTBOX_PREFIX} are the service's own")
    return text
