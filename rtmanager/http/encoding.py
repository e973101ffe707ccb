"""Records as JSON, and the place in a list as an opaque text."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime

from rtmanager.domain.game import check_game_id, shown
from rtmanager.domain.record import RuntimeRecord
from rtmanager.http.messages import invalid


def encode_record(record: RuntimeRecord) -> dict[str, str | None]:
    """All twelve fields, null where there is nothing (contract, "REST")."""
    return {
        "game_id": record.game_id,
        "status": record.status.value,
        "current_container_id": record.current_container_id,
        "current_image_ref": record.current_image_ref,
        "engine_endpoint": record.engine_endpoint,
        "state_path": record.state_path,
        "docker_network": record.docker_network,
        "started_at": _time(record.started_at),
        "stopped_at": _time(record.stopped_at),
        "removed_at": _time(record.removed_at),
        "last_op_at": _time(record.last_op_at),
        "created_at": _time(record.created_at),
    }


def encode_cursor(game_id: str) -> str:
    """The place after a game, for a client to hand back as it is."""
    return urlsafe_b64encode(game_id.encode()).decode().rstrip("=")


def decode_cursor(text: str) -> str:
    """The game that a page begins after. Raises `Refused` for what `encode_cursor` did not make."""
    try:
        game_id = check_game_id(urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
        if encode_cursor(game_id) == text:  # the decoder passes over what is not of its alphabet
            return game_id
        fault = "has more than a cursor in it"
    except ValueError:
        fault = "is none"
    raise invalid(f"cursor {shown(text)} {fault}: expected next_cursor of an earlier answer")


def _time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    if moment is None:
        return None
    moment = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return moment.replace(tzinfo=None).isoformat() + "Z"
