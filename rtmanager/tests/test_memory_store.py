"""The fake store and streams pass the contracts of the real ones, and inject the requested faults."""

from __future__ import annotations

import unittest
from collections.abc import Mapping, Sequence
from datetime import datetime

from rtmanager.domain.errors import Unavailable
from rtmanager.domain.health import HealthSource, HealthStatus
from rtmanager.domain.jobs import EntryId
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import LogEntry
from rtmanager.domain.record import RuntimeRecord
from rtmanager.fakes.findings import MemoryFindings
from rtmanager.fakes.store import (
    ManualClock,
    MemoryDaemons,
    MemoryHistories,
    MemoryImages,
    MemoryInbox,
    MemoryOutbox,
    MemoryPurge,
    MemoryQueue,
    MemoryRecords,
    MemorySessionLock,
    MemoryStore,
)
from rtmanager.fakes.streams import MemoryStreams
from rtmanager.ports.store import ClaimLost, StoreRejected
from rtmanager.tests import findings_contract, purge_contract, store_contract, streams_contract
from rtmanager.tests.making import ended, job, request, start_fields


class StoreInMemory:
    """`MemoryStore` with the hooks of the contract."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.lease_s, self.grace_s = self.store.lease_s, self.store.grace_s

    def records(self) -> MemoryRecords:
        return self.store.records

    def queue(self, owner: int) -> MemoryQueue:
        queue = self.store.queue(owner)
        self.store.present.discard(owner)
        return queue

    def session_lock(self, owner: int) -> MemorySessionLock:
        return MemorySessionLock(self.store, owner)

    def inbox(self) -> MemoryInbox:
        return self.store.inbox

    def outbox(self) -> MemoryOutbox:
        return self.store.outbox

    def daemons(self) -> MemoryDaemons:
        return self.store.daemons

    def findings(self, owner: int) -> MemoryFindings:
        return MemoryFindings(self.store, owner)

    def histories(self) -> MemoryHistories:
        return MemoryHistories(self.store)

    def images(self) -> MemoryImages:
        return self.store.images

    def purge(self) -> MemoryPurge:
        return self.store.purge

    def now(self) -> datetime:
        return self.clock()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def put_record(self, record: RuntimeRecord) -> None:
        self.store.put_record(record)

    def log_rows(self) -> Sequence[LogEntry]:
        return self.store.log

    def snapshot(self, game_id: str) -> tuple[str, HealthStatus, HealthSource, Mapping[str, object]] | None:
        event = self.store.snapshots.get(game_id)
        return (event.container_id, event.status, event.source, event.details) if event else None


class InMemory:
    """Makes the store of a contract's test."""

    def make(self) -> StoreInMemory:
        return StoreInMemory()


class MemoryRecordsTest(InMemory, store_contract.RecordsContract):
    pass


class MemoryQueueTest(InMemory, store_contract.QueueContract):
    pass


class MemoryOwnershipTest(InMemory, store_contract.OwnershipContract):
    pass


class MemoryEndingTest(InMemory, store_contract.EndingContract):
    pass


class MemoryInboxTest(InMemory, store_contract.InboxContract):
    pass


class MemoryPurgeTest(InMemory, purge_contract.RowsContract):
    pass


class MemoryImagesTest(InMemory, purge_contract.ImagesContract):
    pass


class MemoryOutboxTest(InMemory, store_contract.OutboxContract):
    pass


class MemoryDaemonsTest(InMemory, store_contract.DaemonsContract):
    """The contract of the daemon on record."""


class MemoryIntentsTest(InMemory, store_contract.IntentsContract):
    pass


class MemoryFindingsTest(InMemory, findings_contract.FindingsContract):
    pass


class MemoryAlarmsTest(InMemory, findings_contract.AlarmsContract):
    pass


class MemoryWatchedRecordsTest(InMemory, findings_contract.WatchedRecordsContract):
    pass


class MemoryRestartsTest(InMemory, findings_contract.RestartsContract):
    pass


class MemoryTurnsTest(InMemory, findings_contract.TurnsContract):
    pass


class MemoryHistoriesTest(InMemory, findings_contract.HistoriesContract):
    pass


class StreamsInMemory:
    """`MemoryStreams` with the hooks of the contract; every instance shares the one object."""

    def __init__(self) -> None:
        self.streams = MemoryStreams(ManualClock())

    def reader(self) -> MemoryStreams:
        return self.streams

    def writer(self) -> MemoryStreams:
        return self.streams

    def trimming(self) -> MemoryStreams:
        return self.streams

    def add_group(self, stream: Stream, name: str, reached: EntryId) -> None:
        self.streams.add_group(stream, name, reached)

    def add_entry(self, stream: Stream, fields: Mapping[str, str]) -> EntryId:
        return self.streams.add(stream, fields)

    def add_pairs(
        self, stream: Stream, pairs: Sequence[tuple[bytes, bytes]], entry_id: EntryId | None = None
    ) -> EntryId:
        return self.streams.add_pairs(stream, pairs, entry_id)

    def delete_entry(self, stream: Stream, entry_id: EntryId) -> None:
        self.streams.delete(stream, entry_id)

    def set_last_id(self, stream: Stream, entry_id: EntryId) -> None:
        self.streams.set_last_id(stream, entry_id)

    def entries(self, stream: Stream) -> Sequence[Mapping[str, str]]:
        return self.streams.entries(stream)

    def remember(self, text: str) -> None:
        self.streams.remember(text)

    def flush(self) -> None:
        self.streams.flush()

    def refuse(self, stream: Stream) -> str:
        self.streams.refuse(stream, "WRONGTYPE in memory")
        return stream.value

    def mend(self, stream: Stream) -> None:
        self.streams.refuse(stream, "")


