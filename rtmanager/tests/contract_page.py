"""Writes `docs/generated/contract.md` from the OpenAPI document and the tables in the domain:

    python -m rtmanager.tests.contract_page > docs/generated/contract.md

A unit test fails while the page in the repository differs.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import rtmanager
from rtmanager import http
from rtmanager.domain import game, image_ref, jobs, messages
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.health import SNAPSHOT_STATUS
from rtmanager.domain.messages import INTENT_OF
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
This page is made from `rtmanager/http/openapi.yaml` and the code: \
`python -m rtmanager.tests.contract_page > docs/generated/contract.md`.
"""

_REFUSALS = """
Every call can also get a refusal by HTTP itself: `invalid_request` with 400, 408, 413, 417, 431, 501 or 505. A path \
without this method gets 405. A time is RFC 3339 in UTC.
"""

#: The schemas whose fields have a table, by heading.
_OBJECTS = {
    "A record": "RuntimeRecord",
    "Health": "RuntimeHealth",
    "The last exit": "LastExit",
    "A row of the operation log": "LoggedOperation",
}

_HTTP = HttpLimits()

#: The meaning of each code for a client.
_MEANINGS: Mapping[ErrorCode, str] = {
    ErrorCode.INVALID_REQUEST: "The request is wrong; nothing was done. HTTP itself refuses with other statuses, too.",
    ErrorCode.START_CONFIG_INVALID: "Malformed `image_ref` or `game_id`; an image that operators refuse; the network "
    "is missing, or several have its name; the state root or the game's directory is unusable, or its file system "
    "failed for `RTMANAGER_DEFERRAL_LIMIT`. A root is unusable without room (`RTMANAGER_GAME_STATE_MIN_FREE`, 16 "
    "inodes), or if no checked game on record has its directory there.",
    ErrorCode.IMAGE_REF_NOT_SEMVER: "A patch: one of the two tags is no semantic version.",
    ErrorCode.NOT_FOUND: "The game has no record (its log: neither record nor log), or the path does not exist.",
    ErrorCode.CONFLICT: "Another operation of the game is live, the state of the game forbids this one, or a game "
    "whose id differs in case only holds the name.",
    ErrorCode.SEMVER_PATCH_ONLY: "A patch: the major or the minor number differs.",
    ErrorCode.SERVICE_UNAVAILABLE: "PostgreSQL, Redis or Docker is away, PostgreSQL refuses every such request, the "
    "service stops, or too many requests wait. Retry later; the message has the state of the operation.",
    ErrorCode.DOCKER_UNAVAILABLE: "Reserved, never sent.",
    ErrorCode.INTERNAL_ERROR: "PostgreSQL refuses the request of this game, an operation met three unforeseen errors, "
    "Docker refuses a stop or a removal, or a defect.",
    ErrorCode.IMAGE_PULL_FAILED: "The image cannot be pulled, or is absent under the policy `never`; or the start "
    "waited `RTMANAGER_IMAGE_PULL_TIMEOUT` behind other pulls from the registry.",
    ErrorCode.CONTAINER_START_FAILED: "Create or start failed; the first container of an image ended at once; a "
    "container without a record or of another deployment, which the message names, has the name; or PostgreSQL refused "
    "the record of a started container, and the container was removed. "
    "A dead container with RTM's labels, on its network, does not hold a name: it is removed.",
    ErrorCode.REPLAY_NO_OP: "No error: there was nothing to do. A REST call returns the record.",
}

#: Additions to the help text of a metric.
_METRIC_NOTES: Mapping[str, str] = {
    "rtmanager_deleted_total": "`what`: `start_jobs`, `stop_jobs`, `operations`, `dead_letters`, `operation_log`, "
    "`images`.",
    "rtmanager_failing_games": "At most 1,000 games.",
    "rtmanager_free_bytes": "`place`: `state_root`, `docker_root`. No value while the file system does not answer.",
    "rtmanager_free_inodes": "As `rtmanager_free_bytes`.",
    "rtmanager_clock_offset_seconds": "Below 0: behind.",
    "rtmanager_other_daemon": "1 or 0.",
    "rtmanager_state_root_usable": "Checked every 15 s.",
}

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


class Metric(NamedTuple):
    """A metric as the code creates it."""

    kind: str
    help_text: str
    labels: tuple[str, ...]


_KINDS = {"counter": "counter", "read_counter": "counter", "gauge": "gauge"}


def metrics() -> Mapping[str, Metric]:
    """All metrics by name, from the calls that create them; name, help text and labels are literals there."""
    found = {}
    for path in Path(rtmanager.__file__).parent.rglob("*.py"):
        if {"tests", "fakes"} & set(path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _KINDS:
                name, help_text, *labels = (each.value for each in node.args if isinstance(each, ast.Constant))
                found[str(name)] = Metric(_KINDS[node.func.attr], str(help_text), tuple(map(str, labels)))
    return found


def page() -> str:
    """The whole page."""
    return "".join(_parts())


def _parts() -> Iterator[str]:
    yield _HEAD
    for path, operations in _document()["paths"].items():
        for method, operation in operations.items():
            yield _row(
                f"{method.upper()} `{path}`", operation["operationId"], operation["summary"], _answers(operation)
            )
    yield _REFUSALS
    for heading, name in _OBJECTS.items():
        yield f"\n## {heading}\n\n| field | type | meaning |\n|---|---|---|\n"
        for field, schema in _document()["components"]["schemas"][name]["properties"].items():
            yield _row(f"`{field}`", _type(schema), schema.get("description", ""))
    yield "\n## Error codes\n\n| code | HTTP status | meaning | intent |\n|---|---|---|---|\n"
    for code in ErrorCode:
        intent = f"`{INTENT_OF[code]}`" if code in INTENT_OF else ""
        yield _row(f"`{code}`", str(STATUS_OF.get(code, 200)), _MEANINGS[code], intent)
    yield "\n## Health events\n\n| event | status of the snapshot |\n|---|---|\n"
    for event, status in SNAPSHOT_STATUS.items():
        yield _row(f"`{event}`", f"`{status}`")
    yield "\n## Metrics\n\n| metric | kind | value |\n|---|---|---|\n"
    for name, metric in sorted(metrics().items()):
        labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
        yield _row(f"`{name}{labels}`", metric.kind, f"{metric.help_text} {_METRIC_NOTES.get(name, '')}")
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
    """The target of a reference; any other node itself."""
    if "$ref" not in node:
        return node
    target: Any = _document()
    for step in node["$ref"].removeprefix("#/").split("/"):
        target = target[step]
    return _resolved(target)


def _answers(operation: Mapping[str, Any]) -> str:
    """The statuses of the answers; failures with their codes, which are the names of the document's examples."""
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
