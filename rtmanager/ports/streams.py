"""Ports of the stream workers to Redis and to the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from rtmanager.domain.errors import RuntimeManagerError
from rtmanager.domain.jobs import Batch, Entry, EntryId, Job
from rtmanager.domain.messages import Message, Stream


class InputStreams(Protocol):
    """The input streams, read as one consumer group. Every method may raise `Unavailable("redis", …)`."""

    def wait(self, timeout_s: float) -> bool:
        """Block until an entry arrives that the group was not given, or the timeout ends; return whether one has."""
        ...

    def read(self, limit: int) -> Sequence[Batch]:
        """Return one batch per stream: delivered entries that are not acknowledged, then new entries.

        At most `limit` of each stream, and fewer when they are large; at least one of each stream that has any.
        """
        ...

    def give_again(self, after: Mapping[Stream, EntryId]) -> Mapping[Stream, EntryId]:
        """Have the entries after these delivered to the group again; only where a later one was delivered.

        Returns the last entry that was delivered before, of each of those streams.
        """
        ...

    def give_all_again(self) -> Mapping[Stream, EntryId]:
        """Have all entries delivered again, of each stream whose last id was set below the last delivered one.

        Otherwise entries with ids in between would never be delivered. Returns the last entry that was delivered
        before.
        """
        ...

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Acknowledge entries that are durable elsewhere, so that they are not delivered again."""
        ...


@dataclass(frozen=True, slots=True)
class Trimmed:
    """The result of one trim of an input stream."""

    deleted: int = 0
    #: No entry before this one is delivered again; None: unknown.
    first: EntryId | None = None
    #: The consumer group that has not acknowledged entries old enough to be deleted.
    held_by: str = ""
    #: Why the server denies deletion to this user; then nothing was done.
    refused: str = ""


class InputTrimming(Protocol):
    """Deletes old entries of the input streams. May raise `Unavailable("redis", …)`."""

    def trim(self, stream: Stream, *, older_than: EntryId | None, durable: EntryId, limit: int) -> Trimmed:
        """Delete about `limit` of the oldest entries before `older_than` that every consumer group has acknowledged.

        `durable` is the highest entry that is durable in the store. It and later ones are kept, because those after it
        would be delivered again. Nothing is deleted of a stream without the manager's group, or with `older_than` of
        None. Repeat the call until nothing is deleted.
        """
        ...


#: Where a pass over a table continues; empty at its beginning.
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Purged:
    """One batch of a pass: the number of rows deleted, and where the pass continues (None: it is over)."""

    deleted: int
    next: Place | None


