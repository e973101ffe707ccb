"""Converts the DSN of the contract to a connection string for libpq.

Other services of the platform write run-time parameters into the URL (`?search_path=rtmanager`), as their driver
allows. libpq rejects them there and requires `options=-csearch_path=…`. The default schema is `rtmanager`, the schema
of the contract.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rtmanager.config.parsers import LONGEST_SOCKET_PATH, InvalidSetting, can_be_looked_up, is_pipe_or_device

SCHEMA = "rtmanager"

#: Idle limit of a transaction; the manager's own take milliseconds. An instance that freezes inside one loses it, with
#: every lock and lease.
IDLE_TRANSACTION_MS = 10_000
#: A statement gets one generic plan per connection. The default, five plans with its values first, takes longer than
#: its execution. Every statement has an index. A sequential scan is cheaper while a table is small. But its plan stays
#: until the table is analysed, when it may have ten thousand rows. No statement is worth JIT compilation.
PLANNING = "-cplan_cache_mode=force_generic_plan -cenable_seqscan=off -cjit=off"

#: Settings that the code relies on. A name that this server does not have (it is newer or older) is skipped.
SESSION_SETTINGS: Mapping[str, str] = {
    # The format of values.
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    # Transactions: isolation and access.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # A policy that would hide rows is an error, not a shorter result.
    "row_security": "off",
    # Limits of statements and sessions. The configuration has the statement timeout.
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "exit_on_error": "off",
    "client_min_messages": "warning",
    # How statements are planned, see `PLANNING`.
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_bitmapscan": "on",
    "enable_nestloop": "on",
    "enable_sort": "on",
}

#: A connection whose peer is gone without notice is given up after 11 to 15 seconds, not after hours.
_NETWORK = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

#: Parameters that libpq and psycopg parse as whole numbers, with the largest value that they or Linux accept.
_NUMBERS = {
    "connect_timeout": (1 << 31) - 1,
    "keepalives": (1 << 31) - 1,
    "keepalives_idle": 32_767,
    "keepalives_interval": 32_767,
    "keepalives_count": 127,
    "tcp_user_timeout": (1 << 31) - 1,
}
#: Files that libpq opens without a check of their type, with the variables that name them too. It checks the other
#: files itself.
_FILES = {
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslcrl": "PGSSLCRL",
    "servicefile": "PGSERVICEFILE",
}
#: A directory of sockets that cannot exist.
_NOWHERE = "/dev/null"
_LONGEST_DIRECTORY = LONGEST_SOCKET_PATH - len("/.s.PGSQL.65535")

_EXAMPLE = "postgres://rtmanagerservice:…@host:5432/galaxy?search_path=rtmanager"
_PAIR = re.compile(r"(?:^|\s)search_path\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?P<bare>[^\s']+))")


def postgres_dsn(text: str) -> str:
    """Return `text` if libpq can parse it after conversion. Raises `InvalidSetting`, which never contains the text."""
    if text[:1] in ("'", '"'):
        raise InvalidSetting(f"a DSN such as {_EXAMPLE} (remove the quotes around it)")
    if not re.match(r"postgres(ql)?://", text) and not re.match(r"\s*\w+\s*=", text):
        raise InvalidSetting(f"a DSN such as {_EXAMPLE}")
    try:
        given = conninfo_to_dict(to_conninfo(text, statement_timeout_ms=0))
    except (ProgrammingError, ValueError) as error:
        # libpq quotes what it cannot parse, which may be a part of the password: only a plain word is passed on.
        unknown = re.search(r'invalid (?:URI query parameter|connection option): "(\w+)"|"(\w+)"$', str(error))
        fault = f"libpq does not know {unknown[1] or unknown[2]}" if unknown else "libpq cannot read it"
        raise InvalidSetting(f"a DSN such as {_EXAMPLE} ({fault})") from error
    if not re.fullmatch(r"[0-9]*(,[0-9]*)*", str(given.get("port") or "")):
        raise InvalidSetting(
            f"a DSN such as {_EXAMPLE} (the port is no number; is / or ? in the password written as %2F, %3F?)"
        )
    if fault := _wrong_value(given):
        raise InvalidSetting(f"a DSN by which a connection can be made ({fault})")
    return text


def _wrong_value(given: Mapping[str, Any]) -> str:
    """Return why no server can be reached with these parameters; empty when no reason is known."""
    hosts, addresses, ports = (str(given.get(name) or "").split(",") for name in ("host", "hostaddr", "port"))
    if given.get("replication"):
        return "replication is not supported: such a connection takes no transactions of the service"
    for name, longest in _NUMBERS.items():
        text = str(given.get(name) or "0")
        if not re.fullmatch(r"[+-]?[0-9]{1,10}", text) or abs(int(text)) > longest:
            return f"{name} is no whole number up to {longest}"
    if any(port and not (len(port) < 6 and 0 < int(port) < 1 << 16) for port in ports):
        return "a port is not from 1 to 65535"
    if not all(map(_is_address, addresses)):
        return "a hostaddr is no IP address"
    if given.get("host") and given.get("hostaddr") and len(hosts) != len(addresses):
        return f"libpq: could not match {len(hosts)} host names to {len(addresses)} hostaddr values"
    if not all(map(_is_host, hosts)):
        return f"a host is no name of a host, and no directory of at most {_LONGEST_DIRECTORY} bytes"
    for name, variable in _FILES.items():
        path = given.get(name) or os.environ.get(variable)
        if path and _is_no_file(path):
            return f"{name if given.get(name) else variable} is no regular file: opening it might never end"
    return _libpq_message(given, len(hosts if given.get("host") else addresses))


def _libpq_message(given: Mapping[str, Any], hosts: int) -> str:
    """Return libpq's objection to these parameters before it connects; empty when there is none."""
    # Replaces the hosts, so that no name is resolved and no connection begins.
    parameters = {**given, "host": ",".join([_NOWHERE] * hosts), "hostaddr": ""}
    elsewhere = given.get("service") or any(map(os.environ.get, ("PGHOST", "PGHOSTADDR", "PGSERVICE")))
    if elsewhere and not given.get("host") and not given.get("hostaddr"):
        parameters["port"] = ""  # it belongs to hosts whose number is not known here
    attempt = pq.PGconn.connect_start(make_conninfo("", **parameters).encode())
    try:
        message = attempt.get_error_message()
    finally:
        attempt.finish()
    lines = [line for line in message.splitlines() if _NOWHERE not in line and not line.startswith("\t")]
    # A quoted value may be a part of the password: only a plain word is passed on.
    if not lines:
        return ""
    changes = ", ".join(sorted(taken_from_environment(make_conninfo("", **given))))
    hint = f"; {changes} of the environment counts too" if changes else ""
    return re.sub(r'"([^"]*)"', _plain, f"libpq: {lines[0]}") + hint


