"""Decides who may send a request: by the client's address, and by the token of the header Authorization.

Without tokens every client is served, and `X-Galaxy-Caller` names it. A game's own container is refused in any case.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rtmanager.domain.access import Role, Tokens
from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.operation import OpSource
from rtmanager.http.messages import HttpError, Request, invalid
from rtmanager.ports.peers import Peer

#: Methods that change nothing.
READS = frozenset({"GET", "HEAD"})
#: RFC 9110, 11.4: the scheme ignores case, blanks follow it. Two header lines arrive as one, with a comma and a blank.
_BEARER = re.compile(r"bearer +([\x21-\x7e]+)", re.IGNORECASE)
#: Characters kept of an unproved name, and those that are replaced in it.
_LONGEST_NAME = 64
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: its name, if it has one, and the role of its token."""

    name: str = ""
    role: Role | None = None
    #: The source of its operations.
    source: OpSource = OpSource.ADMIN_REST


class Peers(Protocol):
    """What is known about the addresses of clients."""

    def peer(self, address: str, *, wait: bool) -> Peer:
        """Return what the address proves; with `wait` after a moment, if need be. Raises `Unavailable`."""
        ...


class Access:
    """Decides about each request. Thread-safe; `tokens` is None where none are configured."""

    def __init__(self, tokens: Callable[[], Tokens] | None = None, peers: Peers | None = None) -> None:
        self._tokens = tokens
        self._peers = peers

    def check_peer(self, request: Request, *, wait: bool) -> None:
        """Raise `HttpError`, 403, for a request from a game; without `wait` only for one that is known to be.

        An address that proves nothing is served with a token. Raises `Unavailable` where there are no tokens either.
        """
        if self._peers is None or not request.address:
            return
        try:
            peer = self._peers.peer(request.address, wait=wait)
        except Unavailable:
            if self._tokens is None:
                raise
            return
        if peer is Peer.GAME:
            raise invalid("games may not call this service: the request came from the address of a game", status=403)
        if peer is Peer.UNPROVED and wait and self._tokens is None:
            raise invalid(
                f"the request came from {request.address}, an address that a game may have: Docker knows no container "
                "that has it; call from a container that Docker lists, or set RTMANAGER_HTTP_TOKENS_DIR",
                status=403,
            )

    def caller(self, request: Request) -> Caller:
        """Return the sender. Raises `HttpError`: 401 without an accepted token."""
        if self._tokens is None:
            given = request.headers.get("x-galaxy-caller", "")
            source = OpSource.GM_REST if given == "gm" else OpSource.ADMIN_REST
            return Caller(_UNPRINTABLE.sub("?", given[:_LONGEST_NAME]), None, source)
        token = self._tokens().find(_bearer(request))
        if token is None:
            raise _unauthorized("its token is not accepted; is it one of RTMANAGER_HTTP_TOKENS_DIR, and not removed?")
        return Caller(token.caller, token.role, token.role.source or OpSource.ADMIN_REST)

    def check_right(self, request: Request, caller: Caller) -> None:
        """Raise `HttpError`, 403, when the caller's role does not allow the method."""
        if request.method not in READS and caller.role is not None and caller.role.source is None:
            raise invalid(
                f"the token of {caller.name} has role {caller.role}, which may only read: {request.method} needs a "
                f"token of role {Role.GM} or {Role.ADMIN}",
                status=403,
            )


def _bearer(request: Request) -> str:
    """Return the token of the header Authorization. Raises `HttpError` where there is none."""
    given = request.headers.get("authorization")
    if given is None:
        raise _unauthorized("the header Authorization is missing")
    match = _BEARER.fullmatch(given)
    if match is None:
        raise _unauthorized("the header Authorization is malformed")
    return match[1]


def _unauthorized(why: str) -> HttpError:
    """The error of a request without an accepted token; `why` has nothing of what was sent."""
    return HttpError(
        ErrorCode.INVALID_REQUEST,
        f"{why}; expected Authorization: Bearer TOKEN, once",
        status=401,
        headers={"WWW-Authenticate": "Bearer"},
    )
