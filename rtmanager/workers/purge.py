"""Deletes what is past its retention: entries of the input streams, rows, and pulled images.

One instance makes one pass a period. It first deletes old entries that every consumer group has acknowledged. Then it
deletes the rows that recognise entries, only of entries that cannot be delivered again. A step is one batch and a
pause, so that a stop waits for one batch at most and other work has room.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from rtmanager.domain.jobs import EntryId
from rtmanager.domain.messages import Stream
from rtmanager.ports.streams import InputTrimming, Place, Purged, PurgeStore, Trimmed
from rtmanager.ports.watching import Leases

WORK = "purge"
#: Rows that one batch examines, and entries that it deletes.
BATCH = 500
#: Seconds between two batches.
PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Retentions:
    """Seconds for which each kind of data is kept; 0: for ever."""

    operations_s: float
    dead_letters_s: float
    input_streams_s: float
    operation_log_s: float


class Purge:
    """One step deletes one batch."""

    def __init__(
        self,
        *,
        streams: InputTrimming,
        store: PurgeStore,
        leases: Leases,
        keep: Retentions,
        period_s: float,
        deleted: Callable[[str, int], None],
        logger: logging.Logger,
        steady: Callable[[], bool] = lambda: True,
        images: Callable[[], Iterable[None]] = lambda: (),
        pause_s: float = PAUSE_S,
    ) -> None:
        """`steady`: whether the store's clock can be believed; nothing is deleted while it cannot."""
        self._streams = streams
        self._store = store
        self._leases = leases
        self._keep = keep
        self._period_s = period_s
        self._count = deleted
        self._logger = logger
        self._steady = steady
        self._images = images
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._pass: Iterator[None] | None = None
        #: What keeps entries from being deleted, by stream; logged when it changes.
        self._reported: dict[Stream, str] = {}

    def step(self) -> bool:
        """Delete one batch; return whether the pass has more. After `Unavailable` the next step begins a new pass."""
        if not self._steady() or not self._leases.mine(WORK, self._period_s):
            self._pass = None
            return False
        going_on, self._pass = self._pass or self._whole_pass(), None
        for _ in going_on:
            self._pass = going_on
            self._stopping.wait(self._pause_s)
            return True
        return False

    def interrupt(self) -> None:
        """End the present pause between two batches, and all later ones."""
        self._stopping.set()

    def _whole_pass(self) -> Iterator[None]:
        below: dict[Stream, EntryId] = {}
        for stream, durable in self._store.latest().items():
            yield from self._trim(stream, durable, below)
        keep = self._keep
        operations = partial(self._store.purge_operations, keep.operations_s, below)
        yield from self._purge("operations", keep.operations_s, operations)
        letters = partial(self._store.purge_dead_letters, keep.dead_letters_s, below)
        yield from self._purge("dead_letters", keep.dead_letters_s, letters)
        log = partial(self._store.purge_log, keep.operation_log_s)
        yield from self._purge("operation_log", keep.operation_log_s, log)
        yield from self._images()

    def _trim(self, stream: Stream, durable: EntryId, below: dict[Stream, EntryId]) -> Iterator[None]:
        """Delete old entries of a stream; note in `below` the first id that can be delivered again."""
        keep_s = self._keep.input_streams_s
        trimmed = self._streams.trim(stream, older_than=None, durable=durable, limit=BATCH)
        while keep_s and trimmed.first is not None:
            young = self._store.first_young(stream, keep_s, trimmed.first, limit=BATCH)
            trimmed = self._streams.trim(stream, older_than=young or durable, durable=durable, limit=BATCH)
            if not trimmed.deleted:
                break
            self._count(stream.value, trimmed.deleted)
            yield
        self._report(stream, trimmed)
        if trimmed.first is not None:
            below[stream] = trimmed.first

    def _purge(self, what: str, keep_s: float, batch: Callable[..., Purged]) -> Iterator[None]:
        place: Place | None = () if keep_s else None
        total = 0
        while place is not None:
            purged = batch(place=place, limit=BATCH)
            place = purged.next
            total += purged.deleted
            self._count(what, purged.deleted)
            yield
        if total:
            self._logger.info("deleted what is past its retention", extra={"table": what, "rows": total})

    def _report(self, stream: Stream, trimmed: Trimmed) -> None:
        """Log a warning, once, about what keeps old entries in a stream."""
        why = ""
        if trimmed.refused:
            why = f"Redis refuses it: {trimmed.refused}; remedy: ACL SETUSER <user> +xpending +xtrim"
        elif trimmed.held_by:
            why = (
                f"the consumer group {trimmed.held_by!r} has not acknowledged them; "
                "XINFO GROUPS shows it; if nobody needs it: XGROUP DESTROY"
            )
        if why and self._reported.get(stream) != why:
            self._logger.warning(
                "old entries of an input stream are not deleted", extra={"input": stream.value, "error": why}
            )
        self._reported[stream] = why
