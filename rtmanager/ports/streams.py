"""What the workers need from Redis and from the store, as interfaces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from rtmanager.domain.errors import RuntimeManagerError
from rtmanager.domain.jobs import Batch, Entry, EntryId, Job
from rtmanager.domain.messages import Message, Stream


class InputStreams(Protocol):
    """The two streams of jobs, read as one consumer group. Every method may raise `Unavailable("redis", …)`."""

    def wait(self, timeout_s: float) -> bool:
        """Block until an entry is there that the group has not been given, or the time is over."""
        ...

    def read(self, limit: int) -> Sequence[Batch]:
        """One batch a stream: what the group was given and nobody acknowledged, then new entries.

        At most `limit` of each stream, and fewer when they are large; at least one of each stream that has any.
        """
        ...

    def give_again(self, after: Mapping[Stream, EntryId]) -> Mapping[Stream, EntryId]:
        """Let the group be given again what came after these entries; only where it has been given anything later.

        Returns the last entry that it had been given, of each of those streams.
        """
        ...

    def give_all_again(self) -> Mapping[Stream, EntryId]:
        """Let the group be given again all entries of each stream whose last id was set below what it was given.

        Entries that came under the ids between would never be given. Returns the last entry that it had been given.
        """
        ...

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """The entries are durable elsewhere; the group need not be given them again."""
        ...


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What became of the oldest entries of an input stream."""

    deleted: int = 0
    #: No entry before this one comes again; None: nothing is known.
    first: EntryId | None = None
    #: The consumer group that has not acknowledged entries that are old enough to be deleted.
    held_by: str = ""
    #: Why the server refuses this user to delete; then nothing was done.
    refused: str = ""


class InputTrimming(Protocol):
    """The deletion of old entries of the input streams. May raise `Unavailable("redis", …)`."""

    def trim(self, stream: Stream, *, older_than: EntryId | None, durable: EntryId, limit: int) -> Trimmed:
        """Delete about `limit` of the oldest entries: before `older_than`, and acknowledged by every consumer group.

        None is deleted from `durable` on, the highest entry that is durable here: those after it would be given again.
        Nothing is deleted of a stream without our group, or with `older_than` of None. Call it again until nothing is
        deleted.
        """
        ...


#: Where a pass over a table goes on; empty at its beginning.
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Purged:
    """One batch of a pass: how many rows were deleted, and where the pass goes on (None: it is over)."""

    deleted: int
    next: Place | None


class PurgeStore(Protocol):
    """Rows past their retention. `keep_s` and every age are by the store's clock. Raises `Unavailable("postgres", …)`.

    Each call goes through the next `limit` rows from `place` on, in the order of their acceptance.
    """

    def now(self) -> datetime:
        """The store's clock."""
        ...

    def latest(self) -> Mapping[Stream, EntryId]:
        """See `IngestLock.latest`."""
        ...

    def purge_operations(self, keep_s: float, below: Mapping[Stream, EntryId], *, place: Place, limit: int) -> Purged:
        """Delete operations that ended so long ago; one of an entry only when that is below its stream's `below`.

        Entries whose operation is deleted are forgotten: they are known when they come again. Waits for no ingest
        lock: while it is held, nothing is done and `next` is `place`.
        """
        ...

    def purge_dead_letters(self, keep_s: float, below: Mapping[Stream, EntryId], *, place: Place, limit: int) -> Purged:
        """The same for what is remembered of entries that name no game."""
        ...

    def purge_log(self, keep_s: float, *, place: Place, limit: int) -> Purged:
        """Delete rows of the operation log that ended so long ago."""
        ...


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image that the manager pulled: the reference as Docker finds it, and what that named then."""

    image_ref: str
    image_id: str


class PulledImages(Protocol):
    """What is remembered of pulled images, by daemon. Raises `Unavailable("postgres", …)`."""

    def pulled(self, daemon: str, image: PulledImage) -> None:
        """Remember that the manager pulled it."""
        ...

    def named(self) -> Collection[str]:
        """References, as they were given, of records that are not removed and of operations that have not ended."""
        ...

    def remembered(self, daemon: str) -> Sequence[str]:
        """The references of all images that the manager pulled there."""
        ...

    def unnamed(self, daemon: str, named: Collection[str], keep_s: float) -> Sequence[PulledImage]:
        """Note which of those remembered are not among `named`; those that have not been for so long."""
        ...

    def forget(self, daemon: str, image_ref: str) -> None:
        """It is not there any more, or not the one that was pulled."""
        ...


class IngestLock(Protocol):
    """The right to take over entries, held by one instance at a time."""

    @property
    def forgotten(self) -> int:
        """How many jobs accepted under this lock are known and forgotten: they came again, and change nothing."""
        ...

    def latest(self) -> Mapping[Stream, EntryId]:
        """The highest entry that is durable, of each stream of which there is any; a forgotten one is among them."""
        ...

    def accept(self, jobs: Sequence[Job]) -> None:
        """Make each job durable; a job that is known already, or forgotten, changes nothing.

        Another job under the id of a known one is not known: it becomes an operation of its own. Raises `StoreRejected`
        when the store will never take one of them; then nothing more can be done under this lock.
        """
        ...

    def accept_alone(self, job: Job) -> None:
        """The same for one job, after whose refusal the lock can still be used."""
        ...

    def require_room(self, job: Job) -> None:
        """Raise `StoreRejected` unless an operation like this job's would be taken for another game."""
        ...


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """A session that holds a lock: two that are equal are one session in one transaction, or without any."""

    session: str
    transaction: str
    like_manager: bool
    remedy: str