class MemoryReadingTest(streams_contract.ReadingContract):
    def make(self) -> StreamsInMemory:
        return StreamsInMemory()


class MemoryTrimmingTest(purge_contract.TrimmingContract):
    def make(self) -> StreamsInMemory:
        return StreamsInMemory()


class MemoryWritingTest(streams_contract.WritingContract):
    def make(self) -> StreamsInMemory:
        return StreamsInMemory()


class TroubleTest(unittest.TestCase):
    """An injected fault happens exactly when a test requests it."""

    def setUp(self) -> None:
        self.store = MemoryStore(ManualClock())
        self.queue = self.store.queue()

    def test_a_store_that_is_away_answers_nothing_and_changes_nothing(self) -> None:
        self.store.trouble.available = False
        for call in (
            lambda: self.store.records.get("g1"),
            lambda: self.queue.submit(request()),
            lambda: self.queue.claim(1),
            lambda: self.store.inbox.lock().__enter__(),
            lambda: self.store.outbox.lease().__enter__(),
        ):
            with self.assertRaises(Unavailable) as caught:
                call()
            self.assertEqual(caught.exception.dependency, "postgres")
        self.store.trouble.available = True
        self.assertEqual(list(self.queue.claim(1)), [])

    def test_the_nth_call_fails_undone(self) -> None:
        self.store.trouble.fail_call(2)
        self.queue.submit(request("g1"))
        with self.assertRaises(Unavailable):
            self.queue.submit(request("g2"))
        self.queue.submit(request("g3"))
        self.assertEqual([o.game_id for o in self.queue.claim(9)], ["g1", "g3"])

    def test_the_nth_call_is_done_and_its_answer_is_lost(self) -> None:
        self.store.trouble.fail_call(1, done=True)
        with self.assertRaises(Unavailable):
            self.queue.submit(request("g1"))
        self.assertEqual([o.game_id for o in self.queue.claim(9)], ["g1"])

    def test_a_lost_answer_hides_a_refusal_too(self) -> None:
        self.queue.submit(request("g1"))
        (operation,) = self.queue.claim(1)
        self.queue.finish(operation, ended())
        self.store.trouble.fail_call(1, done=True)
        with self.assertRaises(Unavailable):
            self.queue.finish(operation, ended())

    def test_a_commit_whose_answer_is_lost_is_durable(self) -> None:
        self.store.trouble.fail_call(3, done=True)  # begin, accept, commit
        with self.assertRaises(Unavailable), self.store.inbox.lock() as lock:
            assert lock is not None
            lock.accept([job(Stream.START_JOBS, 1)])
        self.assertEqual(len(self.queue.claim(9)), 1)
        with self.store.inbox.lock() as lock:
            self.assertIsNotNone(lock)

    def test_a_turn_that_the_database_ended_takes_nothing_over(self) -> None:
        with self.assertRaises(Unavailable), self.store.inbox.lock() as frozen:
            assert frozen is not None
            self.store.break_turns()
            with self.store.inbox.lock() as next_lock:
                self.assertIsNotNone(next_lock)
            frozen.accept([job(Stream.START_JOBS, 1)])
        self.assertEqual(list(self.queue.claim(9)), [])

    def test_endings_are_refused_as_often_as_requested(self) -> None:
        self.queue.submit(request("g1"))
        (operation,) = self.queue.claim(1)
        self.store.refuse_endings(1)
        with self.assertRaises(StoreRejected):
            self.queue.finish(operation, ended())
        self.queue.finish(operation, ended())
        with self.assertRaises(ClaimLost):
            self.queue.finish(operation, ended())

    def test_a_hook_sees_every_call_and_may_end_it(self) -> None:
        seen: list[str] = []
        self.store.trouble.before = seen.append
        with self.store.inbox.lock() as lock:
            assert lock is not None
            lock.accept([])
        self.queue.claim(1)
        self.assertEqual(seen, ["ingest.begin", "accept", "commit", "claim"])


class LosingStreamsTest(unittest.TestCase):
    def test_after_a_failover_that_lost_acknowledgements_everything_given_is_given_again(self) -> None:
        streams = MemoryStreams(ManualClock())
        streams.add(Stream.START_JOBS, start_fields("g1"))
        streams.acknowledge([e for batch in streams.read(10) for e in batch.entries])
        streams.add(Stream.START_JOBS, start_fields("g2"))
        streams.lose_acknowledgements()
        self.assertEqual([e.fields["game_id"] for batch in streams.read(10) for e in batch.entries], ["g1", "g2"])

    def test_ids_grow_though_the_clock_stands_or_goes_back(self) -> None:
        clock = ManualClock()
        streams = MemoryStreams(clock)
        ids = [streams.add(Stream.START_JOBS, {}) for _ in range(2)]
        clock.advance(-5)
        ids.append(streams.add(Stream.START_JOBS, {}))
        self.assertEqual(ids, sorted(set(ids)))
        with self.assertRaises(ValueError):
            streams.add(Stream.START_JOBS, {}, ids[0])