def _plain(quoted: re.Match[str]) -> str:
    return quoted[0] if re.fullmatch(r"[\w.,-]*", quoted[1]) else '"…"'


def _is_no_file(path: str) -> bool:
    try:
        return is_pipe_or_device(path)
    except (OSError, ValueError):
        return False  # it may be created later


def _is_address(text: str) -> bool:
    """Return whether libpq parses this as a numeric address, or as none."""
    try:
        return not text or bool(socket.getaddrinfo(text, None, flags=socket.AI_NUMERICHOST))
    except (OSError, UnicodeError):
        return False


def _is_host(text: str) -> bool:
    if text.startswith(("/", "@")):
        return len(text.encode()) <= _LONGEST_DIRECTORY
    return can_be_looked_up(text)


def to_conninfo(dsn: str, *, statement_timeout_ms: int, connect_timeout_s: int = 5) -> str:
    """Return the connection string for psycopg. Raises `psycopg.ProgrammingError` for an invalid DSN."""
    dsn, search_path = _without_search_path(dsn)
    given = conninfo_to_dict(dsn)
    options = str(given.get("options") or "")
    if search_path is None and "search_path" not in options:
        search_path = SCHEMA
    if search_path is not None:
        options += f" -csearch_path={_escape(search_path)}"
    options += f" -cstatement_timeout={statement_timeout_ms}"
    options += f" -cidle_in_transaction_session_timeout={IDLE_TRANSACTION_MS}"
    options += f" {PLANNING}"
    for name, value in {"connect_timeout": connect_timeout_s, **_NETWORK}.items():
        given.setdefault(name, value)
    given.setdefault("application_name", "rtmanager")
    # In force before the first statement; until then the session has the setting of its role or database.
    given["client_encoding"] = SESSION_SETTINGS["client_encoding"]
    return make_conninfo("", **{**given, "options": options.strip()})


