"""Requests and responses as the handlers see them, and the error body.

Every answer except the metrics is JSON. Every error, also of the HTTP layer, is `{"error":{"code","message"}}` with a
code of the contract: the code is for programs, the message for people.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rtmanager.domain.errors import ErrorCode, RuntimeManagerError

CONTENT_TYPE = "application/json; charset=utf-8"
#: Shared: `json.dumps` with separators creates an encoder for each call, which takes half of the time.
_JSON = json.JSONEncoder(separators=(",", ":"))
#: The text format of Prometheus.
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: The status of each error code (contract, "REST"). Where HTTP itself requires another status (405, 413, …), the code
#: is `invalid_request`.
STATUS_OF: Mapping[ErrorCode, int] = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.START_CONFIG_INVALID: 400,
    ErrorCode.IMAGE_REF_NOT_SEMVER: 400,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.CONFLICT: 409,
    ErrorCode.SEMVER_PATCH_ONLY: 409,
    ErrorCode.SERVICE_UNAVAILABLE: 503,
    ErrorCode.DOCKER_UNAVAILABLE: 503,
    ErrorCode.INTERNAL_ERROR: 500,
    ErrorCode.IMAGE_PULL_FAILED: 500,
    ErrorCode.CONTAINER_START_FAILED: 500,
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `path` is percent-encoded, as it was sent; the names of `headers` are in lower case.

    `address` is the client's IP address; an IPv4 address is in its own form, also if it came by IPv6. It is empty where
    there is no connection.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; the server adds length, date and connection headers."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = CONTENT_TYPE


Handler = Callable[[Request], Response]


class HttpError(RuntimeManagerError):
    """The request is answered with this error."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = STATUS_OF[code] if status is None else status
        self.headers = headers or {}

    def response(self) -> Response:
        """The answer to the client."""
        return failure(self.code, self.message, status=self.status, headers=self.headers)


def invalid(message: str, *, status: int = 400) -> HttpError:
    """The error of a malformed request: a retry of the same request fails again."""
    return HttpError(ErrorCode.INVALID_REQUEST, message, status=status)


def success(content: object) -> Response:
    """200 with `content` as JSON."""
    return Response(200, _json(content))


def passed_on(content: bytes) -> Response:
    """200 with `content`, which is JSON already."""
    return Response(200, content)


def listing(items: Sequence[bytes], next_cursor: str | None) -> Response:
    """200 with a page of items that are JSON already."""
    # A large page is copied once: each further copy would get its memory from the kernel.
    parts = [*items] or [b""]
    parts[0] = b'{"items":[' + parts[0]
    parts[-1] += b'],"next_cursor":%s}' % _JSON.encode(next_cursor).encode()
    return passed_on(b",".join(parts))


def exposition(metrics: str) -> Response:
    """200 with metrics in the text format of Prometheus."""
    return Response(200, metrics.encode(), content_type=METRICS_TYPE)


def failure(
    code: ErrorCode, message: str, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The error body of the contract, with the status of its code unless another is given."""
    body = _json({"error": {"code": code.value, "message": message}})
    return Response(STATUS_OF[code] if status is None else status, body, headers or {})


def _json(content: object) -> bytes:
    return _JSON.encode(content).encode()
