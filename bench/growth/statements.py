"""Checks that each SQL statement of the service finds its rows by an index, whatever its parameters are.

PostgreSQL plans the statements without values and with sequential scans disabled. A sequential scan that is left in a
plan has no index to use.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rtmanager.adapters.postgres.queries import SQL

if TYPE_CHECKING:
    import psycopg

#: Tables with a row, or with one for each kind of intent.
SMALL = frozenset({"deployment", "daemon", "intent_windows"})
#: Statements that are about all rows of their table, once at start-up.
WHOLE = frozenset({"drop_restarts"})

_PARAMETER = re.compile(r"%\((\w+)\)s")
_NUMBERED = re.compile(r"\$(\d+)")
#: Statements that have a plan; `SET CONSTRAINTS` has none.
_PLANNED = re.compile(r"^(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.M)
_READ_WHOLE = re.compile(r"Seq Scan on (\w+)")


def without_index(connection: "psycopg.Connection[Any]") -> Iterator[str]:
    """Yield the names of the statements that scan a table sequentially."""
    connection.execute("SET enable_seqscan = off")
    connection.execute("SET plan_cache_mode = force_generic_plan")
    for name, statement in SQL.items():
        text = statement.decode()
        if name in WHOLE or not _PLANNED.search(text):
            continue
        if set(_READ_WHOLE.findall(plan_of(connection, text))) - SMALL:
            yield name


def plan_of(connection: "psycopg.Connection[Any]", statement: str) -> str:
    """PostgreSQL's generic plan of a statement."""
    text, parameters = numbered(statement)
    connection.execute(f"PREPARE measured AS {text}".encode())
    values = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    rows = connection.execute(f"EXPLAIN EXECUTE measured{values}".encode()).fetchall()
    connection.execute("DEALLOCATE measured")
    return "\n".join(row[0] for row in rows)


def numbered(statement: str) -> tuple[str, int]:
    """The statement with PostgreSQL's numbered parameters, and their number."""
    if numbers := _NUMBERED.findall(statement):  # written for PostgreSQL itself, without psycopg's parameters
        return statement, max(map(int, numbers))
    names = list(dict.fromkeys(_PARAMETER.findall(statement)))
    text = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
    return text.replace("%%", "%"), len(names)
