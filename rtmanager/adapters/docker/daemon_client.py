"""Client for one Docker daemon: gives every call a deadline and maps every answer by the tables of `answers`.

It connects at the first call. After a call without an answer it negotiates the API version again, since another
daemon may answer next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import docker
from docker.errors import APIError
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from rtmanager import failpoints
from rtmanager.adapters.docker.answers import (
    CALLS,
    NOT_DOCKERS,
    UNREADABLE,
    UNREADABLE_ERRORS,
    Meaning,
    Unreadable,
    answered,
    causes,
    explanation,
    forbidden,
    is_unreadable,
    meaning,
)
from rtmanager.adapters.docker.errors import never_connected, reason, remedy, timed_out
from rtmanager.adapters.docker.sockets import PORT, TLS_PORT, Address, Call, Deadline, SocketRegistry
from rtmanager.adapters.docker.tls import ClientTls, TlsFailed, TlsFiles, expects_tls
from rtmanager.adapters.docker.transport import EngineAdapter, EngineClient
from rtmanager.adapters.docker.versions import NEWEST, Agreement, NoCommonVersion, agreed
from rtmanager.domain.errors import (
    IN_MESSAGE,
    ErrorCode,
    FinalAnswer,
    RuntimeManagerError,
    TemporaryAnswer,
    Unavailable,
)
from rtmanager.domain.text import bounded

T = TypeVar("T")

#: Connections kept open between calls; further callers open and close their own.
POOLED_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Deadlines for the daemon's answers, in seconds; a small host starts at most 7 containers a second."""

    #: `ping` and the negotiation of the API version; short because readiness waits for it.
    ping_s: float = 5.0
    #: Reading one container, image or network list. The daemon holds a container's lock while it starts.
    query_s: float = 20.0
    #: Reading the end of a log; a crash is reported without its log after this time.
    log_s: float = 3.0
    #: Listing all containers.
    list_s: float = 30.0
    create_s: float = 60.0
    start_s: float = 90.0
    #: Added to the grace period of a stop: the kill, and the daemon's own wait of 10 s for its effect.
    stop_margin_s: float = 20.0
    #: Removing a container, including the wait for another client's removal.
    remove_s: float = 60.0


