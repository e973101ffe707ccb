"""JSON over HTTP for tests and demos: one call returns status and body."""

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from harness import timing

TIMEOUT_S = 60.0


@timing.span("REST calls")
def call(
    method: str,
    url: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> tuple[int, Any]:
    """Send `body` as JSON (None: no body); return status and decoded JSON. Raises OSError without an answer."""
    payload = None if body is None else json.dumps(body)
    status, answer = _exchange(method, url, payload, {"Content-Type": "application/json", **(headers or {})}, timeout_s)
    return status, json.loads(answer)


def text(url: str) -> str:
    """GET `url` and return the body as text, whatever the status. Raises OSError without an answer."""
    return _exchange("GET", url, None, {}, TIMEOUT_S)[1].decode()


def _exchange(
    method: str, url: str, payload: str | None, headers: Mapping[str, str], timeout_s: float
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, payload, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
