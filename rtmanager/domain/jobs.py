"""Turns entries of the input streams into requests, and orders entries across the streams.

A malformed entry never blocks a stream and never passes without a trace (contract, "Streams in"). If it names a game it
becomes an operation that fails, in the order of the game's other operations. Otherwise it becomes a dead letter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rtmanager.domain.errors import ErrorCode, InvalidValue
from rtmanager.domain.game import MAX_READABLE_LENGTH, check_game_id, shown
from rtmanager.domain.image_ref import MAX_LENGTH, parse_image_ref
from rtmanager.domain.messages import Message, Stream, dead_letter
from rtmanager.domain.operation import OpKind, OpSource, Request, StopReason

#: Separates the name of a request from what distinguishes it from an earlier one with the same entry id.
DUPLICATE_ID_MARK = "#"

#: Longest time in milliseconds, in digits: it still fits a 64 bit integer.
_MAX_DIGITS = 18

#: Limits of an entry: the bytes of all its names and values, and the number of its fields. A larger one is malformed.
ENTRY_BYTES = 64 * 1024
ENTRY_FIELDS = 128
#: What is read of an entry that is too large: the beginnings of the known fields and of so many others. Every valid
#: value is shorter than a beginning, so no cut value becomes valid.
CUT_VALUE_BYTES = 1024
CUT_NAME_BYTES = 128
CUT_FIELDS = 32


def check_reason(text: str) -> StopReason:
    """Parse the reason of a stop. Raises `InvalidValue`."""
    try:
        return StopReason(text)
    except ValueError:
        raise InvalidValue(f"reason {shown(text)}: expected one of {', '.join(StopReason)}") from None


@dataclass(frozen=True, slots=True)
class JobStream:
    """How the entries of one input stream are read; each of `checks` tests one field and raises `InvalidValue`."""

    kind: OpKind
    checks: Mapping[str, Callable[[str], object]]
    #: The error code of a job whose game or field is malformed.
    malformed: ErrorCode


#: The one table of the input streams, in the order of entries that have one id: of two, the start comes first.
JOB_STREAMS: Mapping[Stream, JobStream] = {
    Stream.START_JOBS: JobStream(OpKind.START, {"image_ref": parse_image_ref}, ErrorCode.START_CONFIG_INVALID),
    Stream.STOP_JOBS: JobStream(OpKind.STOP, {"reason": check_reason}, ErrorCode.INVALID_REQUEST),
}
INPUT_STREAMS = tuple(JOB_STREAMS)
STREAM_ORDER = {stream: rank for rank, stream in enumerate(JOB_STREAMS)}
#: The fields of the contract, which are read from an entry of any size.
KNOWN_FIELDS = ("game_id", *(name for each in JOB_STREAMS.values() for name in each.checks), "requested_at_ms")


class EntryId(NamedTuple):
    """A stream entry's id; compares as Redis orders entries."""

    milliseconds: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> EntryId:
        """Parse Redis's `ms-seq` form."""
        milliseconds, _, sequence = text.partition("-")
        return cls(int(milliseconds), int(sequence))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"


@dataclass(frozen=True, slots=True)
class Excess:
    """The size and digest of an entry that is too large, of which only the beginnings of some fields were read."""

    size: int
    fields: int
    digest: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as read; bytes that are not UTF-8 are escaped (`\\xff`).

    `fields` has the last of several fields with one name. `repeated` has the names that occur more than once. `size` is
    the bytes of all names and values.
    """

    stream: Stream
    entry_id: EntryId
    fields: Mapping[str, str]
    repeated: tuple[str, ...] = ()
    size: int = 0
    excess: Excess | None = None

    @classmethod
    def of(
        cls,
        stream: Stream,
        entry_id: EntryId,
        pairs: Sequence[tuple[bytes, bytes]],
        *,
        repeated: Sequence[bytes] = (),
        excess: Excess | None = None,
    ) -> Entry:
        """Build an entry from Redis's names and values: all of them, or with `excess` the beginnings of some."""
        fields: dict[str, str] = {}
        twice = dict.fromkeys(map(_text, repeated))
        size = 0
        for raw_name, raw_value in pairs:
            name = _text(raw_name)
            size += len(raw_name) + len(raw_value)
            if name in fields and excess is None:
                twice[name] = None
            fields[name] = _text(raw_value)
        return cls(stream, entry_id, fields, tuple(twice), excess.size if excess else size, excess)

    @property
    def position(self) -> tuple[EntryId, int]:
        """The entry's position in the common order of both streams."""
        return (self.entry_id, STREAM_ORDER[self.stream])

    @property
    def digest(self) -> str:
        """A short digest of the content: a stream that lost its ids may give one id to another entry."""
        if self.excess is not None:
            return self.excess.digest
        return hashlib.sha256(json.dumps(sorted(self.fields.items())).encode()).hexdigest()[:16]