def session_settings(conninfo: str) -> Mapping[str, str]:
    """Return the settings of each session: its `options`, which a pooler may drop, and `SESSION_SETTINGS`."""
    return {**_settings_of(str(conninfo_to_dict(conninfo).get("options") or "")), **SESSION_SETTINGS}


def with_option(conninfo: str, setting: str) -> str:
    """Return the string with one more setting, once, in force from the session's begin."""
    given = conninfo_to_dict(conninfo)
    options = str(given.get("options") or "")
    return (
        conninfo if setting in options else make_conninfo("", **{**given, "options": f"{options} -c{setting}".strip()})
    )


def without_options(conninfo: str) -> str:
    """Return the string without `options`, for a pooler that rejects them; the new session sets them itself."""
    # Empty, not omitted: libpq would then use PGOPTIONS.
    return make_conninfo("", **{**conninfo_to_dict(conninfo), "options": ""})


def taken_from_environment(conninfo: str) -> dict[str, str]:
    """Return the environment variables with which libpq completes this string; passwords are masked."""
    given = conninfo_to_dict(conninfo)
    found = {}
    for option in pq.Conninfo.get_defaults():
        name = (option.envvar or b"").decode()
        if name in os.environ and option.keyword.decode() not in given:
            found[name] = "…" if option.dispchar == b"*" else os.environ[name]
    return found


def _settings_of(options: str) -> dict[str, str]:
    """Parse the server's options: `-c name=value`, `-cname=value`, `--name=value`; the last one wins."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", options)]
    found = {}
    for before, word in zip(["", *words], words, strict=False):
        pair = word if before == "-c" else word[2:] if word.startswith(("-c", "--")) else ""
        name, equals, value = pair.partition("=")
        if equals:
            found[name.replace("-", "_")] = value
    return found


def described(dsn: str) -> str:
    """Describe the DSN without its password, for messages."""
    given = conninfo_to_dict(to_conninfo(dsn, statement_timeout_ms=0))
    return f"postgres at {given.get('host', 'the local socket')}:{given.get('port', 5432)}/{given.get('dbname', '')}"


def _without_search_path(dsn: str) -> tuple[str, str | None]:
    """Split off the search path of a DSN in either form; return the rest, and the search path if there is one."""
    if "://" in dsn:
        # From the right: libpq accepts a ? in the password.
        address, _, query = dsn.rpartition("?") if "?" in dsn else (dsn, "", "")
        pairs = query.split("&")
        named = [pair.partition("=")[2] for pair in pairs if pair.startswith("search_path=")]
        rest = "&".join(pair for pair in pairs if not pair.startswith("search_path="))
        return address + (f"?{rest}" if rest else ""), unquote(named[-1]) if named else None
    found = _PAIR.search(dsn)
    if found is None:
        return dsn, None
    return _PAIR.sub(" ", dsn), found["bare"] or re.sub(r"\\(.)", r"\1", found["quoted"])


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
