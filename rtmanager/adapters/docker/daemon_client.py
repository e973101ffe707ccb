"""One Docker engine that may be away: every call has a deadline, and every answer is read by the tables of `answers`.

Nothing is connected before the first call, and nothing is kept that an engine's restart would spoil: after a
call without an answer the API version is agreed on again, since another engine may answer next.
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

#: Connections kept open between calls; more callers than that open their own and close them again.
POOLED_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that the engine has for an answer; a small host starts no more than 7 containers a second."""

    #: `ping`, and agreeing on the API version: small, since readiness asks.
    ping_s: float = 5.0
    #: Reading one thing: a container, an image, the networks. A container's lock is held while it starts.
    query_s: float = 20.0
    #: Reading the end of a log: a crash is told without it when it takes longer.
    log_s: float = 3.0
    #: Listing all containers.
    list_s: float = 30.0
    create_s: float = 60.0
    start_s: float = 90.0
    #: Beyond the grace time of a stop: the kill, and the engine's own wait of 10 s for its effect.
    stop_margin_s: float = 20.0
    #: Removing a container, and waiting while somebody else does.
    remove_s: float = 60.0


class DaemonClient:
    """The SDK's client for one Docker host; safe for many threads."""

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

    def ask(self, name: str, deadline: Deadline | float, question: Callable[[docker.APIClient], T]) -> T:
        """What the engine answers within the allowance (seconds).

        `name` is what is asked for, a key of `CALLS`. `question` also reads the answer: what it raises for content that
        is not Docker's counts as an answer that cannot be read. Raises `Unavailable` for silence, `TemporaryAnswer`,
        `FinalAnswer` when the engine does not tell its version, and docker's `APIError` for a final answer, which the
        caller reads.
        """
        allowed = deadline if isinstance(deadline, Deadline) else Deadline(deadline)
        client = self._agreed_client()
        return self._answer(name, allowed, lambda: question(client))

    def answer(self, name: str, deadline: Deadline | float, question: Callable[[docker.APIClient], T]) -> T:
        """As `ask`, of something that the engine has no reason to refuse: `FinalAnswer` for a final answer."""
        try:
            return self.ask(name, deadline, question)
        except APIError as error:
            raise self.refused(name, error) from error

    def version(self) -> Mapping[str, Any]:
        """The engine's own description, asked for anew. Raises as `ask`, but `FinalAnswer` for a final answer."""
        allowed = Deadline(self.deadlines.ping_s)
        try:
            found = self._answer("version", allowed, lambda: _version(self._new_client(NEWEST)))
        except APIError as error:
            raise self.refused("version", error) from error
        self._agreement.read(found)
        return found

    @property
    def connections_made(self) -> int:
        """How many connections were begun so far; the same number means that the same engine answers."""
        return self._lines.begun

    def refused(self, name: str, error: APIError, *, request: str = "") -> FinalAnswer:
        """The error for a final answer to the call `name`; `request` where it was another one than the table's."""
        message = f"Docker at {self.host} {answered(name, error, request)}"
        if not (remedy := forbidden(name, error, request)):
            return FinalAnswer("docker", message)
        found = FinalAnswer("docker", f"{message}; {remedy}")
        found.remedy = IN_MESSAGE
        return found

    def temporary(self, name: str, rule: str, said: str) -> TemporaryAnswer:
        """The error for a temporary answer to the call `name`, as `answered` words it."""
        call = CALLS[name]
        found = TemporaryAnswer(
            "docker",
            f"Docker at {self.host} {said}",
            answer=f"{name}: {rule}",
            code=call.code or ErrorCode.INTERNAL_ERROR,
        )
        found.untouched = not call.changes
        return found

    def _answer(self, name: str, allowed: Deadline, ask: Callable[[], T]) -> T:
        """What `ask` returns, or the error that its answer, or none, is."""
        try:
            with failpoints.around(f"docker.{name}"), self._lines.allowing(allowed):
                return ask()
        except APIError as error:
            # In Docker's form the words may be a registry's or an image's.
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
            if is_unreadable(error) and not self._closed.is_set():  # closing cuts answers short
                raise self._unreadable(name, error) from error
            raise self._no_answer(name, error, allowed) from error
        except RuntimeManagerError:
            raise
        except UNREADABLE_ERRORS as error:
            self._forget()
            raise self._unreadable(name, error) from error

    def breakable(self, call: Call) -> AbstractContextManager[None]:
        """Let another thread break off, by `call`, what this one asks inside the block."""
        return self._lines.breakable(call)

    def _unreadable(self, name: str, error: Exception) -> TemporaryAnswer:
        said = bounded(str(error) if isinstance(error, Unreadable) else repr(error), 200)
        what = f"answered `{CALLS[name].request}` with content that cannot be read ({said})"
        found = self.temporary(
            name, UNREADABLE, f"{what}; check that Docker runs there, and no proxy answers in its place"
        )
        found.remedy = IN_MESSAGE
        return found

    def pause(self, seconds: float) -> None:
        """Let the engine do its work before asking again; `Unavailable` at once when closed."""
        if self._closed.wait(seconds):
            raise self.unavailable("this client was closed")

    def hang_up(self) -> None:
        """End the calls in flight; the next one dials anew."""
        self._lines.hang_up()

    def close(self) -> None:
        """End the calls in flight with `Unavailable`, refuse new ones, give back every connection."""
        self._closed.set()
        self._lines.cut()
        self._adapter.close()

    def unavailable(self, why: str, *, has_remedy: bool = False, untouched: bool = False) -> Unavailable:
        """The error for no answer; `why` names the cause, and with `has_remedy` what to do."""
        if self._closed.is_set():
            why = f"Docker at {self.host}: the call was ended, this service is stopping"
        else:
            why = f"Docker at {self.host} does not answer: {why}"
        found = Unavailable("docker", why, untouched=untouched)
        found.remedy = IN_MESSAGE if has_remedy else None
        return found

    def _cannot_serve(self, said: str) -> Unavailable:
        if self._closed.is_set():
            return self.unavailable(said)
        return Unavailable("docker", f"Docker at {self.host} cannot serve now, it {said}")

    def _agreed_client(self) -> docker.APIClient:
        """The client for the API version that both sides know. Two threads may find it at once; no harm."""
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
        """Agree anew before the next call: another engine may answer there."""
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