def _text(raw: bytes) -> str:
    """Decode UTF-8 and escape everything else, NUL included: PostgreSQL cannot store it."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


@dataclass(frozen=True, slots=True)
class Job:
    """An entry and what it becomes: a request, or a dead letter."""

    entry: Entry
    becomes: Request | Message


def letter_of(entry: Entry, stream_name: str, reason: str) -> Message:
    """Return the dead letter of an entry for this reason."""
    return dead_letter(
        stream_name,
        str(entry.entry_id),
        entry.fields,
        reason,
        size=entry.size,
        digest=entry.digest,
        shortened=entry.excess is not None,
    )


def read_job(entry: Entry, stream_name: str) -> Job:
    """Turn an entry into a job; `stream_name` is the stream's name in Redis."""
    game_id = entry.fields.get("game_id", "")
    unreadable = _why_unreadable(game_id, entry.repeated)
    if unreadable:
        letter = letter_of(entry, stream_name, unreadable)
        return Job(entry, letter)
    job_stream = JOB_STREAMS[entry.stream]
    image_ref, reason = (
        _bounded(entry.fields.get(name, "")) if name in job_stream.checks else "" for name in ("image_ref", "reason")
    )
    request = Request(
        game_id=game_id,
        kind=job_stream.kind,
        source=OpSource.LOBBY_STREAM,
        source_ref=f"{stream_name}:{entry.entry_id}",
        image_ref=image_ref,
        reason=reason,
        problem=_problem(job_stream, entry),
    )
    return Job(entry, request)


def _bounded(text: str) -> str:
    """Cut a field: no valid one is longer, and a row should not hold a megabyte of invalid text."""
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}…"


def _why_unreadable(game_id: str, repeated: Sequence[str]) -> str:
    if "game_id" in repeated:
        return "the entry has more than one game_id, so nobody can be answered"
    if not game_id:
        return "the entry has no game_id, so nobody can be answered"
    if len(game_id) > MAX_READABLE_LENGTH or not game_id.isprintable():
        return f"game_id {shown(game_id)} cannot be the name of a game, so nobody can be answered"
    return ""


def _problem(job_stream: JobStream, entry: Entry) -> tuple[ErrorCode, str] | None:
    """Return the first error of a job that names a game; None when it is valid."""
    fields = entry.fields
    if entry.repeated:
        return (
            ErrorCode.INVALID_REQUEST,
            f"the field {shown(entry.repeated[0])} is given more than once: expected each field once",
        )
    requested_at = fields.get("requested_at_ms", "")
    try:
        check_game_id(fields["game_id"])
        for name, check in job_stream.checks.items():
            check(fields.get(name, ""))
    except InvalidValue as error:
        return job_stream.malformed, str(error)
    if not (requested_at.isascii() and requested_at.isdigit() and len(requested_at) <= _MAX_DIGITS):
        return (
            ErrorCode.INVALID_REQUEST,
            f"requested_at_ms {shown(requested_at)}: expected milliseconds since 1970 as a whole number",
        )
    if entry.excess is not None:
        return (
            ErrorCode.INVALID_REQUEST,
            f"the entry has {entry.excess.size} bytes in {entry.excess.fields} fields: expected at most {ENTRY_BYTES} "
            f"bytes in {ENTRY_FIELDS} fields",
        )
    return None


@dataclass(frozen=True, slots=True)
class Batch:
    """The entries of one read from one stream, in order; `drained` if the stream had no more at that moment.

    `refused` is why the stream cannot be read: its key is not a stream.
    """

    entries: Sequence[Entry]
    drained: bool
    refused: str = ""


def ready_entries(batches: Iterable[Batch]) -> list[Entry]:
    """Return the entries that may be accepted now, in their common order; the rest waits for a later read.

    An entry is ready when no earlier one can still come from another stream. A drained stream cannot bring an earlier
    one: ids grow with the server's clock, and one command reads both streams. Any other stream can, up to the last id
    it returned.
    """
    batches = list(batches)
    horizons = [batch.entries[-1].position for batch in batches if not batch.drained]
    entries = sorted((entry for batch in batches for entry in batch.entries), key=lambda entry: entry.position)
    return [entry for entry in entries if all(entry.position <= horizon for horizon in horizons)]
