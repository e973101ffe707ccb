"""Redis as it is found: what this user may do there, what kind of server it is, and why it takes no connection.

Every command that the service uses is tried on the keys it is used on, inside of a `MULTI` that is discarded: Redis
decides as it queues a command whether the user may use it on that key, and changes nothing.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from rtmanager.domain.errors import RuntimeManagerError
from rtmanager.domain.messages import Stream

#: Older servers lack what the ingest relies on: XAUTOCLAIM that drops deleted entries.
OLDEST = (7, 0)

INPUTS = (Stream.START_JOBS, Stream.STOP_JOBS)
OUTPUTS = (Stream.JOB_RESULTS, Stream.HEALTH_EVENTS, Stream.NOTIFICATION_INTENTS, Stream.DEAD_LETTERS)

#: Keys beside the streams: which turn of the relay was the last, and what it has published.
OUTBOX_PREFIX = "rtmanager:outbox:"

_GROUP = "rtmanager"
_ADDRESS, _USER, _PASSWORD = "RTMANAGER_REDIS_MASTER_ADDR", "RTMANAGER_REDIS_USERNAME", "RTMANAGER_REDIS_PASSWORD"
_CA, _CERT, _KEY = "RTMANAGER_REDIS_TLS_CA", "RTMANAGER_REDIS_TLS_CERT", "RTMANAGER_REDIS_TLS_KEY"

#: Commands without a key.
_KEYLESS = (
    ("PING",),
    ("SCRIPT", "LOAD", "return 1"),
    ("CLIENT", "ID"),
    ("CLIENT", "SETNAME", "rtmanager"),
    ("CLIENT", "REPLY", "SKIP"),
)
_SUBCOMMANDS = frozenset({"XGROUP", "XINFO", "SCRIPT", "CLIENT"})
#: What the service can do without: to end a read under way when it stops, the version of a server that has no HELLO.
_OPTIONAL = ("client|unblock", "info")

#: What kinds of server call themselves, and why each is refused.
_MODES = {
    "cluster": (
        "is a node of a Redis Cluster, which cannot hold the streams of one step in one place",
        f"name a single Redis 7 or newer in {_ADDRESS} (cluster-enabled no)",
    ),
    "sentinel": (
        "is a Sentinel, which holds no streams and is not supported",
        f"name the master itself in {_ADDRESS}, or an address that follows it",
    ),
}
_RENAMED = "give the commands their names back (rename-command), or use Redis 7 or newer itself"
_CLUSTER_ERRORS = (
    redis.exceptions.MovedError,
    redis.exceptions.AskError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.ClusterCrossSlotError,
)


class RedisUnfit(RuntimeManagerError):
    """Redis answers, and cannot be used; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards Redis: files in PEM, empty where the system's own, or none, is used."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Raises `OSError` (an `ssl.SSLError` is one) when a file cannot be used."""
        made = ssl.create_default_context(cafile=self.ca or None)
        if self.cert:
            made.load_cert_chain(self.cert, self.key or None)
        return made

    def settings(self) -> dict[str, Any]:
        """The same for redis-py."""
        files = {"ssl_ca_certs": self.ca, "ssl_certfile": self.cert, "ssl_keyfile": self.key or self.cert}
        named = {name: value for name, value in files.items() if value}
        return {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True, **named}


def commands(names: Mapping[Stream, str], deployment: str = "check") -> Iterator[tuple[str | int, ...]]:
    """Every command of the service, on each key it is used on."""
    inputs, outputs = [names[each] for each in INPUTS], [names[each] for each in OUTPUTS]
    fence, published = f"{OUTBOX_PREFIX}{deployment}:turn", f"{OUTBOX_PREFIX}{deployment}:published"
    yield from _KEYLESS
    for key in inputs:
        yield ("XAUTOCLAIM", key, _GROUP, "ingest", 0, "0-0", "COUNT", 1, "JUSTID")
        yield ("XRANGE", key, "-", "+", "COUNT", 1)
        yield ("XREADGROUP", "GROUP", _GROUP, "ingest", "COUNT", 1, "STREAMS", key, ">")
        yield ("XREAD", "COUNT", 1, "BLOCK", 1, "STREAMS", key, "$")
        yield ("XACK", key, _GROUP, "0-1")
        yield ("XGROUP", "CREATE", key, _GROUP, "0", "MKSTREAM")
        yield ("XGROUP", "SETID", key, _GROUP, "0")
        yield ("XINFO", "GROUPS", key)
    for key in outputs:
        yield ("XADD", key, "MAXLEN", "~", 1, "*", "field", "value")
    yield ("EXISTS", names[Stream.JOB_RESULTS])
    yield ("GET", fence)
    yield ("SET", fence, 1)
    for command in ("SISMEMBER", "SADD", "SREM"):
        yield (command, published, 1)
    yield ("SMEMBERS", published)
    # In one step on all, as the scripts do it: on a cluster they are on several nodes.
    yield ("EVALSHA", "0" * 40, len(inputs), *inputs)
    yield ("EVALSHA", "0" * 40, 2 + len(outputs), fence, published, *outputs)


