"""Writes `docs/generated/contract.md` from the OpenAPI document and the tables in the domain:

    python -m rtmanager.tests.contract_page > docs/generated/contract.md

A unit test fails while the page in the repository is another.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from rtmanager import http
from rtmanager.domain import game, image_ref, jobs, messages
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.health import SNAPSHOT_STATUS, HealthSource, HealthStatus
from rtmanager.domain.messages import INTENT_OF
from rtmanager.domain.operation import OpKind, OpSource, Outcome, StopReason
from rtmanager.domain.outage import RequestedBy
from rtmanager.domain.record import Status
from rtmanager.http.limits import HttpLimits
from rtmanager.http.messages import STATUS_OF

_HEAD = """\
# Contract tables

The reference tables of the [contract](../contract.md).

## Calls

| call | operationId | does | answers |
|---|---|---|---|
"""

_TAIL = """
This page is made from `rtmanager/http/openapi.yaml` and `rtmanager/domain`: \
`python -m rtmanager.tests.contract_page > docs/generated/contract.md`.
"""

#: The schemas whose fields have a table, by heading.
_OBJECTS = {
    "A record": "RuntimeRecord",
    "Health": "RuntimeHealth",
    "The last exit": "LastExit",
    "A row of the operation log": "LoggedOperation",
}

_VALUES: Mapping[str, type[StrEnum]] = {
    "status of a record": Status,
    "`op_kind`": OpKind,
    "`op_source`": OpSource,
    "`outcome`": Outcome,
    "`reason` of a stop": StopReason,
    "status of a snapshot": HealthStatus,
    "source of a snapshot": HealthSource,
    "`requested_by` of a last exit": RequestedBy,
}

_HTTP = HttpLimits()

_LIMITS: Mapping[str, object] = {
    "`game_id`": f"`{game.GAME_ID_PATTERN}`",
    "`game_id` of a malformed entry that gets a result, characters": game.MAX_READABLE_LENGTH,
    "`image_ref`, characters": image_ref.MAX_LENGTH,
    "name of an image with its registry, characters": image_ref.MAX_NAME_LENGTH,
    "entry of an input stream, bytes of all names and values": jobs.ENTRY_BYTES,
    "entry of an input stream, fields": jobs.ENTRY_FIELDS,
    "text of foreign origin in a message, characters": messages.TEXT_LENGTH,
    "members of `details` at each level": messages.DETAIL_FIELDS,
    "dead letter, fields kept": messages.LETTER_FIELDS,
    "dead letter, bytes of a name": messages.LETTER_NAME_BYTES,
    "dead letter, bytes of a value": messages.LETTER_VALUE_BYTES,
    "dead letter, all kept names and values": messages.LETTER_LENGTH,
    "HTTP request line and headers, bytes (431)": _HTTP.head_bytes,
    "HTTP header fields (431)": _HTTP.header_fields,
    "HTTP body, bytes (413)": _HTTP.body_bytes,
    "HTTP request, seconds from its first byte to its last (408)": _HTTP.receive_s,
    "HTTP connections at once": _HTTP.connections,
    "HTTP connections of one client address": _HTTP.connections_of_a_peer,
}


@lru_cache
def _document() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(Path(http.__file__).with_name("openapi.yaml").read_text(encoding="utf-8"))
    return content


def page() -> str:
    """The whole page."""
    return "".join(_parts())


def _parts() -> Iterator[str]:
    yield _HEAD
    for path, operations in _document()["paths"].items():
        for method, operation in operations.items():
            yield _row(f"{method.upper()} `{path}`", operation["operationId"], operation["summary"], _answers(operation))
    yield "\nEvery call can also get a refusal by HTTP itself, `invalid_request` with 400, 408, 413, 417, 431, 501 or 505.\n"
    for heading, name in _OBJECTS.items():
        yield f"\n## {heading}\n\n| field | type | meaning |\n|---|---|---|\n"
        for field, schema in _document()["components"]["schemas"][name]["properties"].items():
            yield _row(f"`{field}`", _type(schema), schema.get("description", _resolved(schema).get("description", "")))
    yield "\n## Error codes\n\n| code | HTTP status | intent |\n|---|---|---|\n"
    for code in ErrorCode:
        intent = f"`{INTENT_OF[code]}`" if code in INTENT_OF else ""
        yield _row(f"`{code}`", str(STATUS_OF.get(code, 200)), intent)
    yield "\n## Health events\n\n| event | status of the snapshot |\n|---|---|\n"
    for event, status in SNAPSHOT_STATUS.items():
        yield _row(f"`{event}`", f"`{status}`")
    yield "\n## Values\n\n| field | values |\n|---|---|\n"
    for field, values in _VALUES.items():
        yield _row(field, _listed(list(values)))
    yield "\n## Limits\n\n| what | limit |\n|---|---|\n"
    for what, limit in _LIMITS.items():
        yield _row(what, f"{limit:g}" if isinstance(limit, float) else str(limit))
    yield _TAIL


def _row(*cells: str) -> str:
    texts = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(texts)} |\n"


def _listed(values: Sequence[object]) -> str:
    return ", ".join("`null`" if value is None else f"`{value}`" for value in values)


def _resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference leads to; any other node itself."""
    if "$ref" not in node:
        return node
    target: Any = _document()
    for step in node["$ref"].removeprefix("#/").split("/"):
        target = target[step]
    return _resolved(target)


def _answers(operation: Mapping[str, Any]) -> str:
    """The statuses; those of failures with their codes, by which the document names its examples."""
    texts = []
    for status, response in operation["responses"].items():
        if status == "default":
            continue
        [content] = _resolved(response)["content"].values()
        texts.append(status if status == "200" else f"{status} {_listed(list(content['examples']))}")
    return "; ".join(texts)


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#the-last-exit)" if name == "LastExit" else _type(_resolved(schema))
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            return " or ".join(map(_type, schema[choice]))
    if "const" in schema or "enum" in schema:
        return _listed(schema.get("enum", [schema.get("const")]))
    if schema.get("format") == "date-time":
        return "time"
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " or ".join(types)


if __name__ == "__main__":
    sys.stdout.write(page())
