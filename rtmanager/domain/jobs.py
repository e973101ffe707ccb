"""From an entry of an input stream to what RTM will do about it; and the order of entries across streams.

A malformed entry never blocks a stream and never passes in silence (contract, "Streams"): where it names a
game it becomes an operation that will answer with a failure, in its turn; where it does not, a dead letter.
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

#: Between the name of a request and what tells it from an earlier one whose entry had the same id.
DUPLICATE_ID_MARK = "#"

#: A time in milliseconds that still fits a 64 bit integer has at most so many digits.
_MAX_DIGITS = 18

#: A larger entry is malformed: the bytes of all its names and values, and the number of its fields.
ENTRY_BYTES = 64 * 1024
ENTRY_FIELDS = 128
#: What is read of an entry that is too large: the beginnings of the known fields and of so many others. No valid value
#: is as long as the beginning of one, so that nothing becomes valid by being cut off.
CUT_VALUE_BYTES = 1024
CUT_NAME_BYTES = 128
CUT_FIELDS = 32


def check_reason(text: str) -> StopReason:
    """The reason of a stop. Raises `InvalidValue`."""
    try:
        return StopReason(text)
    except ValueError:
        raise InvalidValue(f"reason {shown(text)}: expected one of {', '.join(StopReason)}") from None


@dataclass(frozen=True, slots=True)
class JobStream:
    """What the entries of one input stream ask for: `checks` are those of its fields, each raises `InvalidValue`."""

    kind: OpKind
    checks: Mapping[str, Callable[[str], object]]
    #: What a job is answered whose game or field is malformed.
    malformed: ErrorCode


#: The input streams, in the order of entries that have one id: of two, the start comes first.
JOB_STREAMS: Mapping[Stream, JobStream] = {
    Stream.START_JOBS: JobStream(OpKind.START, {"image_ref": parse_image_ref}, ErrorCode.START_CONFIG_INVALID),
    Stream.STOP_JOBS: JobStream(OpKind.STOP, {"reason": check_reason}, ErrorCode.INVALID_REQUEST),
}
INPUTS = tuple(JOB_STREAMS)
STREAM_ORDER = {stream: rank for rank, stream in enumerate(JOB_STREAMS)}
#: The fields of the contract, which are found in an entry of any size.
KNOWN_FIELDS = ("game_id", *(name for each in JOB_STREAMS.values() for name in each.checks), "requested_at_ms")


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
class Excess:
    """What an entry that is too large had in all, when only the beginnings of some fields were read."""

    size: int
    fields: int
    digest: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it was read; bytes that are no UTF-8 are escaped (`\\xff`).

    Of fields with one name `fields` has the last. `repeated` are the names that were given more than once, `size` the
    bytes of all names and values.
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
        """From names and values as they stand in Redis, all of them, or with `excess` the beginnings of some."""
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
        """Where the entry stands in the one order over both streams."""
        return (self.entry_id, STREAM_ORDER[self.stream])

    @property
    def digest(self) -> str:
        """What it says, in short: a stream that was lost with its ids gives them again, to other entries."""
        if self.excess is not None:
            return self.excess.digest
        return hashlib.sha256(json.dumps(sorted(self.fields.items())).encode()).hexdigest()[:16]


def _text(raw: bytes) -> str:
    """UTF-8 with everything else escaped; a NUL too, which PostgreSQL cannot store."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


@dataclass(frozen=True, slots=True)
class Job:
    """An entry and what becomes of it: a request, or a dead letter."""

    entry: Entry
    becomes: Request | Message


def letter_of(entry: Entry, stream_name: str, reason: str) -> Message:
    """The dead letter that an entry becomes for this reason."""
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
    """What RTM does about an entry; `stream_name` is what its stream is called in Redis."""
    game_id = entry.fields.get("game_id", "")
    unreadable = _why_unreadable(game_id, entry.repeated)
    if unreadable:
        letter = letter_of(entry, stream_name, unreadable)
        return Job(entry, letter)
    asked = JOB_STREAMS[entry.stream]
    image_ref, reason = (
        _bounded(entry.fields.get(name, "")) if name in asked.checks else "" for name in ("image_ref", "reason")
    )
    request = Request(
        game_id=game_id,
        kind=asked.kind,
        source=OpSource.LOBBY_STREAM,
        source_ref=f"{stream_name}:{entry.entry_id}",
        image_ref=image_ref,
        reason=reason,
        problem=_problem(asked, entry),
    )
    return Job(entry, request)


def _bounded(text: str) -> str:
    """What is kept of a field: no valid one is longer, and a row is no place for a megabyte of nonsense."""
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}…"


def _why_unreadable(game_id: str, repeated: Sequence[str]) -> str:
    if "game_id" in repeated:
        return "the entry has more than one game_id, so nobody can be answered"
    if not game_id:
        return "the entry has no game_id, so nobody can be answered"
    if len(game_id) > MAX_READABLE_LENGTH or not game_id.isprintable():
        return f"game_id {shown(game_id)} cannot be the name of a game, so nobody can be answered"
    return ""


def _problem(asked: JobStream, entry: Entry) -> tuple[ErrorCode, str] | None:
    """The first thing wrong with a job that names a game; None for a good one."""
    fields = entry.fields
    if entry.repeated:
        return (
            ErrorCode.INVALID_REQUEST,
            f"the field {shown(entry.repeated[0])} is given more than once: expected each field once",
        )
    requested_at = fields.get("requested_at_ms", "")
    try:
        check_game_id(fields["game_id"])
        for name, check in asked.checks.items():
            check(fields.get(name, ""))
    except InvalidValue as error:
        return asked.malformed, str(error)
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
    """What one read gave of one stream, in order; `drained` if the stream had no more at that moment.

    `refused` says why the stream can give nothing: its key is none of a stream.
    """

    entries: Sequence[Entry]
    drained: bool
    refused: str = ""


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