def acl_rules(names: Mapping[Stream, str]) -> str:
    """The rules of an ACL user that may do what the service does, and nothing else."""
    used = {_command(each) for each in commands(names)} | set(_OPTIONAL)
    allowed = sorted({"hello", "multi", "exec", "discard", *used})
    keys = [*sorted(names.values()), f"{OUTBOX_PREFIX}*"]
    return " ".join(
        ["resetkeys", *(f"~{key}" for key in keys), "resetchannels", "-@all", *(f"+{name}" for name in allowed)]
    )


def examine(connection: Any, names: Mapping[Stream, str], where: str) -> str:
    """The server's version; raises `RedisUnfit`, and `redis.RedisError` for silence."""
    version, mode = _hello(connection)
    if mode in _MODES:
        what, remedy = _MODES[mode]
        raise RedisUnfit(f"{where} {what}", remedy)
    number = re.match(r"(\d+)\.(\d+)", version)
    if number and (int(number[1]), int(number[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise RedisUnfit(f"{where}: Redis {version} is too old: {oldest} or newer is needed", "upgrade it")
    require_allowed(connection, names, where)
    return version


def require_allowed(connection: Any, names: Mapping[Stream, str], where: str) -> None:
    """Raise `RedisUnfit` that names every command and key which Redis refuses to this user."""
    # Alone: without a MULTI the commands behind it would be done.
    [opened] = _ask(connection, [("MULTI",)])
    answers: list[tuple[tuple[str | int, ...], Any]] = [(("MULTI",), opened)]
    if not isinstance(opened, Exception):
        every = [*commands(names), ("DISCARD",)]
        answers += zip(every, _ask(connection, every), strict=True)
        if isinstance(answers[-1][1], Exception):
            connection.disconnect()  # or the next command of whoever is given it would be queued
    for _, answer in answers:
        if isinstance(answer, _CLUSTER_ERRORS):
            what, remedy = _MODES["cluster"]
            raise RedisUnfit(f"{where} {what} ({type(answer).__name__}: {answer})", remedy)
        if isinstance(answer, redis.BusyLoadingError | redis.exceptions.MasterDownError | redis.AuthenticationError):
            raise answer
    refused = [(command, answer) for command, answer in answers if _is_refusal(answer)]
    if refused:
        listed = _listed([command for command, _ in refused])
        why = str(refused[0][1])[:200]
        if all(_is_unknown(answer) for _, answer in refused):
            raise RedisUnfit(f"{where} lacks {listed} ({why})", _RENAMED)
        raise RedisUnfit(f"{where} refuses {listed} ({why})", f"ACL SETUSER <user> {acl_rules(names)}")


def why_unusable(
    error: redis.RedisError, where: str, address: tuple[str, int], tls: Tls | None, limit_s: float, rules: str
) -> RedisUnfit | None:
    """What a connection that could not be made means, if that can be found out; None leaves it as it is."""
    if isinstance(error, redis.AuthenticationError):
        return RedisUnfit(f"{where} refuses the login: {error}", f"are {_USER} and {_PASSWORD} right?")
    if isinstance(error, redis.exceptions.NoPermissionError):
        return RedisUnfit(f"{where} refuses what every connection begins with: {error}", f"ACL SETUSER <user> {rules}")
    if _is_unknown(error):
        return RedisUnfit(f"{where} lacks what every connection begins with: {error}", _RENAMED)
    if isinstance(error, redis.ResponseError) and str(error).startswith("DENIED"):
        return RedisUnfit(f"{where} is in protected mode and takes local clients only", "set a password or bind there")
    if isinstance(error, redis.ResponseError | redis.BusyLoadingError):
        return None
    found = _encrypted(*address, tls, limit_s) if tls else _plain(*address, limit_s)
    return RedisUnfit(f"{where}: {found[0]}", found[1]) if found else None


def _encrypted(host: str, port: int, tls: Tls, limit_s: float) -> tuple[str, str] | None:
    files = {_CA: tls.ca, _CERT: tls.cert, _KEY: tls.key}
    for variable, path in files.items():
        try:
            if path:
                with open(path, "rb"):
                    pass
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}", f"correct {variable}"
    try:
        context = tls.context()
    except OSError as error:
        return (
            f"the files for TLS cannot be used: {error}",
            f"{_CA}, {_CERT} and {_KEY} are files in PEM that fit each other",
        )
    try:
        with (
            socket.create_connection((host, port), limit_s) as line,
            context.wrap_socket(line, server_hostname=host) as encrypted,
        ):
            # With TLS 1.3 a missing client certificate shows with the first answer.
            encrypted.sendall(b"PING\r\n")
            if encrypted.recv(1):
                return None
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted: {error.verify_message}", _certificate_remedy(error.verify_code)
    except OSError as error:
        if _answers_plainly(host, port, limit_s):
            return "it speaks no TLS", f"write redis://{host}:{port} in {_ADDRESS}, or let Redis listen with TLS there"
        if not isinstance(error, ssl.SSLError | ConnectionResetError):
            return None
    return (
        "it ends the connection during TLS",
        f"if it wants a certificate of ours, set {_CERT} and {_KEY} to one it trusts",
    )


def _certificate_remedy(verify_code: int) -> str:
    """By OpenSSL's X509_V_ERR_…"""
    if verify_code in (9, 10):
        return "renew the certificate of Redis, or set the clock right"
    if verify_code in (62, 64):
        return f"use a host in {_ADDRESS} that the certificate is made for (subjectAltName), or have one made for this"
    return f"name the authority that signed it in {_CA}"


def _answers_plainly(host: str, port: int, limit_s: float) -> bool:
    try:
        with socket.create_connection((host, port), limit_s) as line:
            line.sendall(b"PING\r\n")
            return line.recv(1) in (b"+", b"-")
    except OSError:
        return False


def _plain(host: str, port: int, limit_s: float) -> tuple[str, str] | None:
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), limit_s) as line,
            unverified.wrap_socket(line, server_hostname=host),
        ):
            return "it speaks TLS only", f"write rediss://{host}:{port} in {_ADDRESS}"
    except OSError:
        return None


