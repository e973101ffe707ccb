"""Redis Streams in memory: one consumer group over the inputs, outputs that remember their message ids.

The semantics are those of `adapters/redis_streams`; both pass `rtmanager.tests.streams_contract`. The fake can also be
flushed, fail over to a copy without acknowledgements, and refuse single streams.
"""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rtmanager.domain.jobs import (
    CUT_FIELDS,
    CUT_NAME_BYTES,
    CUT_VALUE_BYTES,
    ENTRY_BYTES,
    ENTRY_FIELDS,
    INPUT_STREAMS,
    KNOWN_FIELDS,
    STREAM_ORDER,
    Batch,
    Entry,
    EntryId,
    Excess,
)
from rtmanager.domain.messages import Stream, epoch_ms
from rtmanager.fakes.fault_injector import FaultInjector, call
from rtmanager.ports.clock import Clock
from rtmanager.ports.streams import DueMessage, Published, StaleFencingToken, Trimmed

START = EntryId(0, 0)
#: Bytes of one read; it may exceed them by one entry.
BUDGET_BYTES = 256 * 1024

Pairs = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class _Stream:
    """Entries in the order of their ids, and the state of the consumer group."""

    ids: list[EntryId] = field(default_factory=list)
    entries: dict[EntryId, Entry] = field(default_factory=dict)
    top: EntryId = START
    last_given: EntryId = START
    pending: dict[EntryId, None] = field(default_factory=dict)
    #: The position of each other group, by its name: the group has acknowledged all entries before it.
    others: dict[str, EntryId] = field(default_factory=dict)


def _after(entry_id: EntryId) -> EntryId:
    """The next id with the same time, as Redis assigns it when its clock stands still or goes back."""
    return EntryId(entry_id.milliseconds, entry_id.sequence + 1)


