"""HTTP over the sockets of `lines`, as `requests` and so the SDK want it.

The SDK's own adapter keeps a connection pool for each *URL*: connections are hardly ever used again, and once
there are more URLs than pools, threads close each other's. Here there is one pool for one engine. And a question
whose answer comes in one piece goes to the pool at once: `requests` looks for cookies, redirects and proxies on the
way, of which there are none, and that takes longer than all the rest of a small call.
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

#: Bytes of an answer that is no JSON: the end of a log. Docker cuts its lines at 16 KB.
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
    """What `requests` sends the SDK's calls through: one pool, our sockets, our deadlines, never a proxy."""

    def __init__(self, address: Address, lines: SocketRegistry, connections: int) -> None:
        super().__init__()
        self._lines = lines
        self._pool = _Pool(address.host, address.port, maxsize=connections, lines=lines)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        return request.path_url

    def send(self, request: PreparedRequest, *_: Any, stream: bool = False, **__: Any) -> Response:
        """Send with the thread's allowance; the timeout that the SDK chose does not count."""
        timeout = (CONNECT_S, self._lines.deadline.total_s)
        return super().send(request, stream=stream, timeout=timeout, verify=False)

    def exchange(self, method: str, target: str, body: str | None, headers: Mapping[str, str]) -> Response:
        """Ask, and read the whole answer. Raises urllib3's `HTTPError`."""
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
    """The SDK's client, over an adapter."""

    def __init__(self, base_url: str, api_version: str, adapter: EngineAdapter) -> None:
        # Not the SDK's own, which reads the docker CLI's config.json and ends in a TypeError where the CLI goes on.
        Session.__init__(self)
        self.base_url = base_url
        self.timeout = DEFAULT_TIMEOUT_SECONDS
        self.headers["User-Agent"] = DEFAULT_USER_AGENT
        self.credstore_env = None
        self._version = api_version
        self._general_configs: dict[str, Any] = {}
        self._proxy_configs = ProxyConfig()
        self._auth_configs = AuthConfig({})
        self.trust_env = False  # no proxy of the environment between us and the engine
        self.adapters.clear()  # those of requests, which know no deadline of ours
        self.mount("http://", adapter)
        self._adapter = adapter
        self._name = str(self.headers["User-Agent"])

    def _raise_for_status(self, response: Response) -> None:
        """Where every answer of the SDK comes by."""
        checked(response)

    def _result(self, response: Response, json: bool = False, binary: bool = False) -> Any:
        """Where the SDK reads every answer: JSON is a value, whatever it is, or `InvalidJSONError`."""
        if not json:
            return super()._result(response, json=json, binary=binary)  # type: ignore[misc]
        checked(response)
        try:
            return skim.loads(response.content)
        except ValueError as error:
            raise InvalidJSONError(f"its answer cannot be read: {error}") from error

    def inspect_container(self, container: str) -> Any:  # type: ignore[override]
        """As the SDK's, which its `logs` asks, too; but see `answer_about`."""
        return answer_about(self, container)

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
            how["allow_redirects"] = False  # a daemon has none, and who answers in its place must not choose the next
            answer = super().request(method, url, params=params, data=data, headers=headers, stream=True, **how)
            if not 200 <= answer.status_code < 300:
                with closing(answer.raw) as raw:  # `requests` would read a refusal whole, whatever its size
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
    """The answer to a question of our own. Raises `APIError` for a refusal."""
    url = f"{client.base_url}/v{client.api_version}{path}"
    answer = client.get(url, params=query, stream=stream, headers=headers)
    try:
        checked(answer)
    except APIError:
        answer.close()
        raise
    return answer


def answer_about(client: docker.APIClient, id_or_name: str) -> object:
    """What Docker answers about a container. Raises `APIError`, or `InvalidJSONError` when it is no such object.

    Raises `ContainerNotFound` when only the name of another container is this id: Docker looks for a name next.
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
    """The entries of a list while it arrives; None for one that cannot be read. Raises `APIError`."""
    with closing(get(client, path, query, stream=True)) as answer:
        try:
            yield from skim.entries(answer.iter_content(skim.PIECE))
        except ValueError as error:
            raise InvalidJSONError(f"its answer cannot be read: {error}") from error


def _bounded(answer: BaseHTTPResponse) -> bytes:
    """The whole answer: JSON without what is not read, of anything else not more than `MOST_BYTES`."""
    if "json" in answer.headers.get("Content-Type", ""):
        try:
            return skim.reduced(answer.read)
        except ValueError as error:
            raise InvalidJSONError(f"its answer cannot be read: {error}") from error
    found = answer.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise InvalidJSONError(f"its answer has more than {MOST_BYTES} bytes")
    return found
