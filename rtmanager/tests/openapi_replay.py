"""Checks a running server against its OpenAPI document, and the document against the server.

A case names a documented outcome and the request that provokes it. Replaying the case checks the request against the
document; a request that the server rejects must violate it. Then it checks the answer: status, headers, body, error
code. `unprovoked` lists the documented outcomes without a case. The replay needs only the server's base URL, so the
same cases run against a server with fakes and against the real manager.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from jsonschema import Draft202012Validator

#: The document's media type of nearly all answers.
JSON = "application/json"
CONTENT_TYPE = f"{JSON}; charset=utf-8"
METHODS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")


class Outcome(NamedTuple):
    """One documented way for an operation to end; `status` is the document's key (`default` too)."""

    operation_id: str
    status: str
    code: str | None


@dataclass(frozen=True)
class Case:
    """One request and the outcome that it provokes, after `prepare` has set the state for it.

    `documented_as` is the response's key in the document if it differs from the status. `conforms` is False for a
    request that the document forbids.
    """

    operation_id: str
    status: int
    code: str | None = None
    game_id: str = "g1"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    conforms: bool = True
    documented_as: str = ""
    prepare: Callable[[], None] = lambda: None

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.operation_id, self.documented_as or str(self.status), self.code)


@dataclass(frozen=True)
class Operation:
    """One operation of the document, with references resolved."""

    method: str
    template: str
    content: Mapping[str, Any]

    def parameters(self, where: str) -> dict[str, Mapping[str, Any]]:
        """The parameters of the path, the query or the header, by name."""
        return {item["name"]: item for item in self.content.get("parameters", ()) if item["in"] == where}


class Replay:
    """Replays cases of a document at `base_url`, and records the outcomes that they showed."""

    def __init__(self, document: Mapping[str, Any], base_url: str) -> None:
        self._url = urlsplit(base_url)
        whole = without_references(document, document)
        self.operations = {
            content["operationId"]: Operation(method.upper(), template, content)
            for template, methods in whole["paths"].items()
            for method, content in methods.items()
            if method in METHODS
        }
        self._seen: set[Outcome] = set()

    @property
    def routes(self) -> set[tuple[str, str]]:
        """Method and path template of every documented operation."""
        return {(operation.method, operation.template) for operation in self.operations.values()}

    @cached_property
    def documented(self) -> set[Outcome]:
        """Every documented outcome. Raises `AssertionError` where examples and schema contradict each other."""
        return {
            Outcome(operation_id, status, code)
            for operation_id, operation in self.operations.items()
            for status, response in operation.content["responses"].items()
            for code in (_codes(response) if not status.startswith("2") else {None})
        }

    def unprovoked(self) -> set[Outcome]:
        """Documented outcomes that no case has shown yet."""
        return self.documented - self._seen

    def play(self, case: Case) -> Any:
        """Send the case's request; return the answer's content, as text where it is no JSON.

        Raises `AssertionError` with all faults found.
        """
        operation = self.operations[case.operation_id]
        faults = list(request_faults(operation, case))
        if case.conforms and faults:
            raise AssertionError(f"{case.outcome}: the document forbids the request: {faults}")
        if not case.conforms and not faults:
            raise AssertionError(f"{case.outcome}: the document allows a request that is to be refused")
        if case.outcome not in self.documented:
            raise AssertionError(f"{case.outcome} is not documented")
        case.prepare()
        status, headers, body = self._send(operation, case)
        response = operation.content["responses"][case.outcome.status]
        faults = list(response_faults(response, case, status, headers, body))
        if faults:
            raise AssertionError(f"{case.outcome}: {faults}; the answer was {status} {body!r}")
        self._seen.add(case.outcome)
        return _read(headers, body)

    def _send(self, operation: Operation, case: Case) -> tuple[int, http.client.HTTPMessage, bytes]:
        path = operation.template.replace("{game_id}", quote(case.game_id, safe=""))
        query = f"?{urlencode(case.query)}" if case.query else ""
        connection = http.client.HTTPConnection(self._url.netloc, timeout=60)
        try:
            kind = {} if case.body is None else {"Content-Type": CONTENT_TYPE}
            connection.request(operation.method, path + query, body=case.body, headers={**kind, **case.headers})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()


