"""The outbox relay: publishes the messages of committed transactions to Redis, in order, once.

A row is deleted after Redis has its message. When the deletion fails, the message is published again, and Redis, which
remembers its id, does not add it twice. Once the row is deleted for good, the id is removed from Redis.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from rtmanager.domain.errors import Unavailable
from rtmanager.domain.messages import limited_type
from rtmanager.ports.streams import DueMessage, IntentCount, Outbox, OutputStreams, RelayLease, StaleFencingToken
from rtmanager.workers.missed_leases import MissedLeases

#: Messages of one stream in one batch, and their bytes, which shrink to the least over a slow connection.
BATCH = 200
BATCH_BYTES = 128 * 1024
LEAST_BATCH_BYTES = 1024


class Relay:
    """One step publishes the messages that are due.

    `intents_per_minute` limits the intents of one type that are published within a minute (0: no limit). Those above
    the limit are only counted, in the transaction that deletes them from the outbox; when the minute is over, one
    summary replaces them. One instance publishes at a time, so counting here adds no cost to the end of an operation.

    `refused` is called with a stream's name for each attempt that Redis rejects while it accepts other streams. It is
    also called for each row of the outbox that cannot be read.
    """

    def __init__(
        self,
        outbox: Outbox,
        streams: OutputStreams,
        logger: logging.Logger,
        *,
        intents_per_minute: int = 0,
        refused: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._outbox = outbox
        self._leases = MissedLeases(outbox.holder)
        self._streams = streams
        self._logger = logger
        self._intents_per_minute = intents_per_minute
        self._batch_bytes = BATCH_BYTES
        self._limited = False
        self._tidy = False
        #: Messages that Redis may remember by their id alone: an earlier release published them.
        self._by_id: Collection[int] = ()
        self._last_lease = 0
        self._count_refusal = refused
        #: Why Redis rejects an output stream, by the stream's name.
        self.refused: Mapping[str, str] = {}
        #: The stream of each row of the outbox that is no message, by the row's id.
        self.unreadable: Mapping[int, str] = {}

    def step(self) -> bool:
        """Publish one batch; return whether more is due right now."""
        with self._outbox.lease() as lease:
            if lease is not None:
                self._leases.had()
                done = self._work(lease)
        if lease is None:
            self._report({}, {})  # the holder of the lease reports
            self._leases.missed()
            return False
        self._streams.forget(done)
        self._tidy = True
        return bool(done) or lease.summary_due

    def _work(self, lease: RelayLease) -> list[int]:
        """Work under the lease; return the ids that are out of the outbox when it ends."""
        # Another instance that had the lease since may be of an older release, and may have died while it had it.
        unknown = self._tidy and lease.number != self._last_lease + 1
        if not self._tidy:
            self._forget_leftovers(lease)
        self._last_lease = lease.number
        # Stays False until the rows are deleted for good and their ids forgotten, whatever fails in between.
        self._tidy = False
        if lease.summary_due:
            lease.intents_sent()
        return self._publish(lease, unknown=unknown)

    def _publish(self, lease: RelayLease, *, unknown: bool) -> list[int]:
        """Publish one batch; return the ids that are out of the outbox."""
        due = lease.due(BATCH, self._batch_bytes)
        if not due:
            self._report({}, lease.unreadable)
            return []
        if unknown:
            self._forget_leftovers(lease)
        above = self._above_limit(lease, due)
        try:
            messages = [each for each in due if each.message_id not in above]
            result = self._streams.publish(lease.number, messages, self._by_id)
        except StaleFencingToken as error:
            # This lease is PostgreSQL's latest, so a restore set its counter back. It also assigns message ids again,
            # and the ids that Redis remembers belong to other messages.
            self._logger.warning("outbox lease was behind", extra={"turn": lease.number, "latest": error.latest})
            lease.raise_number(error.latest)
            self._streams.forget(sorted(self._streams.remembered()))
            self._by_id = ()
            return []
        except Unavailable:
            self._batch_bytes = LEAST_BATCH_BYTES  # the connection may be slow
            raise
        self._batch_bytes = min(self._batch_bytes * 4, BATCH_BYTES)
        self._report(dict(result.refused), lease.unreadable)
        done = [*result.ids, *self._count(lease, due, above, result.ids)]
        lease.delete(done)
        return done

    def _above_limit(self, lease: RelayLease, due: Sequence[DueMessage]) -> set[int]:
        """The intents above the limit of this minute; never one that Redis already has."""
        if not self._intents_per_minute or not any(limited_type(each.message) is not None for each in due):
            return set()
        sent = dict(lease.intents_sent())
        above = set()
        for each in due:
            notification_type = limited_type(each.message)
            if notification_type is not None:
                sent[notification_type] = sent.get(notification_type, 0) + 1
                if sent[notification_type] > self._intents_per_minute:
                    above.add(each.message_id)
        # A relay that died between publishing and deleting may have published some of them, in another minute.
        return above - self._streams.remembered() if above else above

    def _count(
        self, lease: RelayLease, due: Sequence[DueMessage], above: set[int], published: Collection[int]
    ) -> Sequence[int]:
        """Count intents as sent or left out; return the ids of the latter.

        None is left out after one of the same batch that Redis rejected.
        """
        if not self._intents_per_minute:
            return []
        published = set(published)
        counts: dict[str, IntentCount] = {}
        left_out = []
        refused = False
        for each in due:
            notification_type = limited_type(each.message)
            if notification_type is None:
                continue
            count = counts.setdefault(notification_type, IntentCount())
            if each.message_id in published:
                count.sent += 1
            elif each.message_id in above and not refused:
                count.left_out.append(each.message)
                left_out.append(each.message_id)
            else:
                refused = True
        if counts:
            lease.count_intents(counts)
            if left_out and not self._limited:
                limit = self._intents_per_minute
                self._logger.warning("more intents than may be sent, the others are counted", extra={"limit": limit})
            self._limited = bool(left_out)
        return left_out

    def _forget_leftovers(self, lease: RelayLease) -> None:
        """Remove ids from Redis whose rows a relay deleted before it died."""
        remembered = self._streams.remembered()
        self._by_id = lease.still_waiting(sorted(remembered)) if remembered else set()
        self._streams.forget(sorted(remembered - self._by_id))

    def _report(self, refused: Mapping[str, str], unreadable: Mapping[int, str]) -> None:
        for message_id, stream in unreadable.items():
            if message_id not in self.unreadable:
                extra = {"stream": stream, "message_id": message_id}
                self._logger.error("a row of the outbox is no message and is left out", extra=extra)
            self._count_refusal(stream)
        self.unreadable = dict(unreadable)
        for stream, reason in refused.items():
            if self.refused.get(stream) != reason:
                self._logger.error("redis refuses an output stream", extra={"stream": stream, "error": reason})
            self._count_refusal(stream)
        self.refused = refused