class DaemonClient:
    """The SDK's client for one Docker host. Thread-safe."""

    def __init__(
        self, host: str, deadlines: Deadlines, tls: TlsFiles | None = None, agreement: Agreement | None = None
    ) -> None:
        address = Address.parse(host, TLS_PORT if tls else PORT)
        self.host = host
        self.deadlines = deadlines
        self._lines = SocketRegistry(address, ClientTls(tls) if tls else None)
        self._may_expect_tls = address.path is None and not tls
        self._base_url = f"http://{_bracketed(address.host)}:{address.port}"
        self._adapter = EngineAdapter(address, self._lines, POOLED_CONNECTIONS)
        self._agreement = agreement or Agreement()
        self._client: docker.APIClient | None = None
        self._closed = threading.Event()

    def call(self, name: str, deadline: Deadline | float, question: Callable[[docker.APIClient], T]) -> T:
        """Run `question` within the deadline (seconds) and return its result.

        `name` is a key of `CALLS`. `question` sends the request and reads the answer; an error of `UNREADABLE_ERRORS`
        in it counts as an unreadable answer. Raises `Unavailable` for silence, `TemporaryAnswer`, `FinalAnswer` when
        the daemon refuses `GET /version`, and docker's `APIError` for a final answer, which the caller maps.
        """
        allowed = deadline if isinstance(deadline, Deadline) else Deadline(deadline)
        client = self._agreed_client()
        return self._answer(name, allowed, lambda: question(client))

    def answer(self, name: str, deadline: Deadline | float, question: Callable[[docker.APIClient], T]) -> T:
        """Like `call`, but raises `FinalAnswer` for every final answer."""
        try:
            return self.call(name, deadline, question)
        except APIError as error:
            raise self.refused(name, error) from error

    def version(self) -> Mapping[str, Any]:
        """Fetch the daemon's version document and update the agreed API version.

        Raises as `call`, but `FinalAnswer` for a final answer.
        """
        allowed = Deadline(self.deadlines.ping_s)
        try:
            found = self._answer("version", allowed, lambda: _version(self._new_client(NEWEST)))
        except APIError as error:
            raise self.refused("version", error) from error
        self._agreement.read(found)
        return found

    @property
    def connections_made(self) -> int:
        """Number of sockets created so far; while it is unchanged, the same daemon or HTTP proxy answers."""
        return self._lines.begun

    def refused(self, name: str, error: APIError, *, request: str = "") -> FinalAnswer:
        """Return the error for a final answer to `name`; `request` replaces the request of the table in the message."""
        message = f"Docker at {self.host} {answered(name, error, request)}"
        if not (remedy := forbidden(name, error, request)):
            return FinalAnswer("docker", message)
        found = FinalAnswer("docker", f"{message}; {remedy}")
        found.remedy = IN_MESSAGE
        return found

    def temporary(self, name: str, rule: str, reply: str) -> TemporaryAnswer:
        """Return the error for a temporary answer to `name`; `reply` is text from `answered`."""
        call = CALLS[name]
        found = TemporaryAnswer(
            "docker",
            f"Docker at {self.host} {reply}",
            answer=f"{name}: {rule}",
            code=call.code or ErrorCode.INTERNAL_ERROR,
        )
        found.untouched = not call.changes
        return found

    def _answer(self, name: str, allowed: Deadline, send: Callable[[], T]) -> T:
        """Run `send` and map its exceptions by the tables of `answers`."""
        try:
            with failpoints.around(f"docker.{name}"), self._lines.allowing(allowed):
                return send()
        except APIError as error:
            # In Docker's form the text may be a registry's or an image's.
            if self._may_expect_tls and not explanation(error.response)[1] and (hint := expects_tls(causes(error))):
                self._forget()
                raise self.unavailable(hint, has_remedy=True) from error
            what, rule = meaning(name, error)
            if what is Meaning.FINAL:
                raise
            self._forget()
            found = (
                self._cannot_serve(answered(name, error))
                if what is Meaning.SILENCE
                else self.temporary(name, rule, answered(name, error))
            )
            if rule in NOT_DOCKERS:
                found.remedy = "check that Docker runs there, and that no proxy answers in its place"
            raise found from error
        except (RequestException, HTTPError) as error:
            self._forget()
            if is_unreadable(error) and not self._closed.is_set():  # closing truncates answers
                raise self._unreadable(name, error) from error
            raise self._no_answer(name, error, allowed) from error
        except RuntimeManagerError:
            raise
        except UNREADABLE_ERRORS as error:
            self._forget()
            raise self._unreadable(name, error) from error

    def breakable(self, call: Call) -> AbstractContextManager[None]:
        """Let `call` abort, from another thread, the requests that this thread sends inside the block."""
        return self._lines.breakable(call)

    def _unreadable(self, name: str, error: Exception) -> TemporaryAnswer:
        reply = bounded(str(error) if isinstance(error, Unreadable) else repr(error), 200)
        what = f"answered `{CALLS[name].request}` with content that cannot be read ({reply})"
        found = self.temporary(
            name, UNREADABLE, f"{what}; check that Docker runs there, and no proxy answers in its place"
        )
        found.remedy = IN_MESSAGE
        return found

    def pause(self, seconds: float) -> None:
        """Wait before the next poll of the daemon; raises `Unavailable` at once when the client is closed."""
        if self._closed.wait(seconds):
            raise self.unavailable("this client was closed")

    def hang_up(self) -> None:
        """Abort the calls in flight; later calls dial anew."""
        self._lines.hang_up()

    def close(self) -> None:
        """Abort the calls in flight with `Unavailable`, reject new ones, and close every connection."""
        self._closed.set()
        self._lines.cut()
        self._adapter.close()

    def unavailable(self, why: str, *, has_remedy: bool = False, untouched: bool = False) -> Unavailable:
        """Return the error for silence; `why` names the cause, and with `has_remedy` the remedy too."""
        if self._closed.is_set():
            why = f"Docker at {self.host}: the call was ended, this service is stopping"
        else:
            why = f"Docker at {self.host} does not answer: {why}"
        found = Unavailable("docker", why, untouched=untouched)
        found.remedy = IN_MESSAGE if has_remedy else None
        return found

    def _cannot_serve(self, reply: str) -> Unavailable:
        if self._closed.is_set():
            return self.unavailable(reply)
        return Unavailable("docker", f"Docker at {self.host} cannot serve now, it {reply}")

    def _agreed_client(self) -> docker.APIClient:
        """Return the client for the agreed API version. Two threads may both create one, which does no harm."""
        client = self._client
        if client is None:
            try:
                client = self._client = self._new_client(self._agreement.version or agreed(self.version()))
            except NoCommonVersion as error:
                unusable = Unavailable("docker", f"Docker at {self.host} cannot be used: {error}", untouched=True)
                unusable.remedy = IN_MESSAGE
                raise unusable from error
            except Unreadable as error:
                unreadable = self._unreadable("version", error)
                unreadable.untouched = True
                raise unreadable from error
            except Unavailable as error:
                error.untouched = True
                raise
        return client

    def _forget(self) -> None:
        """Drop the agreed API version: another daemon may answer the next call."""
        self._client = self._agreement.version = None

    def _new_client(self, api_version: str) -> docker.APIClient:
        if self._closed.is_set():
            raise self.unavailable("closed")
        return EngineClient(self._base_url, api_version, self._adapter)

    def _no_answer(self, name: str, error: Exception, allowed: Deadline) -> Unavailable:
        tls = [each for each in causes(error) if isinstance(each, TlsFailed)]
        if tls:
            why = reason(tls[-1])
        elif self._may_expect_tls and (hint := expects_tls(causes(error))):
            why = hint
        elif timed_out(error):
            waited_s = min(allowed.silence_s, allowed.begin_s or allowed.total_s)
            waited = f"nothing within {waited_s:g} s to `{CALLS[name].request}`"
            why = f"{waited}; look for a stuck container, or restart Docker"
        else:
            why = f"{reason(error)}; {remedy(error)}"
        return self.unavailable(why, has_remedy=True, untouched=never_connected(error))


def _version(client: docker.APIClient) -> Mapping[str, Any]:
    found = client.version(api_version=False)
    if not isinstance(found, dict):
        raise Unreadable("its answer to /version is no JSON object")
    return found


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
