"""Checks a Redis server: the user's rights, the kind of server, and why it refuses a connection.

Every command of the manager is queued with its keys inside a `MULTI` that is discarded: Redis checks the user's rights
when it queues a command, and changes nothing. A small write shows whether the server takes writes.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import redis

from rtmanager.adapters.certificates import (
    UNSIGNED,
    own_unfit,
    server_unfit,
    why_no_authorities,
    why_no_key_log,
    why_unreadable,
)
from rtmanager.domain.errors import RuntimeManagerError, Unavailable
from rtmanager.domain.jobs import INPUT_STREAMS
from rtmanager.domain.messages import OUTBOX_PREFIX, Stream
from rtmanager.domain.text import bounded

#: Older servers lack what the ingest relies on: an XAUTOCLAIM that drops deleted entries.
OLDEST = (7, 0)

OUTPUTS = tuple(each for each in Stream if each not in INPUT_STREAMS)


_GROUP = "rtmanager"
_ADDRESS, _USER, _PASSWORD = "RTMANAGER_REDIS_MASTER_ADDR", "RTMANAGER_REDIS_USERNAME", "RTMANAGER_REDIS_PASSWORD"
#: Without a password OpenSSL would prompt on the terminal for that of an encrypted key.
_NO_PASSWORD = ""
_CA, _CERT, _KEY = "RTMANAGER_REDIS_TLS_CA", "RTMANAGER_REDIS_TLS_CERT", "RTMANAGER_REDIS_TLS_KEY"

#: The prefix that redis-py puts before the error of a command in a pipeline.
IN_PIPELINE = r"^Command # [0-9]+ \(.*?\) of pipeline caused error: "

#: Commands without a key.
_KEYLESS = (
    ("PING",),
    ("SCRIPT", "LOAD", "return 1"),
    ("CLIENT", "ID"),
    ("CLIENT", "SETNAME", "rtmanager"),
    ("CLIENT", "REPLY", "SKIP"),
)
_SUBCOMMANDS = frozenset({"XGROUP", "XINFO", "SCRIPT", "CLIENT"})
#: Commands that the manager can do without. They end a read in progress at a stop, read the version of a server without
#: HELLO and the last id of a stream, and trim old entries.
_OPTIONAL = ("client|unblock", "info", "xinfo|stream", "xpending", "xtrim")

#: Rejected modes of a server: why, and the remedy.
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
#: Refusals of every write, by the reply's first word: cause and remedy. They may pass, so they count as silence.
_REFUSED_WRITES = {
    "OOM": (
        "its memory is full",
        "raise maxmemory or remove keys of others; maxmemory-policy has to stay noeviction",
    ),
    "READONLY": ("it is a replica now", f"name the primary in {_ADDRESS}, or let the address lead to it"),
    "NOREPLICAS": (
        "fewer replicas follow it than min-replicas-to-write demands",
        "connect them again, or lower min-replicas-to-write",
    ),
    "MISCONF": (
        "it cannot save what it holds",
        "see its log, most often its disk is full; then BGSAVE, or CONFIG SET stop-writes-on-bgsave-error no",
    ),
}
#: redis-py removes the code from replies for which it has a class.
_CLASSES: dict[type[redis.RedisError], str] = {
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.ReadOnlyError: "READONLY",
}

#: KEYS: a stream. Returns its last id, its entries and its nodes; nothing when it is no stream or XINFO is refused.
#: XINFO's reply contains two whole entries of any size; the script keeps them in Redis.
SHAPE = """#!lua flags=no-writes
local reply = redis.pcall('XINFO', 'STREAM', KEYS[1])
if reply.err then return {} end
local told = {}
for i = 1, #reply, 2 do told[reply[i]] = reply[i + 1] end
return {told['last-generated-id'], told['length'], told['radix-tree-keys']}
"""
#: Average entries per node above which a warning is due; by default a node has at most 100.
_MOST_NODE_ENTRIES = 1000

#: An HTTP request, to which Redis answers with an error.
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"
#: A request for TLS, to which PostgreSQL answers S or N; it answers nothing to unknown bytes.
_POSTGRES_TLS_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
#: How other servers answer `_REQUEST`.
_STRANGERS = {b"HTTP/": "an HTTP server", b"ERROR\r\n": "memcached, most likely,"}
#: Bytes of an answer that a message shows.
_FIRST_BYTES = 48
_WRONG_SERVER = f"correct {_ADDRESS}: another program than Redis has this port"

_RENAMED = "give the commands their names back (rename-command), or use Redis 7 or newer itself"
_CLUSTER_ERRORS = (
    redis.exceptions.MovedError,
    redis.exceptions.AskError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.ClusterCrossSlotError,
)


class RedisUnfit(RuntimeManagerError):
    """Redis answers but cannot be used; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class RedisAway(Unavailable):
    """Redis cannot be used now, for a known reason; `remedy` says what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("redis", message)
        self.remedy = remedy


class WritesRefused(RedisAway):
    """Redis answers but takes no writes now."""


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to Redis: PEM files; empty for the system's CAs, or for no certificate."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Create the context. Raises `OSError` (also `ssl.SSLError`) when a file cannot be used."""
        made = ssl.create_default_context(cafile=self.ca or None)
        if self.cert:
            made.load_cert_chain(self.cert, self.key or None, password=_NO_PASSWORD)
        return made

    def unusable(self) -> tuple[str, str] | None:
        """Return the variable whose file cannot be used, and why; None when all can."""
        for variable, path in ((_CA, self.ca), (_CERT, self.cert), (_KEY, self.key)):
            if path and (why := why_unreadable(path)):
                return variable, f"{path} cannot be read: {why}"
        if not self.ca and (why := why_no_authorities()):
            return "SSL_CERT_FILE", why
        if why := why_no_key_log():
            return "SSLKEYLOGFILE", why
        return None

    def settings(self) -> dict[str, Any]:
        """Return the settings for redis-py."""
        files = {"ssl_ca_certs": self.ca, "ssl_certfile": self.cert, "ssl_keyfile": self.key or self.cert}
        named = {name: value for name, value in files.items() if value}
        demands = {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_password": _NO_PASSWORD}
        return {"ssl": True, **demands, **named}


class CheckedTlsConnection(redis.SSLConnection):
    """Checks the TLS files before each connection, so that it never blocks on a pipe or device in their place."""

    def _connect(self) -> Any:
        if found := Tls(self.ca_certs or "", self.certfile or "", self.keyfile or "").unusable():
            raise redis.ConnectionError("{}: {}".format(*found))
        return super()._connect()  # type: ignore[no-untyped-call]


def commands(names: Mapping[Stream, str], deployment: str = "check") -> Iterator[tuple[str | int, ...]]:
    """Yield every command of the manager, for each key that it uses."""
    inputs, outputs = [names[each] for each in INPUT_STREAMS], [names[each] for each in OUTPUTS]
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
    # One step with all keys, as the scripts do: on a cluster the keys are on several nodes.
    yield ("EVALSHA", "0" * 40, len(inputs), *inputs)
    yield ("EVALSHA", "0" * 40, 2 + len(outputs), fence, published, *outputs)


def acl_rules(names: Mapping[Stream, str]) -> str:
    """Return the ACL rules of a user with exactly the manager's rights."""
    used = {_command(each) for each in commands(names)} | set(_OPTIONAL)
    allowed = sorted({"hello", "multi", "exec", "discard", *used})
    keys = [*sorted(names.values()), f"{OUTBOX_PREFIX}*"]
    return " ".join(
        ["resetkeys", *(f"~{key}" for key in keys), "resetchannels", "-@all", *(f"+{name}" for name in allowed)]
    )


@cache
def sha_of(script: str) -> str:
    """Return the SHA-1 digest by which Redis stores a script."""
    return hashlib.sha1(script.encode()).hexdigest()


def examine(connection: Any, names: Mapping[Stream, str], where: str) -> str:
    """Check the server and return its version.

    Raises `RedisUnfit`, `WritesRefused`, and `redis.RedisError` for other silence.
    """
    version, mode, role = _hello(connection)
    if mode in _MODES:
        what, remedy = _MODES[mode]
        raise RedisUnfit(f"{where} {what}", remedy)
    number = re.match(r"(\d+)\.(\d+)", version)
    if number and (int(number[1]), int(number[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise RedisUnfit(f"{where}: Redis {version} is too old: {oldest} or newer is needed", "upgrade it")
    try:
        require_allowed(connection, names, where)
        _require_primary(role)
        _require_written(connection)
    except redis.TimeoutError as error:
        # HELLO was answered, so only commands that write are held up.
        raise WritesRefused(
            f"{where} answers, and to no write: {error}",
            "if its clients are paused, CLIENT UNPAUSE; if a script does not end, SCRIPT KILL",
        ) from error
    return version


def warnings(connection: Any, names: Mapping[Stream, str]) -> list[str]:
    """Return problems that do not prevent use, with remedies; nothing where the user lacks the right to see them."""
    [info] = _send(connection, [("INFO", "memory")])
    policy = _fields(info).get("maxmemory_policy", "")
    found = []
    if policy.startswith("allkeys"):  # the other policies remove only keys that expire; the manager's do not
        what = f"maxmemory-policy is {policy}: when its memory is full, it removes streams with the jobs and results"
        remedy = "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file"
        found.append(f"{what} in them; remedy: {remedy}")
    for key in (names[stream] for stream in INPUT_STREAMS):
        _, shape = _send(connection, [("SCRIPT", "LOAD", SHAPE), ("EVALSHA", sha_of(SHAPE), 1, key)])
        _, entries, nodes = shape if isinstance(shape, list) and len(shape) == 3 else ("", 0, 0)
        if entries > _MOST_NODE_ENTRIES * nodes:
            what = f"{key} has {entries} entries in {nodes} nodes, which makes each read slow"
            remedy = "CONFIG SET stream-node-max-entries 100 and stream-node-max-bytes 4096, and XTRIM what was read"
            found.append(f"{what}; remedy: {remedy}")
    return found


def refused_write(error: redis.RedisError, where: str) -> WritesRefused | None:
    """Return the error for a refusal of every write; None for any other error."""
    words = re.sub(IN_PIPELINE, "", str(error), flags=re.DOTALL)
    code = _CLASSES.get(type(error), words.partition(" ")[0])
    if code not in _REFUSED_WRITES:
        return None
    what, remedy = _REFUSED_WRITES[code]
    return WritesRefused(f"{where} takes no writes, {what}: {bounded(words)}", remedy)


def _require_written(connection: Any) -> None:
    """Write and remove a small value. Raises the `redis.RedisError` that refuses it."""
    key = f"{OUTBOX_PREFIX}check:published"
    for answer in _send(connection, [("SADD", key, 1), ("SREM", key, 1)]):
        # A foreign value in the key's place does no harm; rights and role were checked before.
        if isinstance(answer, redis.RedisError) and not str(answer).startswith("WRONGTYPE"):
            raise answer


def require_allowed(connection: Any, names: Mapping[Stream, str], where: str) -> None:
    """Raise `RedisUnfit` with every command and key that Redis refuses to this user."""
    # Sent alone: without MULTI the later commands would be executed.
    [opened] = _send(connection, [("MULTI",)])
    answers: list[tuple[tuple[str | int, ...], Any]] = [(("MULTI",), opened)]
    if not isinstance(opened, Exception):
        every = [*commands(names), ("DISCARD",)]
        answers += zip(every, _send(connection, every), strict=True)
        if isinstance(answers[-1][1], Exception):
            connection.disconnect()  # else the connection's next user would have its commands queued
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
) -> RedisUnfit | RedisAway | None:
    """Diagnose a connection that could not be made; None when no cause is found."""
    if isinstance(error, redis.AuthenticationError):
        return RedisUnfit(f"{where} refuses the login: {error}", f"are {_USER} and {_PASSWORD} right?")
    if isinstance(error, redis.exceptions.NoPermissionError):
        return RedisUnfit(f"{where} refuses what every connection begins with: {error}", f"ACL SETUSER <user> {rules}")
    if _is_unknown(error):
        return RedisUnfit(f"{where} lacks what every connection begins with: {error}", _RENAMED)
    if isinstance(error, redis.ResponseError) and str(error).startswith("DENIED"):
        return RedisUnfit(f"{where} is in protected mode and takes local clients only", "set a password or bind there")
    if isinstance(error, redis.ConnectionError) and "max number of clients" in str(error):
        return RedisAway(
            f"{where} takes no more connections: {error}", "end clients that nobody needs, or raise maxclients"
        )
    if remedy := _remedy_of_silence(error):
        return RedisAway(f"{where} does not serve: {bounded(str(error))}", remedy)
    if isinstance(error, redis.ResponseError):
        return None
    try:
        found = _encrypted(*address, tls, limit_s) if tls else _plain(*address, limit_s)
    except _Unreachable:
        return None
    except TimeoutError:
        what = f"{where} accepts connections and says nothing: it hangs, or it is no Redis"
        return RedisAway(what, f"correct {_ADDRESS}, or end a Redis that hangs")
    if found:
        return RedisUnfit(f"{where}: {found[0]}", found[1])
    if isinstance(error, redis.TimeoutError):
        remedy = "if its clients are paused, CLIENT UNPAUSE; SLOWLOG GET shows what kept it busy"
        return RedisAway(f"{where} is there, and answers no command in time: {error}", remedy)
    return None


def _remedy_of_silence(error: redis.RedisError) -> str:
    """Return the remedy when the server says why it does not serve, or is not there; else empty."""
    if isinstance(error, redis.BusyLoadingError):
        return "wait: it reads what it has saved, and its log says how far it is"
    if isinstance(error, redis.exceptions.MasterDownError):
        return f"it is a replica that has lost its primary: name the primary in {_ADDRESS}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return f"is the host of {_ADDRESS} right, and does this machine's resolver know it (getent hosts NAME)?"
        if isinstance(cause, ConnectionRefusedError):
            return f"is it running, does it listen there (bind), and is {_ADDRESS} right?"
        cause = cause.__cause__ or cause.__context__
    return ""


def _encrypted(host: str, port: int, tls: Tls, limit_s: float) -> tuple[str, str] | None:
    if found := tls.unusable():
        variable, what = found
        return what, f"correct {variable}"
    try:
        context = tls.context()
    except OSError as error:
        if unfit := own_unfit(error):
            what, remedy = unfit
            return f"the certificate of {_CERT} {what}", remedy
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
            encrypted.sendall(_REQUEST)
            if received := encrypted.recv(_FIRST_BYTES):
                stranger = _stranger(received)
                return (stranger, _WRONG_SERVER) if stranger else None
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted: {error.verify_message}", _certificate_remedy(error)
    except OSError as error:
        received = _first_bytes(host, port, _REQUEST, limit_s)
        if received.startswith((b"+", b"-")):
            return "it speaks no TLS", f"write redis://{host}:{port} in {_ADDRESS}, or let Redis listen with TLS there"
        if stranger := _stranger(received) or _postgres(host, port, limit_s):
            return stranger, _WRONG_SERVER
        if not isinstance(error, ssl.SSLError | ConnectionResetError):
            return None
    return (
        "it ends the connection during TLS",
        f"if it wants a certificate of ours, set {_CERT} and {_KEY} to one it trusts",
    )


def _certificate_remedy(error: ssl.SSLCertVerificationError) -> str:
    """Return the remedy, by OpenSSL's X509_V_ERR_… code."""
    if error.verify_code in (9, 10):
        return "renew the certificate of Redis, or its authority's, or set the clock right"
    if error.verify_code in (62, 64):
        return f"use a host in {_ADDRESS} that the certificate is made for (subjectAltName), or have one made for this"
    if unfit := server_unfit(error):
        what, remedy = unfit
        return f"the certificate of Redis {what}: {remedy}"
    return f"name the authority that signed it in {_CA}" if error.verify_code in UNSIGNED else "renew it"


class _Unreachable(Exception):
    """There is no connection, so no diagnosis is possible."""


def _first_bytes(host: str, port: int, sent: bytes, limit_s: float) -> bytes:
    """Return the first bytes of the answer to `sent`; raises `TimeoutError` without one, or `_Unreachable`."""
    try:
        line = socket.create_connection((host, port), limit_s)
    except OSError as error:
        raise _Unreachable from error
    with line:
        try:
            line.sendall(sent)
            return line.recv(_FIRST_BYTES)
        except ConnectionError:
            return b""


def _stranger(received: bytes) -> str:
    """Describe the server that answers with these bytes; empty for Redis, or for a server that expects TLS."""
    if not received or received.startswith((b"+", b"-", b"\x15\x03")):
        return ""
    known = (name for start, name in _STRANGERS.items() if received.startswith(start))
    return f"{next(known, 'something else than Redis')} answers there: {received!r}"


def _postgres(host: str, port: int, limit_s: float) -> str:
    first = _first_bytes(host, port, _POSTGRES_TLS_REQUEST, limit_s)
    return "PostgreSQL answers there" if first in (b"S", b"N") else ""


def _plain(host: str, port: int, limit_s: float) -> tuple[str, str] | None:
    received = _first_bytes(host, port, _REQUEST, limit_s)
    if received.startswith((b"+", b"-")):
        return None
    if stranger := _stranger(received) or _postgres(host, port, limit_s):
        return stranger, _WRONG_SERVER
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), limit_s) as line,
            unverified.wrap_socket(line, server_hostname=host),
        ):
            return "it speaks TLS only", f"write rediss://{host}:{port} in {_ADDRESS}"
    except OSError:
        return None


