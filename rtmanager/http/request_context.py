"""What a request means, once it is no longer HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.game import check_game_id
from rtmanager.domain.operation import OpSource
from rtmanager.http.messages import invalid


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request: its path's game, its query, who sent it and under which request id."""

    game_id: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    source: OpSource = OpSource.ADMIN_REST
    request_id: str = ""


def checked_game_id(context: RequestContext) -> str:
    """The path's game id. Raises `HttpError` when it cannot be one."""
    try:
        return check_game_id(context.game_id)
    except InvalidValue as error:
        raise invalid(str(error)) from error
