"""A routed request: the input of the endpoint handlers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.game import check_game_id
from rtmanager.domain.operation import OpSource
from rtmanager.http.messages import invalid


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request: its path's game, its query, its body, its sender and its request id."""

    game_id: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    source: OpSource = OpSource.ADMIN_REST
    #: The sender's name; empty where it gave none.
    caller: str = ""
    request_id: str = ""


def checked_game_id(context: RequestContext) -> str:
    """The path's game id. Raises `HttpError` when it is malformed."""
    try:
        return check_game_id(context.game_id)
    except InvalidValue as error:
        raise invalid(str(error)) from error
