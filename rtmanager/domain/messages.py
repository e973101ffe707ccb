"""The entries of the output streams; all fields are strings.

A stream is named by its role here; the configuration has its name in Redis.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.health import HealthEvent

PRODUCER = "runtime_manager"
AUDIENCE = "admin_email"
#: Takes the game's place in the idempotency key of a summary.
SUMMARY = "summary"
#: Prefix of the relay's own keys in Redis: its last lease, and what it has published.
OUTBOX_PREFIX = "rtmanager:outbox:"

#: Bounds of external content: characters of one text, fields of one `details`.
TEXT_LENGTH = 4000
DETAIL_FIELDS = 32
#: Bounds of a dead letter: fields, bytes of one name and of one value, characters in all.
LETTER_FIELDS = 36
LETTER_NAME_BYTES = 128
LETTER_VALUE_BYTES = 1024
LETTER_LENGTH = 64 * 1024


class Stream(StrEnum):
    """The streams of the contract by role."""

    START_JOBS = "start_jobs"
    STOP_JOBS = "stop_jobs"
    JOB_RESULTS = "job_results"
    HEALTH_EVENTS = "health_events"
    NOTIFICATION_INTENTS = "notification_intents"
    DEAD_LETTERS = "dead_letters"


#: The failures for which a notification is requested, and its type.
INTENT_OF: Mapping[ErrorCode, str] = {
    ErrorCode.IMAGE_PULL_FAILED: "runtime.image_pull_failed",
    ErrorCode.CONTAINER_START_FAILED: "runtime.container_start_failed",
    ErrorCode.START_CONFIG_INVALID: "runtime.start_config_invalid",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One entry for an output stream."""

    stream: Stream
    fields: Mapping[str, str]


def epoch_ms(moment: datetime) -> int:
    """Return milliseconds since 1970, the time format of the streams."""
    return round(moment.timestamp() * 1000)


def job_result(
    game_id: str, *, container_id: str | None, endpoint: str, code: ErrorCode | None, message: str
) -> Message:
    """The result of a job. A code is a failure, except that of a replay."""
    failed = code is not None and code is not ErrorCode.REPLAY_NO_OP
    fields = {
        "game_id": game_id,
        "outcome": "failure" if failed else "success",
        "container_id": container_id or "",
        "engine_endpoint": endpoint,
        "error_code": code or "",
        "error_message": bounded_text(message),
    }
    return Message(Stream.JOB_RESULTS, fields)


def health_message(event: HealthEvent) -> Message:
    """The entry that publishes a health event."""
    fields = {
        "game_id": event.game_id,
        "container_id": event.container_id,
        "event_type": event.event_type.value,
        "occurred_at_ms": str(epoch_ms(event.occurred_at)),
        "details": json.dumps(_bounded(event.details), separators=(",", ":")),
    }
    return Message(Stream.HEALTH_EVENTS, fields)


def intent(
    code: ErrorCode,
    *,
    game_id: str,
    image_ref: str,
    message: str,
    source_ref: str,
    attempted_at: datetime,
    now: datetime,
) -> Message:
    """The request to notify an administrator of a failed start; `code` must be a key of `INTENT_OF`.

    The idempotency key is the same for every retry of one request, so that one mail is sent.
    """
    notification_type = INTENT_OF[code]
    payload = {
        "game_id": game_id,
        "image_ref": bounded_text(image_ref),
        "error_code": code.value,
        "error_message": bounded_text(message),
        "attempted_at_ms": epoch_ms(attempted_at),
    }
    fields = {
        "notification_type": notification_type,
        "producer": PRODUCER,
        "audience_kind": AUDIENCE,
        "idempotency_key": f"{PRODUCER}:{notification_type}:{game_id}:{source_ref}",
        "occurred_at_ms": str(epoch_ms(now)),
        "payload_json": json.dumps(payload, separators=(",", ":")),
    }
    return Message(Stream.NOTIFICATION_INTENTS, fields)