class PurgeStore(Protocol):
    """Deletes rows past their retention. Raises `Unavailable("postgres", …)`.

    `keep_s` and every age are by the store's clock. Each call covers the next `limit` rows from `place` on, in the
    order of their acceptance.
    """

    def latest(self) -> Mapping[Stream, EntryId]:
        """See `IngestLock.latest`."""
        ...

    def first_young(self, stream: Stream, keep_s: float, since: EntryId, *, limit: int) -> EntryId | None:
        """Return an entry before which all from `since` on were accepted more than `keep_s` ago; None: all were.

        The call examines `limit` accepted entries, at least two, and returns the last of them if all are old. Ids do
        not count: a Redis whose clock was ahead once assigns ids in the future for ever.
        """
        ...

    def purge_operations(self, keep_s: float, below: Mapping[Stream, EntryId], *, place: Place, limit: int) -> Purged:
        """Delete operations that ended more than `keep_s` ago; one of an entry only below its stream's `below`.

        The highest ids of such entries are kept, so that an entry that is delivered again is known. An entry with an
        id between `keep_s` ago and a day ahead stays. The call does not wait for the ingest lock: while that is held,
        nothing is done and `next` is `place`.
        """
        ...

    def purge_dead_letters(self, keep_s: float, below: Mapping[Stream, EntryId], *, place: Place, limit: int) -> Purged:
        """As `purge_operations`, for the stored ids of entries that name no game."""
        ...

    def purge_log(self, keep_s: float, *, place: Place, limit: int) -> Purged:
        """Delete rows of the operation log that ended more than `keep_s` ago."""
        ...


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image that the manager pulled: the reference that Docker uses, and the image id at that time."""

    image_ref: str
    image_id: str


class PulledImages(Protocol):
    """The images that the manager pulled, by daemon. Raises `Unavailable("postgres", …)`."""

    def pulled(self, daemon: str, image: PulledImage) -> None:
        """Store that the manager pulled the image."""
        ...

    def named(self) -> Collection[str]:
        """Return the references, as given, of records that are not removed and of operations that have not ended."""
        ...

    def remembered(self, daemon: str) -> Sequence[str]:
        """Return the references of all images that the manager pulled on this daemon."""
        ...

    def unnamed(self, daemon: str, named: Collection[str], keep_s: float) -> Sequence[PulledImage]:
        """Store which pulled images are not in `named`; return those that have not been for `keep_s`."""
        ...

    def forget(self, daemon: str, image_ref: str) -> None:
        """Delete the entry: the image is gone, or is not the one that was pulled."""
        ...


class IngestLock(Protocol):
    """The right to accept entries, held by one instance at a time."""

    @property
    def forgotten(self) -> int:
        """How many jobs under this lock were delivered again after their purge; they change nothing."""
        ...

    def latest(self) -> Mapping[Stream, EntryId]:
        """Return the highest durable entry of each stream that has any, purged ones included."""
        ...

    def accept(self, jobs: Sequence[Job]) -> None:
        """Make each job durable; a known or purged job changes nothing.

        Another job with the id of a known one becomes an operation of its own. Raises `StoreRejected` when the store
        will never accept one of them; the lock is then unusable.
        """
        ...

    def accept_alone(self, job: Job) -> None:
        """As `accept`, for one job; the lock stays usable after `StoreRejected`."""
        ...

    def require_room(self, job: Job) -> None:
        """Raise `StoreRejected` unless the store would accept such a job for another game."""
        ...


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """A session that holds a lock; two equal ones are one session in one transaction, or without any."""

    session: str
    transaction: str
    like_manager: bool
    remedy: str


class Inbox(Protocol):
    """Where jobs become durable. Raises `Unavailable("postgres", …)`."""

    def holder(self) -> LeaseHolder | None:
        """Return the session that holds the lock at present."""
        ...

    def lock(self) -> AbstractContextManager[IngestLock | None]:
        """Take the lock; None while another instance has it. What was accepted is durable after the block."""
        ...


@dataclass(frozen=True, slots=True)
class DueMessage:
    """A message in the outbox; Redis recognises by its key whether it was added before."""

    message_id: int
    message: Message

    @property
    def key(self) -> str:
        """The id and a digest of the message: a store that was set back assigns ids again."""
        content = json.dumps([self.message.stream, dict(self.message.fields)], sort_keys=True)
        return f"{self.message_id}:{hashlib.sha1(content.encode()).hexdigest()[:16]}"


@dataclass(slots=True)
class IntentCount:
    """The intents of one type: how many were sent, and which were left out."""

    sent: int = 0
    left_out: list[Message] = field(default_factory=list)


class StaleFencingToken(RuntimeManagerError):
    """Redis has a later lease of the relay than the one that tries to publish."""

    def __init__(self, latest: int) -> None:
        super().__init__(f"Redis has seen lease {latest} of the outbox relay already")
        self.latest = latest


@dataclass(frozen=True, slots=True)
class Published:
    """The result of a batch: the messages that Redis has, and by stream name why one was rejected."""

    ids: Sequence[int]
    refused: Mapping[str, str]


class OutputStreams(Protocol):
    """The output streams. Every method may raise `Unavailable("redis", …)`."""

    def publish(self, lease: int, messages: Sequence[DueMessage], by_id: Collection[int] = ()) -> Published:
        """Add each message once, in order. Raises `StaleFencingToken`.

        Earlier releases stored an id alone, not the key. For the messages of `by_id` the id alone counts.
        """
        ...

    def remembered(self) -> set[int]:
        """Return the ids of messages that were added and not forgotten."""
        ...

    def forget(self, message_ids: Sequence[int]) -> None:
        """Forget messages that are deleted from the outbox and will not be published again."""
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
        """The rows that `due` left out because they are no messages: stream by id."""
        ...

    def due(self, limit: int, size: int) -> Sequence[DueMessage]:
        """Return the oldest messages in order: of each stream up to `limit`, within `size` bytes, but at least one."""
        ...

    def delete(self, ids: Sequence[int]) -> None:
        """Delete messages that Redis has."""
        ...

    def still_waiting(self, ids: Sequence[int]) -> set[int]:
        """Return which of these messages are still due."""
        ...

    def raise_number(self, above: int) -> None:
        """Make the next lease's number greater than `above`."""
        ...

    def intents_sent(self) -> Mapping[str, int]:
        """Return how many intents of each type were sent in the type's present minute.

        A minute that is over is closed: if intents were left out in it, a summary of them becomes a due message.
        """
        ...

    def count_intents(self, counts: Mapping[str, IntentCount]) -> None:
        """Add to the present minute of each type; it begins with the first intent."""
        ...


class Outbox(Protocol):
    """Messages that were committed with a transaction. Raises `Unavailable("postgres", …)`."""

    def holder(self) -> LeaseHolder | None:
        """Return the session that holds the lease at present."""
        ...

    def lease(self) -> AbstractContextManager[RelayLease | None]:
        """Take the lease; None while another instance has it. Deletions are durable after the block."""
        ...