def require_primary(hello: object) -> None:
    """Raise `redis.ReadOnlyError` when the answer to HELLO is a replica's; ignores any other answer."""
    _require_primary(_text(_pairs(hello).get("role", "")))


def _require_primary(role: str) -> None:
    # A replica may take writes (replica-read-only no), and loses them at its next full copy from the primary.
    if role in ("replica", "slave"):
        raise redis.ReadOnlyError(f"READONLY its role is {role}")


def _pairs(hello: object) -> Mapping[str, object]:
    """Return the fields of an answer to HELLO; empty when there is no HELLO."""
    if isinstance(hello, dict):
        return {_text(name): value for name, value in hello.items()}
    if isinstance(hello, list):
        return dict(zip(map(_text, hello[::2]), hello[1::2], strict=False))
    return {}


def _hello(connection: Any) -> tuple[str, str, str]:
    """Return version, mode and role. HELLO needs no right; INFO is the fallback where HELLO does not exist."""
    [hello] = _send(connection, [("HELLO",)])
    if fields := _pairs(hello):
        version, mode, role = (_text(fields.get(name, "")) for name in ("version", "mode", "role"))
        return version, mode, role
    if isinstance(hello, redis.AuthenticationError):
        raise hello
    server, replication = map(_fields, _send(connection, [("INFO", "server"), ("INFO", "replication")]))
    return server.get("redis_version", ""), server.get("redis_mode", ""), replication.get("role", "")