def intents_summary(
    notification_type: str, *, left_out: int, first: Mapping[str, str], began_at: datetime, now: datetime
) -> Message:
    """One request that replaces the intents of a type that were left out in a minute; `first`: fields of the first one.

    Its idempotency key differs from every other intent's: those name the game and the request.
    """
    payload = _payload_of(first)
    others = "more failure" if left_out == 1 else "more failures"
    payload["error_message"] = bounded_text(
        f"{left_out} {others} of this kind in the minute from {began_at:%Y-%m-%dT%H:%M:%SZ}, above the limit of "
        f"RTMANAGER_INTENTS_PER_MINUTE, without a notification each; the first was game {payload.get('game_id')}: "
        f"{payload.get('error_message')}"
    )
    fields = {
        "notification_type": notification_type,
        "producer": PRODUCER,
        "audience_kind": AUDIENCE,
        "idempotency_key": f"{PRODUCER}:{notification_type}:{SUMMARY}:{epoch_ms(began_at)}",
        "occurred_at_ms": str(epoch_ms(now)),
        "payload_json": json.dumps(payload, separators=(",", ":")),
    }
    return Message(Stream.NOTIFICATION_INTENTS, fields)


def _payload_of(fields: Mapping[str, str]) -> dict[str, object]:
    """Return the payload of an intent; empty for one that an earlier release cut off because of its size."""
    try:
        payload = json.loads(fields.get("payload_json", ""))
    except (ValueError, TypeError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


def limited_type(message: Message) -> str | None:
    """Return the type of an intent, for the limit per minute; None for a summary and for other messages."""
    if message.stream is not Stream.NOTIFICATION_INTENTS:
        return None
    notification_type = message.fields.get("notification_type", "")
    key = message.fields.get("idempotency_key", "")
    end = key.removeprefix(f"{PRODUCER}:{notification_type}:{SUMMARY}:")
    return None if end != key and ":" not in end else notification_type


def dead_letter(
    stream: str,
    entry_id: str,
    fields: Mapping[str, str],
    reason: str,
    *,
    size: int = 0,
    digest: str = "",
    shortened: bool = False,
) -> Message:
    """An entry that names no game, kept with its origin so that a person can correct it.

    It keeps the beginning of each of the first fields. If that is not all, `size` (bytes) and `digest` describe the
    whole entry. `shortened`: only beginnings were read.
    """
    kept, room = {}, LETTER_LENGTH
    for name, value in islice(fields.items(), LETTER_FIELDS):
        name, value = (name, value) if shortened else (_cut(name, LETTER_NAME_BYTES), _cut(value, LETTER_VALUE_BYTES))
        room -= len(name) + len(value)
        if room < 0:
            break
        kept[name] = value
    letter = {
        "stream": stream,
        "entry_id": entry_id,
        "reason": reason,
        "fields": json.dumps(kept, separators=(",", ":"), ensure_ascii=False),
    }
    if shortened or kept != fields:
        letter |= {"size": str(size), "digest": digest}
    return Message(Stream.DEAD_LETTERS, letter)


def _cut(text: str, size: int) -> str:
    """Return the longest prefix that fits into `size` bytes."""
    return text if len(text) * 4 <= size else text.encode()[:size].decode(errors="ignore")


def bounded_text(text: str) -> str:
    """Bound an external text for a message."""
    return text if len(text) <= TEXT_LENGTH else f"{text[:TEXT_LENGTH]}… ({len(text)} characters)"


def _bounded(value: object) -> object:
    """Bound every text in a value of `details`."""
    if isinstance(value, str):
        return bounded_text(value)
    if isinstance(value, Mapping):
        return {str(name): _bounded(each) for name, each in islice(value.items(), DETAIL_FIELDS)}
    if isinstance(value, list | tuple):
        return [_bounded(each) for each in islice(value, DETAIL_FIELDS)]
    return value
