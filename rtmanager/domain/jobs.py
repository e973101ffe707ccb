"""From an entry of an input stream to what RTM will do about it; and the order of entries across streams.

A malformed entry never blocks a stream and never passes in silence (contract, "Streams"): where it names a
game it becomes an operation that will answer with a failure, in its turn; where it does not, a dead letter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rtmanager.domain.errors import ErrorCode, InvalidValue
from rtmanager.domain.game import MAX_READABLE_LENGTH, check_game_id, shown
from rtmanager.domain.image_ref import MAX_LENGTH, parse_image_ref
from rtmanager.domain.messages import Message, Stream, dead_letter
from rtmanager.domain.operation import OpKind, OpSource, Request, StopReason

#: Of two entries with the same id on both streams, the start comes first.
RANK = {Stream.START_JOBS: 0, Stream.STOP_JOBS: 1}

#: Between the name of a request and what tells it from an earlier one whose entry had the same id.
AGAIN = "#"

#: A time in milliseconds that still fits a 64 bit integer has at most so many digits.
_MAX_DIGITS = 18


class EntryId(NamedTuple):
    """A stream entry's id; compares as Redis orders entries."""

    milliseconds: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> EntryId:
        """From Redis's own `ms-seq` form."""
        milliseconds, _, sequence = text.partition("-")
        return cls(int(milliseconds), int(sequence))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it was read; bytes that are no UTF-8 are escaped (`\\xff`), nothing is dropped."""

    stream: Stream
    entry_id: EntryId
    fields: Mapping[str, str]

    @property
    def position(self) -> tuple[EntryId, int]:
        """Where the entry stands in the one order over both streams."""
        return (self.entry_id, RANK[self.stream])

    @property
    def digest(self) -> str:
        """What it says, in short: a stream that was lost with its ids gives them again, to other entries."""
        return hashlib.sha256(json.dumps(sorted(self.fields.items())).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Job:
    """An entry and what becomes of it: a request, or a dead letter."""

    entry: Entry
    becomes: Request | Message


def read_job(entry: Entry, stream_name: str) -> Job:
    """What RTM does about an entry; `stream_name` is what its stream is called in Redis."""
    game_id = entry.fields.get("game_id", "")
    unreadable = _why_unreadable(game_id)
    if unreadable:
        return Job(entry, dead_letter(stream_name, str(entry.entry_id), entry.fields, unreadable))
    kind = OpKind.START if entry.stream is Stream.START_JOBS else OpKind.STOP
    request = Request(
        game_id=game_id,
        kind=kind,
        source=OpSource.LOBBY_STREAM,
        source_ref=f"{stream_name}:{entry.entry_id}",
        image_ref=_bounded(entry.fields.get("image_ref", "")) if kind is OpKind.START else "",
        reason=_bounded(entry.fields.get("reason", "")) if kind is OpKind.STOP else "",
        problem=_problem(kind, entry.fields),
    )
    return Job(entry, request)


def _bounded(text: str) -> str:
    """What is kept of a field: no valid one is longer, and a row is no place for a megabyte of nonsense."""
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}…"


def _why_unreadable(game_id: str) -> str:
    if not game_id:
        return "the entry has no game_id, so nobody can be answered"
    if len(game_id) > MAX_READABLE_LENGTH or not game_id.isprintable():
        return f"game_id {shown(game_id)} cannot be the name of a game, so nobody can be answered"
    return ""


def _problem(kind: OpKind, fields: Mapping[str, str]) -> tuple[ErrorCode, str] | None:
    """The first thing wrong with a job that names a game; None for a good one."""
    requested_at = fields.get("requested_at_ms", "")
    try:
        check_game_id(fields["game_id"])
        if kind is OpKind.START:
            parse_image_ref(fields.get("image_ref", ""))
    except InvalidValue as error:
        code = ErrorCode.START_CONFIG_INVALID if kind is OpKind.START else ErrorCode.INVALID_REQUEST
        return code, str(error)
    if kind is OpKind.STOP and fields.get("reason", "") not in set(StopReason):
        expected = ", ".join(StopReason)
        return (
            ErrorCode.INVALID_REQUEST,
            f"reason {shown(fields.get('reason', ''))}: expected one of {expected}",
        )
    if not (requested_at.isascii() and requested_at.isdigit() and len(requested_at) <= _MAX_DIGITS):
        return (
            ErrorCode.INVALID_REQUEST,
            f"requested_at_ms {shown(requested_at)}: expected milliseconds since 1970 as a whole number",
        )
    return None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read gave of one stream, in order; `drained` if the stream had no more at that moment."""

    entries: Sequence[Entry]
    drained: bool


def ready_entries(batches: Iterable[Batch]) -> list[Entry]:
    """The entries that may be taken over now, in their one order; the rest waits for a later read.

    An entry may go only when no earlier one can still come from another stream. A stream that gave all it had
    cannot bring an earlier one (ids grow with the server's clock, and both streams were read by one command);
    one that has more can, up to the last id it gave.
    """
    batches = list(batches)
    horizons = [batch.entries[-1].position for batch in batches if not batch.drained]
    entries = sorted((entry for batch in batches for entry in batch.entries), key=lambda entry: entry.position)
    return [entry for entry in entries if all(entry.position <= horizon for horizon in horizons)]