def _fields(info: object) -> dict[str, str]:
    """Return the fields of an answer to INFO; empty when it was refused."""
    if not isinstance(info, bytes | str):
        return {}
    return dict(line.partition(":")[::2] for line in _text(info).splitlines())


def _send(connection: Any, requests: Sequence[Sequence[str | int]]) -> list[Any]:
    """Send commands at once and return their answers, with errors as answers."""
    connection.send_packed_command(connection.pack_commands(requests))
    answers: list[Any] = []
    for _ in requests:
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
    """Return whether the user lacks the right, or the server lacks the command (`rename-command`)."""
    if isinstance(answer, redis.exceptions.NoPermissionError):
        return True
    return _is_unknown(answer)


def _is_unknown(answer: object) -> bool:
    return isinstance(answer, redis.ResponseError) and str(answer).startswith(("unknown ", "ERR unknown "))


def _command(parts: Sequence[str | int]) -> str:
    name = str(parts[0])
    return f"{name}|{parts[1]}".lower() if name in _SUBCOMMANDS else name.lower()


def _listed(refused: Sequence[Sequence[str | int]]) -> str:
    """List the commands, each with the keys on which it is refused."""
    found: dict[str, list[str]] = {}
    for parts in refused:
        keys = [str(each) for each in parts if ":" in str(each)]
        found.setdefault(_command(parts).replace("|", " ").upper(), []).extend(keys)
    return "; ".join(" ".join([name, *dict.fromkeys(keys)]) for name, keys in found.items())


def _text(raw: object) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
