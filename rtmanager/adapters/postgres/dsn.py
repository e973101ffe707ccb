"""From the DSN of the contract to what libpq takes.

Neighbours of the platform write run-time parameters into the URL (`?search_path=rtmanager`), as their driver
allows; libpq refuses them there and wants `options=-csearch_path=…`. A DSN that names no schema means
`rtmanager`, the schema of the contract.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import unquote

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rtmanager.adapters.postgres.session import SETTINGS
from rtmanager.values import Bad

SCHEMA = "rtmanager"

#: Our transactions take milliseconds. An instance that freezes inside one loses it, and every lock and turn with it.
IDLE_TRANSACTION_MS = 10_000
#: A statement is planned once for each connection, and not five times with its values, which takes longer than to carry
#: it out. Every statement has an index. To read a table whole is cheaper while it is small, but a plan that was made
#: then is kept until the table is analysed, when it may have ten thousand rows. Nor is any worth being compiled.
PLANNING = "-cplan_cache_mode=force_generic_plan -cenable_seqscan=off -cjit=off"

#: A connection whose other end is gone without a word is given up after 11 to 15 seconds, not after hours.
_NETWORK = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

_EXAMPLE = "postgres://rtmanagerservice:…@host:5432/galaxy?search_path=rtmanager"
_PAIR = re.compile(r"(?:^|\s)search_path\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?P<bare>[^\s']+))")


def postgres_dsn(text: str) -> str:
    """`text` itself, when libpq can read it once it is translated; `Bad` otherwise, never with the text."""
    if not re.match(r"postgres(ql)?://", text) and not re.match(r"\s*\w+\s*=", text):
        raise Bad(f"a DSN such as {_EXAMPLE}")
    try:
        given = conninfo_to_dict(to_conninfo(text, statement_timeout_ms=0))
    except (ProgrammingError, ValueError) as error:
        # libpq quotes what it cannot read, and that may be a part of the password: only a plain word is passed on.
        unknown = re.search(r'invalid (?:URI query parameter|connection option): "(\w+)"|"(\w+)"$', str(error))
        told = f"libpq does not know {unknown[1] or unknown[2]}" if unknown else "libpq cannot read it"
        raise Bad(f"a DSN such as {_EXAMPLE} ({told})") from error
    if not re.fullmatch(r"[0-9]*(,[0-9]*)*", str(given.get("port") or "")):
        raise Bad(f"a DSN such as {_EXAMPLE} (the port is no number; is / or ? in the password written as %2F, %3F?)")
    return text


def to_conninfo(dsn: str, *, statement_timeout_ms: int, connect_timeout_s: int = 5) -> str:
    """The connection string for psycopg; raises `psycopg.ProgrammingError` when the DSN cannot be read."""
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
    # Before the first statement: until then the session has what the role or the database is set to.
    given["client_encoding"] = SETTINGS["client_encoding"]
    return make_conninfo("", **{**given, "options": options.strip()})


def session_settings(conninfo: str) -> Mapping[str, str]:
    """What each session is to be set to: what its `options` say, which a pooler may drop, and `SETTINGS`."""
    return {**_settings_of(str(conninfo_to_dict(conninfo).get("options") or "")), **SETTINGS}


def with_option(conninfo: str, setting: str) -> str:
    """The same with one more setting, once, which is in force as soon as the session begins."""
    given = conninfo_to_dict(conninfo)
    options = str(given.get("options") or "")
    return (
        conninfo if setting in options else make_conninfo("", **{**given, "options": f"{options} -c{setting}".strip()})
    )


def without_options(conninfo: str) -> str:
    """The same for a pooler that refuses `options`; the session is set to them when it is made."""
    # Empty and not left out, for which libpq would take PGOPTIONS.
    return make_conninfo("", **{**conninfo_to_dict(conninfo), "options": ""})


def taken_from_environment(conninfo: str) -> dict[str, str]:
    """The variables by which libpq completes this connection string, with their values but for a password."""
    given = conninfo_to_dict(conninfo)
    found = {}
    for option in pq.Conninfo.get_defaults():
        name = (option.envvar or b"").decode()
        if name in os.environ and option.keyword.decode() not in given:
            found[name] = "…" if option.dispchar == b"*" else os.environ[name]
    return found


def _settings_of(options: str) -> dict[str, str]:
    """The settings among the server's options: `-c name=value`, `-cname=value`, `--name=value`; the last one wins."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", options)]
    found = {}
    for before, word in zip(["", *words], words, strict=False):
        pair = word if before == "-c" else word[2:] if word.startswith(("-c", "--")) else ""
        name, equals, value = pair.partition("=")
        if equals:
            found[name.replace("-", "_")] = value
    return found


def described(dsn: str) -> str:
    """The DSN without its password, for messages."""
    given = conninfo_to_dict(to_conninfo(dsn, statement_timeout_ms=0))
    return f"postgres at {given.get('host', 'the local socket')}:{given.get('port', 5432)}/{given.get('dbname', '')}"


def _without_search_path(dsn: str) -> tuple[str, str | None]:
    """The DSN as libpq takes it, and the search path that it named, in either form of a DSN."""
    if "://" in dsn:
        # From the right: libpq takes a ? in the password for what it is.
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