def _hello(connection: Any) -> tuple[str, str]:
    """Version and mode. HELLO needs no right; where it does not exist, INFO may."""
    [hello] = _ask(connection, [("HELLO",)])
    if isinstance(hello, dict):
        hello = [part for pair in hello.items() for part in pair]
    if isinstance(hello, list):
        told = dict(zip(map(_text, hello[::2]), hello[1::2], strict=False))
        return _text(told.get("version", "")), _text(told.get("mode", ""))
    if isinstance(hello, redis.AuthenticationError):
        raise hello
    [info] = _ask(connection, [("INFO", "server")])
    if isinstance(info, bytes | str):
        told = dict(line.partition(":")[::2] for line in _text(info).splitlines())
        return told.get("redis_version", ""), told.get("redis_mode", "")
    return "", ""


def _ask(connection: Any, asked: Sequence[Sequence[str | int]]) -> list[Any]:
    """The answers to these commands, sent at once; errors as answers."""
    connection.send_packed_command(connection.pack_commands(asked))
    answers: list[Any] = []
    for _ in asked:
        try:
            answers.append(connection.read_response())
        except redis.ResponseError as error:
            answers.append(error)
        except redis.ConnectionError as error:
            if isinstance(error, redis.AuthenticationError | redis.BusyLoadingError):
                answers.append(error)
            else:
                raise
    return answers


def _is_refusal(answer: object) -> bool:
    """Whether it was not queued because of the user's rights, or as the server does not have it (`rename-command`)."""
    if isinstance(answer, redis.exceptions.NoPermissionError):
        return True
    return _is_unknown(answer)


def _is_unknown(answer: object) -> bool:
    return isinstance(answer, redis.ResponseError) and str(answer).startswith(("unknown ", "ERR unknown "))


def _command(parts: Sequence[str | int]) -> str:
    name = str(parts[0])
    return f"{name}|{parts[1]}".lower() if name in _SUBCOMMANDS else name.lower()


def _listed(refused: Sequence[Sequence[str | int]]) -> str:
    """The commands, each with the keys that it is refused on."""
    found: dict[str, list[str]] = {}
    for parts in refused:
        keys = [str(each) for each in parts if ":" in str(each)]
        found.setdefault(_command(parts).replace("|", " ").upper(), []).extend(keys)
    return "; ".join(" ".join([name, *dict.fromkeys(keys)]) for name, keys in found.items())


def _text(raw: object) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
