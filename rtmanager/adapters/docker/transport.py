"""HTTP over the sockets of `lines`, as `requests` and so the SDK want it.

The SDK's own adapter keeps a connection pool for each *URL*: connections are hardly ever used again, and once
there are more URLs than pools, threads close each other's. Here there is one pool for one engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from rtmanager.adapters.docker.lines import CONNECT_S, Address, EngineSocket, Lines

if TYPE_CHECKING:
    from requests import PreparedRequest, Response
    from urllib3.response import HTTPResponse


class _Connection(HTTPConnection):
    """An HTTP connection over a socket of `Lines`."""

    def __init__(self, host: str, port: int | None = None, *, lines: Lines, **options: Any) -> None:
        super().__init__(host, port, **options)
        self._lines = lines

    def connect(self) -> None:
        self.sock = self._lines.dial()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # urllib3 narrows http.client's type
        if isinstance(self.sock, EngineSocket):
            self.sock.allow(self._lines.allowance)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class EngineAdapter(HTTPAdapter):
    """What `requests` sends the SDK's calls through: one pool, our sockets, our deadlines, never a proxy."""

    def __init__(self, address: Address, lines: Lines, connections: int) -> None:
        super().__init__()
        self._lines = lines
        self._pool = _Pool(address.host, address.port, maxsize=connections, lines=lines)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        return request.path_url

    def send(self, request: PreparedRequest, *_: Any, stream: bool = False, **__: Any) -> Response:
        """Send with the thread's allowance; the timeout that the SDK chose does not count."""
        timeout = (CONNECT_S, self._lines.allowance.total_s)
        return super().send(request, stream=stream, timeout=timeout, verify=False)

    def close(self) -> None:
        super().close()
        self._pool.close()
