"""What an error of PostgreSQL means, by its SQLSTATE; `docs/generated/answers.md` is made from this table.

Silence says something about the whole server, or about the moment: nothing is decided, and waiting, or a person, mends
it. Everything else is PostgreSQL's answer to this statement with this data, and it would be the same again.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

#: How the SQLSTATE of a silence begins, and why it is one. The longest that fits counts.
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
    """What PostgreSQL does by this error of `is_silence`: a server that says why it cannot serve does answer."""
    if isinstance(error, psycopg.Error) and error.sqlstate and not error.sqlstate.startswith("08"):
        return "refuses"
    return "takes no connection" if "connection failed:" in str(error) else "does not answer"


def is_silence(error: Exception) -> bool:
    """Whether an error says nothing about the statement and its data."""
    if isinstance(error, (PoolTimeout, PoolClosed)):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if not state:
        # By psycopg or libpq: a lost connection is an OperationalError, or a DatabaseError and nothing more special.
        # All else is about how it was asked.
        return isinstance(error, psycopg.OperationalError) or type(error) is psycopg.DatabaseError
    return any(state.startswith(beginning) for beginning in SILENCE)