def without_references(node: Any, document: Mapping[str, Any]) -> Any:
    """`node` with each `$ref` replaced by its target; keys next to a reference override those of the target."""
    if isinstance(node, list):
        return [without_references(item, document) for item in node]
    if not isinstance(node, dict):
        return node
    beside = {name: without_references(value, document) for name, value in node.items() if name != "$ref"}
    if "$ref" not in node:
        return beside
    target: Any = document
    for step in node["$ref"].removeprefix("#/").split("/"):
        target = target[step.replace("~1", "/").replace("~0", "~")]
    return {**without_references(target, document), **beside}


def example_faults(content: Mapping[str, Any]) -> Iterator[str]:
    """Faults of the examples of a request body or a response: none at all, or one that violates the schema."""
    for media in content.get("content", {}).values():
        if not media.get("examples"):
            yield "has no example"
        for name, example in media.get("examples", {}).items():
            yield from (f"example {name}: {fault}" for fault in _faults(media["schema"], example["value"]))


def _faults(schema: Mapping[str, Any], value: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)]


def _codes(response: Mapping[str, Any]) -> set[str]:
    """The error codes of a response's examples. Raises `AssertionError` if its schema allows others."""
    media = response["content"][JSON]
    shown = {example["value"]["error"]["code"] for example in media["examples"].values()}
    known = _known_codes(media["schema"])
    allowed = {code for code in known if not _faults(media["schema"], {"error": {"code": code, "message": "-"}})}
    if shown != allowed:
        raise AssertionError(f"the schema allows the codes {allowed}, the examples show {shown}")
    return shown


def _known_codes(schema: Mapping[str, Any]) -> set[str]:
    """Every error code that the schema of an error names."""
    found = set(schema.get("enum", ())) | ({schema["const"]} if "const" in schema else set())
    for part in (*schema.get("allOf", ()), *schema.get("properties", {}).values()):
        found |= _known_codes(part)
    return found


def request_faults(operation: Operation, case: Case) -> Iterator[str]:
    given = {
        "path": {"game_id": case.game_id} if "{game_id}" in operation.template else {},
        "query": case.query,
        "header": case.headers,
    }
    for where, values in given.items():
        known = operation.parameters(where)
        if where != "header":  # clients may send headers that are not documented
            yield from (f"{where} parameter {name} is unknown" for name in values.keys() - known.keys())
        for name, parameter in known.items():
            if name in values:
                value = _as_typed(parameter["schema"], values[name])
                yield from (f"{where} parameter {name}: {fault}" for fault in _faults(parameter["schema"], value))
            elif parameter.get("required"):
                yield f"{where} parameter {name} is missing"
    yield from _request_body_faults(operation.content.get("requestBody"), case.body)


def _as_typed(schema: Mapping[str, Any], text: str) -> object:
    """A parameter's value in the type of its schema."""
    whole = schema.get("type") == "integer" and text.lstrip("-").isdigit()
    return int(text) if whole else text


def _request_body_faults(expected: Mapping[str, Any] | None, body: bytes | None) -> Iterator[str]:
    if expected is None or body is None:
        if body is not None:
            yield "a body where none is documented"
        elif expected is not None and expected["required"]:
            yield "the body is missing"
        return
    try:
        content = json.loads(body)
    except ValueError as error:
        yield f"the body is no JSON: {error}"
    else:
        yield from _faults(expected["content"][JSON]["schema"], content)


def response_faults(
    response: Mapping[str, Any], case: Case, status: int, headers: http.client.HTTPMessage, body: bytes
) -> Iterator[str]:
    if status != case.status:
        yield f"expected status {case.status}"
    media_type, media = next(iter(response["content"].items()))
    if headers["Content-Type"] != (CONTENT_TYPE if media_type == JSON else media_type):
        yield f"Content-Type is {headers['Content-Type']}"
    for name, header in response.get("headers", {}).items():
        if name in headers:
            yield from (f"header {name}: {fault}" for fault in _faults(header["schema"], headers[name]))
        elif header.get("required"):
            yield f"the header {name} is missing"
    content = _read(headers, body)
    yield from _faults(media["schema"], content)
    if case.code is not None and (not isinstance(content, dict) or content.get("error", {}).get("code") != case.code):
        yield f"expected code {case.code}"


def _read(headers: http.client.HTTPMessage, body: bytes) -> Any:
    """The content of an answer, decoded by its `Content-Type`."""
    return json.loads(body) if headers["Content-Type"] == CONTENT_TYPE else body.decode()
