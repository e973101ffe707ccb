"""The SQL of this package by name.

Each statement in `sql/*.sql` follows a line `-- name: …`, as in PugSQL and procrastinate.
Statements are bytes, because psycopg's types keep strings that are made at run time out of `execute`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rtmanager.ports.store import StoreRejected

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from psycopg import Connection

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_PART = re.compile(r"\{(\w+)\}")


def parse(text: str) -> dict[str, bytes]:
    """Parse statements by name from one file; `{name}` inserts the whole of an earlier statement."""
    parts = _NAME.split(text)[1:]
    found: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        found[name] = _PART.sub(lambda part: found[part[1]].rstrip(";"), body.strip())
    return {name: body.encode() for name, body in found.items()}


def values_of(value: DataclassInstance) -> dict[str, Any]:
    """Return the fields by name, for a statement. `asdict` copies values, which takes twenty times as long."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def dropped(what: str) -> StoreRejected:
    """Return the error for a write that reports success but lacks rows; `what` says which."""
    return StoreRejected(
        f"PostgreSQL dropped rows without an error ({what}); a trigger or a rule on that table does it, see `check`"
    )


def write_kept(
    connection: Connection[Any], table: str, statement: str, values: Mapping[str, Any], meant: int = 1
) -> None:
    """Run a statement by name; raises `StoreRejected` unless it writes `meant` rows of `table`."""
    require_kept(table, connection.execute(SQL[statement], values).rowcount, meant)


def require_kept(table: str, kept: int, meant: int) -> None:
    """Raise `StoreRejected` unless a statement has written `meant` rows."""
    if kept != meant:
        raise dropped(f"{table}: {kept} of {meant}")


def _load() -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for file in (files(__package__) / "sql").iterdir():
        if file.name.endswith(".sql"):
            found |= parse(file.read_text(encoding="utf-8"))
    return MappingProxyType(found)


#: Every statement of this package, by name.
SQL = _load()
