"""Maps errors of PostgreSQL to meanings by SQLSTATE; `docs/generated/answers.md` is generated from this table.

Silence concerns the whole server or the moment. It decides nothing, and waiting, or a person, resolves it. Every other
error is PostgreSQL's answer to this statement with this data; a repetition would fail in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

#: Prefixes of the SQLSTATEs that count as silence, and why.
SILENCE: Mapping[str, str] = {
    "08": "the connection cannot be made, or is lost",
    "25006": "read-only: a standby, or a server that somebody set so",
    "25P03": "the transaction was idle for too long",
    "25P04": "the transaction took too long",
    "28": "the role may not log in now: its password changed, or pg_hba.conf did",
    "3D000": "the database is not there: a restore is under way",
    "3F000": "the schema is not there: a restore is under way",
    "42P01": "a table is not there: a restore is under way",
    "40001": "another transaction was in the way; the same again goes through",
    "40P01": "two transactions waited for each other; the same again goes through",
    "53": "out of connections, memory or disk",
    "55006": "something is in use",
    "55P03": "somebody holds a lock",
    "57": "the server starts, stops or recovers, or the statement took too long",
    "58": "the server's disk or system fails",
    "F0": "the server's configuration cannot be read",
}


def verb(error: Exception) -> str:
    """Return the verb for a message about silence: a server that states why it cannot serve "refuses"."""
    if isinstance(error, psycopg.Error) and error.sqlstate and not error.sqlstate.startswith("08"):
        return "refuses"
    return "takes no connection" if "connection failed:" in str(error) else "does not answer"


def is_silence(error: Exception) -> bool:
    """Return whether an error says nothing about the statement and its data."""
    if isinstance(error, (PoolTimeout, PoolClosed)):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if not state:
        # By psycopg or libpq: a lost connection is an OperationalError, or exactly a DatabaseError.
        # Any other error is about the statement or its values.
        return isinstance(error, psycopg.OperationalError) or type(error) is psycopg.DatabaseError
    return any(state.startswith(beginning) for beginning in SILENCE)
