"""From the DSN of the contract to what libpq takes.

Neighbours of the platform write run-time parameters into the URL (`?search_path=rtmanager`), as their driver
allows; libpq refuses them there and wants `options=-csearch_path=…`. A DSN that names no schema means
`rtmanager`, the schema of the contract.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rtmanager.values import Bad

SCHEMA = "rtmanager"
CONNECT_TIMEOUT_S = 5


def postgres_dsn(text: str) -> str:
    """`text` itself, when libpq can read it once it is translated; `Bad` otherwise, never with the text."""
    example = "postgres://rtmanagerservice:…@host:5432/galaxy?search_path=rtmanager"
    if not re.match(r"postgres(ql)?://", text) and not re.match(r"\s*\w+\s*=", text):
        raise Bad(f"a DSN such as {example}")
    try:
        to_conninfo(text, statement_timeout_ms=0)
    except (ProgrammingError, ValueError) as error:
        # libpq quotes what it cannot read, and that may be the password; only this complaint never is.
        told = str(error).strip() if "invalid URI query parameter" in str(error) else "libpq cannot read it"
        raise Bad(f"a DSN such as {example} ({told})") from error
    return text


def to_conninfo(dsn: str, *, statement_timeout_ms: int) -> str:
    """The connection string for psycopg; raises `psycopg.ProgrammingError` when the DSN cannot be read."""
    search_path = None
    if "://" in dsn:
        parts = urlsplit(dsn)
        query = parse_qsl(parts.query, keep_blank_values=True)
        search_path = dict(query).get("search_path")
        rest = urlencode([pair for pair in query if pair[0] != "search_path"], quote_via=quote)
        dsn = urlunsplit(parts._replace(query=rest))
    given = conninfo_to_dict(dsn)
    options = str(given.get("options") or "")
    if search_path is None and "search_path" not in options:
        search_path = SCHEMA
    if search_path is not None:
        options += f" -csearch_path={_escape(search_path)}"
    options += f" -cstatement_timeout={statement_timeout_ms}"
    given.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    given.setdefault("application_name", "rtmanager")
    return make_conninfo("", **{**given, "options": options.strip()})


def described(dsn: str) -> str:
    """The DSN without its password, for messages."""
    given = conninfo_to_dict(to_conninfo(dsn, statement_timeout_ms=0))
    return f"postgres at {given.get('host', 'the local socket')}:{given.get('port', 5432)}/{given.get('dbname', '')}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
