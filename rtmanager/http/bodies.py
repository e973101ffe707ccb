"""Parses JSON bodies and query strings strictly (contract, "REST").

An unknown field or parameter is refused by name: one that is misspelt and silently ignored is found much later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from rtmanager.domain.game import shown
from rtmanager.http.messages import HttpError, invalid

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
#: Several times the length of all parameters; a longer query would take a millisecond to read.
_LONGEST_QUERY = 1024
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*(?:({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*"))?')


def check_json(headers: Mapping[str, str]) -> None:
    """Raise `HttpError` with 415 unless the headers declare JSON in UTF-8 without a content coding.

    A browser sends JSON for a page of another origin only after a preflight request; other types it sends at once.
    """
    given = headers.get("content-type")
    if given is None:
        raise invalid("the header Content-Type is missing: expected application/json", status=415)
    if not _says_json(given):
        raise invalid(f"Content-Type {shown(given)}: expected application/json, in UTF-8", status=415)
    coding = headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise invalid(f"Content-Encoding {shown(coding)}: expected a body that is not encoded", status=415)


def _says_json(content_type: str) -> bool:
    media_type, separator, rest = content_type.partition(";")
    if media_type.strip(" \t").lower() != "application/json":
        return False
    rest, at = separator + rest, 0
    while at < len(rest):
        match = _PARAMETER.match(rest, at)
        if match is None:
            return rest[at:].strip(" \t") == ""
        if (match[1] or "").lower() == "charset" and match[2].strip('"').lower() not in ("utf-8", "utf8"):
            return False
        at = match.end()
    return True


def read_fields(body: bytes, names: Collection[str]) -> dict[str, str]:
    """The body's fields: exactly `names`, each a printable string that is not empty. Raises `HttpError`.

    Where no field is expected, the body may be absent or an empty object.
    """
    if not names and not body:
        return {}
    content = _read_json(body, names)
    if not isinstance(content, dict):
        raise invalid(f"the body is {_kind(content)}: expected {_expected(names)}")
    unknown = sorted(content.keys() - set(names))
    if unknown:
        raise invalid(f"unknown field {shown(unknown[0])}: expected {_expected(names)}")
    for name in names:
        if name not in content:
            raise invalid(f"the field {name} is missing: expected {_expected(names)}")
        value = content[name]
        if not isinstance(value, str):
            raise invalid(f"the field {name} is {_kind(value)}: expected a string")
        if not value or not value.isprintable():
            raise invalid(f"the field {name} is {shown(value)}: expected printable text, not empty")
    return content


def read_query(query: str, names: Collection[str]) -> dict[str, str]:
    """The query's parameters, any of `names`, each at most once. Raises `HttpError`."""
    if not query:
        return {}
    if len(query) > _LONGEST_QUERY:
        raise invalid(f"query {shown(query)}: expected at most {_LONGEST_QUERY} characters")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise invalid(f"query {shown(query)}: expected name=value pairs in UTF-8, joined by &") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in names:
            known = ", ".join(names) or "none here"
            raise invalid(f"unknown query parameter {shown(name)}: expected {known}")
        if name in found:
            raise invalid(f"the query parameter {name} is given twice")
        found[name] = value
    return found


def _read_json(body: bytes, names: Collection[str]) -> Any:
    try:
        return json.loads(
            body.decode(),
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=float,  # no field is a number, and Python refuses an integer of thousands of digits
        )
    except HttpError:
        raise
    except UnicodeDecodeError as error:
        raise invalid(f"the body is no UTF-8 (byte {error.start}): expected {_expected(names)}") from None
    except RecursionError:
        raise invalid(f"the body is nested too deeply: expected {_expected(names)}") from None
    except ValueError as error:
        fault = f"is no JSON ({error})" if body else "is empty"
        raise invalid(f"the body {fault}: expected {_expected(names)}") from None


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise invalid(f"the field {shown(twice)} is given twice")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise invalid(f"the body has {name}, which is no JSON value")


def _expected(names: Collection[str]) -> str:
    return "{" + ", ".join(f'"{name}": "..."' for name in names) + "}" if names else "an empty body or {}"


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