class MemoryStreams:
    """One Redis for any number of instances; `names` holds the streams' names in errors."""

    def __init__(self, clock: Clock, names: Mapping[Stream, str] | None = None) -> None:
        self.trouble = FaultInjector("redis")
        self._clock = clock
        self._names = names or {stream: stream.value for stream in Stream}
        self._arrived = threading.Condition(self.trouble.lock)
        self._interrupts = 0
        self._refused: dict[Stream, str] = {}
        self.flush()

    # --- the world beside the ports

    def flush(self) -> None:
        """Delete everything: entries, the group, and the ids and the lease number that publishing remembers."""
        with self.trouble.lock:
            self._streams = {stream: _Stream() for stream in Stream}
            self._remembered: set[str] = set()
            self._latest_lease = 0

    def add(self, stream: Stream, fields: Mapping[str, str], entry_id: EntryId | None = None) -> EntryId:
        """Add an entry as `XADD` does. Raises `ValueError` for an explicit id that is not above all earlier ones."""
        return self.add_pairs(stream, [(name.encode(), value.encode()) for name, value in fields.items()], entry_id)

    def add_pairs(self, stream: Stream, pairs: Pairs, entry_id: EntryId | None = None) -> EntryId:
        """As `add`, with names that may repeat."""
        with self.trouble.lock:
            content = self._streams[stream]
            entry_id = entry_id or max(EntryId(epoch_ms(self._clock()), 0), _after(content.top))
            if entry_id <= content.top:
                raise ValueError(f"{entry_id} is not above {content.top}")
            content.top = entry_id
            content.ids.append(entry_id)
            content.entries[entry_id] = _read(stream, entry_id, pairs)
            self._arrived.notify_all()
            return entry_id

    def delete(self, stream: Stream, entry_id: EntryId) -> None:
        """Delete an entry, even a pending one."""
        with self.trouble.lock:
            self._streams[stream].ids.remove(entry_id)
            del self._streams[stream].entries[entry_id]

    def entries(self, stream: Stream) -> list[Mapping[str, str]]:
        """The fields of every entry, in order."""
        with self.trouble.lock:
            return [self._streams[stream].entries[entry_id].fields for entry_id in self._streams[stream].ids]

    def lose_acknowledgements(self) -> None:
        """Fail over to a copy without acknowledgements: all delivered entries are pending again."""
        with self.trouble.lock:
            for stream in INPUT_STREAMS:
                content = self._streams[stream]
                content.pending = dict.fromkeys(i for i in content.ids if i <= content.last_given)

    def refuse(self, stream: Stream, reason: str) -> None:
        """Refuse reads and writes of this stream; an empty reason ends the refusal."""
        with self.trouble.lock:
            self._refused[stream] = reason

    def remember(self, text: str) -> None:
        """Remember a message as Redis does: by its key, or by its id alone as an older release does."""
        with self.trouble.lock:
            self._remembered.add(text)

    def add_group(self, stream: Stream, name: str, reached: EntryId) -> None:
        """Add another group, which has acknowledged all entries before `reached`."""
        with self.trouble.lock:
            self._streams[stream].others[name] = reached

    # --- reading

    def wait(self, timeout_s: float) -> bool:
        """See the port."""
        with self._arrived:
            self.trouble.enter("wait")
            before = self._interrupts
            self._arrived.wait_for(lambda: self._new() or self._interrupts != before, timeout_s)
            return self._new()

    def interrupt(self) -> None:
        """End every `wait` that is under way."""
        with self._arrived:
            self._interrupts += 1
            self._arrived.notify_all()

    @call
    def read(self, limit: int) -> Sequence[Batch]:
        """See the port."""
        taken: dict[Stream, list[Entry]] = {stream: [] for stream in INPUT_STREAMS}
        given = {stream: self._orphans(self._streams[stream]) for stream in INPUT_STREAMS}
        drained, open_, budget = set[Stream](), set(INPUT_STREAMS), BUDGET_BYTES
        for stream in INPUT_STREAMS:
            if self._refused.get(stream):
                open_.remove(stream)
                drained.add(stream)
        while open_:
            stream = min(
                open_, key=lambda each: taken[each][-1].position if taken[each] else (START, STREAM_ORDER[each])
            )
            if taken[stream] and budget <= 0:
                break
            entry = self._next(stream, given[stream]) if len(taken[stream]) < limit else None
            if entry is None:
                open_.remove(stream)
                if len(taken[stream]) < limit:
                    drained.add(stream)
            else:
                taken[stream].append(entry)
                budget -= sum(len(name) + len(value) for name, value in entry.fields.items())
        return [Batch(taken[s], drained=s in drained, refused=self._refused.get(s, "")) for s in INPUT_STREAMS]

    @call
    def give_again(self, after: Mapping[Stream, EntryId]) -> Mapping[Stream, EntryId]:
        """See the port."""
        given = {stream: self._streams[stream].last_given for stream in after}
        beyond = {stream: last for stream, last in given.items() if last > after[stream]}
        for stream in beyond:
            self._streams[stream].last_given = after[stream]
        return beyond

    @call
    def give_all_again(self) -> Mapping[Stream, EntryId]:
        """See the port."""
        contents = {stream: self._streams[stream] for stream in INPUT_STREAMS}
        beyond = {stream: each.last_given for stream, each in contents.items() if each.last_given > each.top}
        for stream in beyond:
            contents[stream].last_given = START
        return beyond

    def set_last_id(self, stream: Stream, entry_id: EntryId) -> None:
        """Set the last id of a stream, as `XSETID` does; no entry may be above it."""
        with self.trouble.lock:
            self._streams[stream].top = entry_id

    @call
    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """See the port."""
        for entry in entries:
            self._streams[entry.stream].pending.pop(entry.entry_id, None)

    @call
    def trim(self, stream: Stream, *, older_than: EntryId | None, durable: EntryId, limit: int) -> Trimmed:
        """See the port."""
        content = self._streams[stream]
        if not content.ids and content.last_given == START:
            return Trimmed()
        own = min([*content.pending, content.last_given])
        bound, holder = min([(own, "rtmanager"), (durable, "rtmanager"), *((r, n) for n, r in content.others.items())])
        young = older_than or START
        old = [entry_id for entry_id in content.ids if entry_id < min(bound, young)][:limit]
        for entry_id in old:
            content.ids.remove(entry_id)
            del content.entries[entry_id]
        held = bound < young and bool(content.ids) and content.ids[0] < young
        return Trimmed(len(old), min([*content.ids[:1], own]), holder if held else "")

    def _new(self) -> bool:
        contents = (self._streams[stream] for stream in INPUT_STREAMS)
        return any(content.ids and content.ids[-1] > content.last_given for content in contents)

    def _next(self, stream: Stream, given: list[EntryId]) -> Entry | None:
        """The next entry: the oldest of `given` (pending), then the new ones."""
        content = self._streams[stream]
        if given:
            return content.entries[given.pop(0)]
        place = bisect_right(content.ids, content.last_given)
        if place == len(content.ids):
            return None
        content.last_given = content.ids[place]
        content.pending[content.last_given] = None
        return content.entries[content.last_given]

    def _orphans(self, content: _Stream) -> list[EntryId]:
        """The pending entries; deleted ones are dropped from the group."""
        for entry_id in [i for i in content.pending if i not in content.entries]:
            del content.pending[entry_id]
        return sorted(content.pending)

    # --- writing

    @call
    def publish(self, lease: int, messages: Sequence[DueMessage], by_id: Collection[int] = ()) -> Published:
        """See the port."""
        if lease < self._latest_lease:
            raise StaleFencingToken(self._latest_lease)
        self._latest_lease = lease
        ids, refused = [], {}
        for due in messages:
            stream = due.message.stream
            if self._refused.get(stream):
                refused[self._names[stream]] = self._refused[stream]
                continue
            older = due.message_id in by_id and str(due.message_id) in self._remembered
            if not older and due.key not in self._remembered:
                self._remembered.add(due.key)
                self.add(stream, due.message.fields)
            ids.append(due.message_id)
        return Published(ids, refused)

    @call
    def remembered(self) -> set[int]:
        """See the port."""
        return {int(key.partition(":")[0]) for key in self._remembered}

    @call
    def forget(self, message_ids: Sequence[int]) -> None:
        """See the port."""
        self._remembered = {key for key in self._remembered if int(key.partition(":")[0]) not in message_ids}


def _read(stream: Stream, entry_id: EntryId, pairs: Pairs) -> Entry:
    """The entry as Redis returns it; one that is too large has only the beginnings of some fields."""
    size = sum(len(name) + len(value) for name, value in pairs)
    if size <= ENTRY_BYTES and len(pairs) <= ENTRY_FIELDS:
        return Entry.of(stream, entry_id, pairs)
    known = {name.encode() for name in KNOWN_FIELDS}
    kept: dict[bytes, bytes] = {}
    repeated: dict[bytes, None] = {}
    for name, value in pairs:
        if name in kept:
            repeated[name] = None
        elif name in known or len(kept.keys() - known) < CUT_FIELDS:
            kept[name] = value
    cut = [(name[:CUT_NAME_BYTES], value[:CUT_VALUE_BYTES]) for name, value in kept.items()]
    excess = Excess(size, len(pairs), hashlib.sha1(repr(pairs).encode()).hexdigest())
    return Entry.of(stream, entry_id, cut, repeated=[*repeated], excess=excess)
