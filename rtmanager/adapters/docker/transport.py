"""HTTP over the sockets of `lines`, as `requests` and so the SDK want it.

The SDK's own adapter keeps a connection pool for each *URL*: connections are hardly ever used again, and once
there are more URLs than pools, threads close each other's. Here there is one pool for one engine. And a question
whose answer comes in one piece goes to the pool at once: `requests` looks for cookies, redirects and proxies on the
way, of which there are none, and that takes longer than all the rest of a small call.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import docker
from requests import Response
from requests.adapters import HTTPAdapter
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPConnectionPool, Timeout
from urllib3.connection import HTTPConnection

from rtmanager.adapters.docker.answers import checked
from rtmanager.adapters.docker.lines import CONNECT_S, Address, EngineSocket, Lines

if TYPE_CHECKING:
    from requests import PreparedRequest
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

    def exchange(self, method: str, target: str, body: str | None, headers: Mapping[str, str]) -> Response:
        """Ask, and read the whole answer. Raises urllib3's `HTTPError`."""
        timeout = Timeout(connect=CONNECT_S, read=self._lines.allowance.total_s)
        answer = self._pool.urlopen(
            method, target, body, headers, retries=False, redirect=False, timeout=timeout, preload_content=False
        )
        response = Response()
        response.status_code, response.reason, response.url = answer.status, answer.reason or "", target
        response.headers.update(answer.headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw = BytesIO(answer.read())
        return response

    def close(self) -> None:
        super().close()
        self._pool.close()


class EngineClient(docker.APIClient):
    """The SDK's client, over an adapter."""

    def __init__(self, base_url: str, api_version: str, adapter: EngineAdapter) -> None:
        super().__init__(base_url=base_url, version=api_version)
        self.trust_env = False  # no proxy of the environment between us and the engine
        self.mount("http://", adapter)
        self._adapter = adapter
        self._name = str(self.headers["User-Agent"])

    def _raise_for_status(self, response: Response) -> None:
        """Where every answer of the SDK comes by."""
        checked(response)

    def request(  # type: ignore[override]  # what else `requests` would take nobody gives
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        data: str | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        **how: Any,
    ) -> Response:
        """Where every call of the SDK comes by. A stream is read as it comes, and `requests` knows how."""
        if stream:
            return super().request(method, url, params=params, data=data, headers=headers, stream=True, **how)
        query = urlencode({name: value for name, value in (params or {}).items() if value is not None}, doseq=True)
        target = urlsplit(url).path + (f"?{query}" if query else "")
        return self._adapter.exchange(method, target, data, {"User-Agent": self._name, **(headers or {})})