class Inbox(Protocol):
    """Where jobs become durable. Raises `Unavailable("postgres", …)`."""

    def holder(self) -> LeaseHolder | None:
        """Who holds the lock just now."""
        ...

    def lock(self) -> AbstractContextManager[IngestLock | None]:
        """The lock, or None while another instance has it; what was accepted is durable after the block."""
        ...


@dataclass(frozen=True, slots=True)
class DueMessage:
    """A message in the outbox; its key says whether Redis has it already."""

    message_id: int
    message: Message

    @property
    def key(self) -> str:
        """The id and a digest of the message: ids are given again by a store that was set back."""
        content = json.dumps([self.message.stream, dict(self.message.fields)], sort_keys=True)
        return f"{self.message_id}:{hashlib.sha1(content.encode()).hexdigest()[:16]}"


@dataclass(slots=True)
class IntentCount:
    """What became of the intents of one type: so many were sent, these were left out."""

    sent: int = 0
    left_out: list[Message] = field(default_factory=list)


class StaleFencingToken(RuntimeManagerError):
    """Redis knows of a later lease of the relay than the one that wanted to publish."""

    def __init__(self, latest: int) -> None:
        super().__init__(f"Redis has seen lease {latest} of the outbox relay already")
        self.latest = latest


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a batch: the messages that Redis has, and why a stream took none (by its name)."""

    ids: Sequence[int]
    refused: Mapping[str, str]


class OutputStreams(Protocol):
    """The streams that RTM writes. Every method may raise `Unavailable("redis", …)`."""

    def publish(self, lease: int, messages: Sequence[DueMessage], by_id: Collection[int] = ()) -> Published:
        """Add each message once, in order; one that was added before is not added again. Raises `StaleFencingToken`.

        Releases before this one remember an id alone. It counts for the messages of `by_id`.
        """
        ...

    def remembered(self) -> set[int]:
        """The ids of messages that were added and are not forgotten."""
        ...

    def forget(self, message_ids: Sequence[int]) -> None:
        """These messages are out of the outbox for good and will not be published again."""
        ...


class RelayLease(Protocol):
    """The right to publish, held by one instance at a time; its number only grows."""

    @property
    def number(self) -> int: ...

    @property
    def summary_due(self) -> bool:
        """Whether a minute is over in which intents were left out."""
        ...

    @property
    def unreadable(self) -> Mapping[int, str]:
        """What `due` left out since it is no message: the stream by the id."""
        ...

    def due(self, limit: int, size: int) -> Sequence[DueMessage]:
        """The oldest messages in order: of each stream up to `limit`, and as many as fit into `size` bytes, but one."""
        ...

    def delete(self, ids: Sequence[int]) -> None:
        """Forget messages that Redis has."""
        ...

    def still_waiting(self, ids: Sequence[int]) -> set[int]:
        """Which of these messages are still due."""
        ...

    def raise_number(self, above: int) -> None:
        """Let the next lease's number be greater than `above`."""
        ...

    def intents_sent(self) -> Mapping[str, int]:
        """How many intents of each type were sent in the type's present minute.

        A minute that is over is closed: if it left intents out, a summary of them becomes a due message.
        """
        ...

    def count_intents(self, counts: Mapping[str, IntentCount]) -> None:
        """Add to the present minute of each type; it begins with the first intent."""
        ...


class Outbox(Protocol):
    """Messages that a transaction promised. Raises `Unavailable("postgres", …)`."""

    def holder(self) -> LeaseHolder | None:
        """Who holds the lease just now."""
        ...

    def lease(self) -> AbstractContextManager[RelayLease | None]:
        """The lease, or None while another instance has it; what it deleted is gone after the block."""
        ...
