"""Finds out why PostgreSQL refuses a connection, by SQLSTATE, and the remedy.

libpq passes on the server's text, in the server's language, without the code. Its trace contains the code (from libpq
18 on), so a failed connection is tried once more with a trace.
"""

from __future__ import annotations

import os
import re
import select
from dataclasses import dataclass
from time import monotonic

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict, make_conninfo

#: The first libpq version that traces the messages before a connection is established.
_TRACES_FROM = 180_000

#: The server, or a pooler before it, rejects a parameter of the connection.
PROTOCOL_VIOLATION = "08P01"

DSN = "RTMANAGER_POSTGRES_PRIMARY_DSN"
IS_IT_RUNNING = f"is it running, and are host and port of {DSN} right?"

REMEDIES = {
    "28P01": f"is the password of {DSN} right?",
    "28000": f"does the role of {DSN} exist, may it log in, and has the server's pg_hba.conf a line for this client, "
    "role, database and TLS (sslmode)?",
    "3D000": f"create the database, or name another one in {DSN}",
    "42501": "grant it: GRANT CONNECT ON DATABASE … TO …",
    "53300": "end sessions that nobody needs (pg_stat_activity), raise max_connections or the CONNECTION LIMIT of the "
    "role or database, or lower RTMANAGER_POSTGRES_POOL_SIZE",
    "57P03": "it starts, stops or recovers: wait until it takes connections, its log says why it does not",
    "57P01": "it is being stopped or somebody ended the session: start it, its log says why",
    "57P02": "it ended all sessions after a crash: wait, its log says why",
    "55000": "let the database take connections: ALTER DATABASE … ALLOW_CONNECTIONS true",
    PROTOCOL_VIOLATION: "a pooler before PostgreSQL refuses it; its words say why (PgBouncer: see its log)",
    "42704": f"are the `options` of {DSN} known to this server?",
    "22023": f"are the values in the `options` of {DSN} right?",
    "53200": "the server is out of memory",
    "53100": "the server's disk is full",
    "58P01": "a library that sessions load is missing: install it, or take it out of session_preload_libraries and "
    "local_preload_libraries (of the server, of the database: ALTER DATABASE … RESET, of the role: ALTER ROLE … RESET)",
    "42P01": "a table is missing: finish the restore",
    "3F000": "the schema is missing: finish the restore",
}
_WHO_LOCKS = (
    "who holds a lock: SELECT pid, usename, query FROM pg_stat_activity WHERE pid IN "
    "(SELECT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock') "
    # Prepared transactions have no session and no process id.
    "UNION ALL SELECT NULL, owner, 'ROLLBACK PREPARED ' || quote_literal(gid) FROM pg_prepared_xacts "
    "WHERE database = current_database()"
)
#: The same for a statement that timed out while the manager works.
REMEDIES_AT_WORK = {"57014": _WHO_LOCKS, "55P03": _WHO_LOCKS}
#: For an error without a remedy of its own.
ITS_WORDS = "its words say why; the server's log has more"
_NO_SUCH_HOST = f"is the host of {DSN} right, and does this machine's resolver know it (getent hosts NAME)?"
_NO_TLS = f"the server does not offer TLS: set ssl = on there, or another sslmode in {DSN}"
_BAD_TLS = f"TLS was offered and failed: are sslrootcert, sslcert, sslkey and sslmode of {DSN} right, and is the \
server's certificate valid for that host?"
#: libpq's own complaints about an answer of the server, by pattern.
_DEMANDS = {
    "authentication method requirement|channel binding": f"the server does not authenticate as require_auth and \
channel_binding of {DSN} demand: change these, or the method in its pg_hba.conf (channel binding needs TLS and scram)",
    "no password supplied": f"the server asks for a password: add it to {DSN}",
    "GSSAPI encryption required": f"no connection by GSSAPI can be made: set another gssencmode in {DSN}",
    "invalid response to SSL negotiation|expected authentication request": f"correct host and port of {DSN}: another \
program than PostgreSQL has this port",
    "session is (?:not )?read-only|server is (?:not )?in hot standby": f"is target_session_attrs of {DSN} right? The \
service writes: it needs a primary",
}

#: SQLSTATE classes of a server that starts, stops, recovers, or lacks connections, memory or disk.
_PASSING = frozenset({"53", "57", "58"})

_ERROR = re.compile(r'^B\s+\d+\s+ErrorResponse\s.*? C "([0-9A-Z]{5})"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The outcome of a connection attempt: the server's SQLSTATE, empty without one, and the remedy."""

    sqlstate: str
    remedy: str

    @property
    def may_pass(self) -> bool:
        """Whether waiting may resolve it: no server answers, or it starts, recovers or lacks room."""
        return self.sqlstate[:2] in _PASSING if self.sqlstate else self.remedy.startswith(IS_IT_RUNNING[:-1])


def why_refused(conninfo: str, limit_s: float) -> Refusal:
    """Try to connect once more, for about `limit_s` seconds at most, and return the outcome."""
    trace = words = ""
    until = monotonic() + limit_s
    try:
        attempts = conninfo_attempts(conninfo_to_dict(conninfo))
    except psycopg.OperationalError:
        return Refusal("", _NO_SUCH_HOST)
    for attempt in attempts:
        traced, words = _traced(make_conninfo("", **attempt).encode(), until)
        trace = traced or trace
    codes = _ERROR.findall(trace)
    if codes:
        return Refusal(codes[-1], remedy_for(codes[-1]))
    if "StartupMessage" not in trace and re.search(r"SSLResponse\s+N", trace):
        return Refusal("", _NO_TLS)
    if "StartupMessage" not in trace and re.search(r"SSLResponse\s+S", trace):
        return Refusal("", _BAD_TLS)
    for pattern, remedy in _DEMANDS.items():
        if re.search(pattern, words):
            return Refusal("", remedy)
    return Refusal("", IS_IT_RUNNING if traces() else f"{IS_IT_RUNNING[:-1]}, and role, password and database?")


def remedy_for(sqlstate: str) -> str:
    """Return the remedy for a SQLSTATE."""
    return REMEDIES.get(sqlstate, ITS_WORDS)


def traces() -> bool:
    """Return whether this libpq traces the error code of a failed connection."""
    return pq.version() >= _TRACES_FROM


def _traced(conninfo: bytes, until: float) -> tuple[str, str]:
    """Connect with a trace; returns the trace, one line per message, and libpq's error message.

    The trace may contain a password: it stays in memory, and callers use only its codes.
    """
    file = os.memfd_create("rtmanager-libpq-trace")
    connection = pq.PGconn.connect_start(conninfo)
    try:
        connection.trace(file)
        connection.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
        while connection.status != pq.ConnStatus.BAD and (left := until - monotonic()) > 0:
            wants = connection.connect_poll()
            if wants not in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
                break
            line = select.poll()  # `select` accepts no descriptor above 1,023
            line.register(connection.socket, select.POLLIN if wants == pq.PollingStatus.READING else select.POLLOUT)
            line.poll(left * 1000)
        connection.untrace()  # flushes the trace
        return os.pread(file, 1 << 20, 0).decode(errors="replace"), connection.get_error_message()
    finally:
        connection.finish()
        os.close(file)
