"""HTTP over the sockets of `sockets`, as `requests` and the SDK need it.

The SDK's own adapter keeps a connection pool per *URL*. So connections are hardly ever reused, and with more URLs than
pools, threads close each other's. This adapter keeps one pool per daemon. A request whose answer is read whole
bypasses `requests`, whose handling of cookies, redirects and proxies takes longer than the rest of a small call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import docker
from docker.auth import AuthConfig
from docker.constants import DEFAULT_TIMEOUT_SECONDS, DEFAULT_USER_AGENT
from docker.errors import APIError
from docker.utils.proxy import ProxyConfig
from requests import Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidJSONError
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPConnectionPool, Timeout
from urllib3.connection import HTTPConnection

from rtmanager.adapters.docker import decode, skim
from rtmanager.adapters.docker.answers import checked
from rtmanager.adapters.docker.sockets import CONNECT_S, Address, DeadlineSocket, EngineTlsSocket, SocketRegistry
from rtmanager.ports.runtime import ContainerNotFound

if TYPE_CHECKING:
    from requests import PreparedRequest
    from urllib3.response import BaseHTTPResponse, HTTPResponse

#: Bytes of an answer that is no JSON: the end of a log. Docker splits its lines at 16 KB.
MOST_BYTES = 4 << 20


class _Connection(HTTPConnection):
    """An HTTP connection over a socket of `SocketRegistry`."""

    def __init__(self, host: str, port: int | None = None, *, lines: SocketRegistry, **options: Any) -> None:
        super().__init__(host, port, **options)
        self._lines = lines

    def connect(self) -> None:
        self.sock = self._lines.dial()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # urllib3 narrows http.client's type
        if isinstance(self.sock, (DeadlineSocket, EngineTlsSocket)):
            self._lines.begin_answer(self.sock)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class EngineAdapter(HTTPAdapter):
    """The `requests` adapter for the SDK's calls: one pool, our sockets and deadlines, no proxy."""

    def __init__(self, address: Address, lines: SocketRegistry, connections: int) -> None:
        super().__init__()
        self._lines = lines
        self._pool = _Pool(address.host, address.port, maxsize=connections, lines=lines)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        return request.path_url

    def send(self, request: PreparedRequest, *_: Any, stream: bool = False, **__: Any) -> Response:
        """Send with the thread's deadline, in place of the timeout that the SDK chose."""
        timeout = (CONNECT_S, self._lines.deadline.total_s)
        return super().send(request, stream=stream, timeout=timeout, verify=False)

    def exchange(self, method: str, target: str, body: str | None, headers: Mapping[str, str]) -> Response:
        """Send a request and read the whole answer. Raises urllib3's `HTTPError`."""
        timeout = Timeout(connect=CONNECT_S, read=self._lines.deadline.total_s)
        answer = self._pool.urlopen(
            method, target, body, headers, retries=False, redirect=False, timeout=timeout, preload_content=False
        )
        response = Response()
        response.status_code, response.reason, response.url = answer.status, answer.reason or "", target
        response.headers.update(answer.headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw = BytesIO(_bounded(answer))
        return response

    def close(self) -> None:
        super().close()
        self._pool.close()


class EngineClient(docker.APIClient):
    """The SDK's client over an `EngineAdapter`."""

    def __init__(self, base_url: str, api_version: str, adapter: EngineAdapter) -> None:
        # The SDK's own constructor reads the docker CLI's config.json, and raises TypeError where the CLI continues.
        Session.__init__(self)
        self.base_url = base_url
        self.timeout = DEFAULT_TIMEOUT_SECONDS
        self.headers["User-Agent"] = DEFAULT_USER_AGENT
        self.credstore_env = None
        self._version = api_version
        self._general_configs: dict[str, Any] = {}
        self._proxy_configs = ProxyConfig()
        self._auth_configs = AuthConfig({})
        self.trust_env = False  # no proxy of the environment before the daemon
        self.adapters.clear()  # the adapters of requests have no deadline
        self.mount("http://", adapter)
        self._adapter = adapter
        self._name = str(self.headers["User-Agent"])

    def _raise_for_status(self, response: Response) -> None:
        """Check the status; every answer of the SDK passes here."""
        checked(response)

    def _result(self, response: Response, json: bool = False, binary: bool = False) -> Any:
        """Read an answer; raises `InvalidJSONError` for unreadable JSON. Every answer of the SDK passes here."""
        if not json:
            return super()._result(response, json=json, binary=binary)  # type: ignore[misc]
        checked(response)
        try:
            return skim.loads(response.content)
        except ValueError as error:
            raise InvalidJSONError(f"its answer cannot be read: {error}") from error

    def inspect_container(self, container: str) -> Any:  # type: ignore[override]
        """Like the SDK's, whose `logs` calls it, but with the checks of `answer_about`."""
        return answer_about(self, container)

    def request(  # type: ignore[override]  # no caller passes the other arguments of `requests`
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        data: str | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        **how: Any,
    ) -> Response:
        """Send a request; every call of the SDK passes here. Only streams go through `requests`."""
        if stream:
            how["allow_redirects"] = False  # a daemon sends none, and a server in its place must not choose the next
            answer = super().request(method, url, params=params, data=data, headers=headers, stream=True, **how)
            if not 200 <= answer.status_code < 300:
                with closing(answer.raw) as raw:  # `requests` would read a refusal of any size
                    answer.raw = BytesIO(_bounded(raw))
            return answer
        query = urlencode({name: value for name, value in (params or {}).items() if value is not None}, doseq=True)
        target = urlsplit(url).path + (f"?{query}" if query else "")
        return self._adapter.exchange(method, target, data, {"User-Agent": self._name, **(headers or {})})


def get(
    client: docker.APIClient,
    path: str,
    query: Mapping[str, str] | None = None,
    *,
    stream: bool,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Send a GET request outside the SDK's methods. Raises `APIError` for a refusal."""
    url = f"{client.base_url}/v{client.api_version}{path}"
    answer = client.get(url, params=query, stream=stream, headers=headers)
    try:
        checked(answer)
    except APIError:
        answer.close()
        raise
    return answer


def answer_about(client: docker.APIClient, id_or_name: str) -> object:
    """Inspect a container. Raises `APIError`, or `InvalidJSONError` when the answer is no container.

    Docker also looks for a name; raises `ContainerNotFound` when the requested id is only another container's name.
    """
    answer = get(client, f"/containers/{quote(id_or_name, safe='')}/json", stream=False)
    try:
        found = skim.loads(answer.content)
    except ValueError as error:
        raise InvalidJSONError(f"its answer cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("Id"), str):
        raise InvalidJSONError("its answer is no container")
    if found["Id"] != id_or_name and found.get("Name") == f"/{id_or_name}" and decode.is_whole_id(id_or_name):
        raise ContainerNotFound(f"container {id_or_name} does not exist, it is the name of {found['Id'][:12]}")
    return found


def arriving_entries(client: docker.APIClient, path: str, query: Mapping[str, str]) -> Iterator[object]:
    """Yield the entries of a list as they arrive; None for an unreadable one.

    Raises `APIError`, or `InvalidJSONError` when it is no list or breaks off before any readable entry.
    """
    with closing(get(client, path, query, stream=True)) as answer:
        try:
            yield from skim.entries(answer.iter_content(skim.PIECE))
        except ValueError as error:
            raise InvalidJSONError(f"its answer cannot be read: {error}") from error


def _bounded(answer: BaseHTTPResponse) -> bytes:
    """Read the whole answer: JSON is reduced, anything else limited to `MOST_BYTES`. Raises `InvalidJSONError`."""
    if "json" in answer.headers.get("Content-Type", ""):
        try:
            return skim.reduced(answer.read)
        except ValueError as error:
            raise InvalidJSONError(f"its answer cannot be read: {error}") from error
    found = answer.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise InvalidJSONError(f"its answer has more than {MOST_BYTES} bytes")
    return found
