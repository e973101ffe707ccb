"""Docker requests with the standard library alone, for a machine without the Python packages.

Only `doctor` uses it. Tests use the SDK.
"""

import http.client
import json
import os
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: Timeout of a request, in seconds.
TIMEOUT_S = 20.0


class NoAnswer(Exception):
    """The daemon did not answer, or rejected the request; the text gives the cause."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def request(address: str, method: str, path: str, body: object = None) -> Any:
    """Send a request to the daemon at `address`; the decoded JSON, None for an empty answer. Raises NoAnswer."""
    payload = None if body is None else json.dumps(body)
    connection = _connection(address)
    try:
        connection.request(method, path, payload, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(f"no answer from {address}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
    try:
        found = json.loads(text) if text.strip() else None
    except ValueError:
        raise NoAnswer(f"what answers at {address} is no Docker daemon: {answer.status} {text[:80]!r}") from None
    if answer.status >= 400:
        raise NoAnswer(str(found.get("message", text) if isinstance(found, dict) else text))
    return found


def _connection(address: str) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise NoAnswer(f"{address} is no address: {error}") from error
    if parts.scheme == "unix":
        return _UnixConnection(parts.netloc + parts.path)
    if parts.scheme not in ("tcp", "http", "https") or not host:
        raise NoAnswer(f"{address} is asked only once the Python packages are there")
    if parts.scheme == "https" or os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_CERT_PATH"):
        return http.client.HTTPSConnection(host, port or 2376, timeout=TIMEOUT_S, context=_certificates())
    return http.client.HTTPConnection(host, port or 2375, timeout=TIMEOUT_S)


def _certificates() -> ssl.SSLContext:
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path("~/.docker").expanduser())
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except OSError as error:  # TLS errors are OSErrors, too
        raise NoAnswer(f"the certificates in {folder} cannot be used: {error}") from error
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
