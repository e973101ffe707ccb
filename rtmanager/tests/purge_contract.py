"""Contract tests of stores and streams for the deletion of old data; run against PostgreSQL, Redis and the fakes."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from rtmanager.domain.jobs import EntryId
from rtmanager.domain.messages import Stream, epoch_ms
from rtmanager.domain.record import Status
from rtmanager.ports.streams import InputTrimming, Place, PulledImage, PulledImages, PurgeStore, Trimmed
from rtmanager.ports.watching import Findings
from rtmanager.tests.making import ended, job, log_entry, record, request, start_fields
from rtmanager.tests.store_contract import StoreContract, StoreUnderTest
from rtmanager.tests.streams_contract import StreamsContract, StreamsUnderTest

START, STOP = Stream.START_JOBS, Stream.STOP_JOBS
HOUR_S = 3600.0
LATE = EntryId(2**63, 0)
YEAR_3000 = 32_503_680_000_000
BEGINNING: Place | None = ()


class PurgedStoreUnderTest(StoreUnderTest, Protocol):
    def purge(self) -> PurgeStore: ...

    def images(self) -> PulledImages: ...

    def findings(self, owner: int) -> Findings: ...


class RowsContract(StoreContract):
    """Rows past their retention are deleted; their entries are still recognised."""

    store: PurgedStoreUnderTest

    def setUp(self) -> None:
        super().setUp()
        self.purge = self.store.purge()

    def finish_all(self) -> None:
        while operations := self.queue.claim(10):
            for operation in operations:
                self.queue.finish(operation, ended(log=(log_entry(),)))

    def purge_operations(self, below: dict[Stream, EntryId] | None = None, *, limit: int = 100) -> int:
        bounds = {START: LATE, STOP: LATE} if below is None else below
        deleted, place = 0, BEGINNING
        while place is not None:
            purged = self.purge.purge_operations(HOUR_S, bounds, place=place, limit=limit)
            deleted, place = deleted + purged.deleted, purged.next
        return deleted

    def purge_letters(self, below: dict[Stream, EntryId], *, limit: int = 100) -> int:
        deleted, place = 0, BEGINNING
        while place is not None:
            purged = self.purge.purge_dead_letters(HOUR_S, below, place=place, limit=limit)
            deleted, place = deleted + purged.deleted, purged.next
        return deleted

    def claimed(self) -> list[str]:
        return [operation.game_id for operation in self.queue.claim(10)]

    def test_a_finished_operation_is_deleted_when_its_time_is_over_and_not_before(self) -> None:
        self.queue.submit(request("g1"))
        self.finish_all()
        self.store.pass_time(HOUR_S / 2)
        self.assertEqual(self.purge_operations(), 0)
        self.store.pass_time(HOUR_S)
        self.assertEqual((self.purge_operations(), self.purge_operations()), (1, 0))

    def test_an_operation_that_has_not_ended_stays_however_old_it_is(self) -> None:
        self.queue.submit(request("g1"))
        self.queue.submit(request("g2"))
        running = self.queue.claim(1)
        self.store.pass_time(100 * HOUR_S)
        self.assertEqual(self.purge_operations(), 0)
        self.assertEqual(len(running) + len(self.queue.claim(10)), 2)

    def test_one_whose_entry_can_come_again_stays(self) -> None:
        self.accept(job(START, 7), job(START, 8), job(STOP, 5))
        self.finish_all()
        self.store.pass_time(2 * HOUR_S)
        self.assertEqual(self.purge_operations({}), 0)
        self.assertEqual(self.purge_operations({START: EntryId(8, 0)}), 1)
        self.accept(job(START, 8), job(STOP, 5))
        self.assertEqual(self.claimed(), [])

    def test_an_entry_whose_operation_is_deleted_is_not_done_again(self) -> None:
        """Happens when Redis is restored from a copy, or the consumer group is created anew."""
        self.accept(job(START, 7), job(STOP, 8))
        self.finish_all()
        self.store.pass_time(2 * HOUR_S)
        self.assertEqual(self.purge_operations(), 2)
        with self.store.inbox().lock() as lock:
            assert lock is not None
            lock.accept([job(START, 7), job(STOP, 8), job(STOP, 9)])
            self.assertEqual(lock.forgotten, 2)
        self.assertEqual(len(self.queue.claim(10)), 1)

    def test_neither_are_those_before_it_nor_another_one_under_its_id(self) -> None:
        self.accept(job(START, 7))
        self.finish_all()
        self.store.pass_time(2 * HOUR_S)
        self.purge_operations()
        self.accept(job(START, 6), job(START, 7, start_fields("g2")))
        self.assertEqual(self.claimed(), [])

    def test_two_operations_of_one_id_are_deleted_together(self) -> None:
        self.accept(job(START, 7))
        self.accept(job(START, 7, start_fields("g2")))
        self.finish_all()
        self.store.pass_time(2 * HOUR_S)
        self.assertEqual(self.purge_operations(), 2)

    def test_the_latest_entry_is_known_when_no_row_is_left(self) -> None:
        """Otherwise ingest would treat entries as lost and read them again."""
        self.accept(job(START, 7), job(START, 9), job(START, 10, {"who": "nobody"}))
        self.finish_all()
        self.store.pass_time(2 * HOUR_S)
        self.assertEqual((self.purge_operations(), self.purge_letters({START: LATE})), (2, 1))
        self.assertEqual(self.purge.latest(), {START: EntryId(10, 0)})
        with self.store.inbox().lock() as lock:
            assert lock is not None
            self.assertEqual(lock.latest(), {START: EntryId(10, 0)})

    def test_the_latest_entry_is_the_highest_also_beside_an_old_operation_that_waits(self) -> None:
        self.accept(job(START, 7), job(START, 8, start_fields("g2")))
        waits = next(each for each in self.queue.claim(10) if each.request.source_ref.endswith("7-0"))
        self.queue.defer(waits, delay_s=10 * HOUR_S, why="for ever")
        self.queue.hand_back()
        self.finish_all()
        self.store.pass_time(2 * HOUR_S)
        self.purge_operations()
        self.assertEqual(self.purge.latest(), {START: EntryId(8, 0)})

    def ahead(self, seconds: float) -> int:
        return epoch_ms(self.store.findings(1).now()) + round(seconds * 1000)

    def test_an_entry_from_a_clock_that_was_far_ahead_is_deleted_by_its_acceptance_and_not_done_again(self) -> None:
        """Every later id of its stream is in the future, too."""
        letter = {"who": "nobody"}
        self.accept(job(START, YEAR_3000), job(START, YEAR_3000 + 1), job(START, YEAR_3000 + 2, letter))
        self.finish_all()
        self.assertEqual((self.purge_operations(), self.purge_letters({START: LATE})), (0, 0))
        self.store.pass_time(2 * HOUR_S)
        self.assertEqual((self.purge_operations(), self.purge_letters({START: LATE})), (2, 1))
        self.assertEqual(self.purge.latest(), {START: EntryId(YEAR_3000 + 2, 0)})
        with self.store.inbox().lock() as lock:
            assert lock is not None
            lock.accept([job(START, YEAR_3000), job(START, YEAR_3000 + 2, letter)])
            self.assertEqual(lock.forgotten, 2)
        self.assertEqual(self.claimed(), [])

    def test_new_jobs_of_a_redis_that_restarts_empty_with_the_correct_time_are_done(self) -> None:
        """They have lower ids than the one that was ahead, also when the clock differs a little."""
        self.accept(job(START, 7), job(START, YEAR_3000))
        self.finish_all()
        self.store.pass_time(2 * HOUR_S)
        self.assertEqual(self.purge_operations(), 2)
        ids = (9, self.ahead(-1), self.ahead(HOUR_S))
        self.accept(*(job(START, each, start_fields(f"g{n}")) for n, each in enumerate(ids)))
        self.accept(job(START, 7), job(START, self.ahead(2 * HOUR_S), {"who": "nobody"}))
        self.assertEqual(sorted(self.claimed()), ["g0", "g1", "g2"])
        self.assertEqual([each.stream for each in self.due()].count(Stream.DEAD_LETTERS), 1)

    def test_an_entry_that_is_less_than_a_day_ahead_stays_until_its_time_is_over(self) -> None:
        """A Redis that restarts empty with the correct time assigns lower ids."""
        self.accept(job(START, self.ahead(20 * HOUR_S)), job(START, self.ahead(20 * HOUR_S) + 1, {"who": "nobody"}))
        self.finish_all()
        self.store.pass_time(2 * HOUR_S)
        self.assertEqual((self.purge_operations(), self.purge_letters({START: LATE})), (0, 0))

    def first_young(self, since: int, *, limit: int = 100) -> int | None:
        found = self.purge.first_young(START, HOUR_S, EntryId(since, 0), limit=limit)
        return None if found is None else found.milliseconds

    def test_entries_are_old_by_their_acceptance_whatever_their_ids(self) -> None:
        self.accept(job(START, 7), job(START, 9, {"who": "nobody"}), job(STOP, 8))
        self.assertEqual([self.first_young(since) for since in (0, 7, 8, 10)], [7, 7, 9, None])
        self.store.pass_time(2 * HOUR_S)
        self.assertIsNone(self.first_young(0))
        self.accept(job(START, YEAR_3000), job(START, YEAR_3000 + 1))
        self.assertEqual(self.first_young(0), YEAR_3000)
        self.store.pass_time(2 * HOUR_S)
        self.assertIsNone(self.first_young(0))

    def test_a_limited_number_of_entries_is_examined(self) -> None:
        self.accept(*(job(START, n, start_fields(f"g{n}")) for n in range(1, 5)), job(START, 5, {"who": "nobody"}))
        self.store.pass_time(2 * HOUR_S)
        self.accept(job(START, 6))
        found = [self.first_young(since, limit=3) for since in (0, 3, 4)]
        self.assertEqual(found, [3, 5, 6])

    def test_an_entry_that_names_no_game_is_deleted_as_an_operation_is_and_is_no_letter_again(self) -> None:
        letters = [job(START, number, {"who": "nobody"}) for number in (7, 8, 9)]
        self.accept(*letters)
        self.assertEqual(self.purge_letters({START: LATE}), 0)
        self.store.pass_time(2 * HOUR_S)
        self.assertEqual((self.purge_letters({}), self.purge_letters({STOP: LATE})), (0, 0))
        self.assertEqual(self.purge_letters({START: EntryId(9, 0)}), 2)
        self.accept(*letters)
        self.assertEqual(len(self.due()), 3)

    def test_nothing_that_recognises_an_entry_is_deleted_while_entries_are_taken_over(self) -> None:
        self.accept(job(START, 7), job(START, 8, {"who": "nobody"}))
        self.finish_all()
        self.store.pass_time(2 * HOUR_S)
        place: Place = ()
        with self.store.inbox().lock():
            for purge in (self.purge.purge_operations, self.purge.purge_dead_letters):
                purged = purge(HOUR_S, {START: LATE}, place=place, limit=10)
                self.assertEqual((purged.deleted, purged.next), (0, place))
        self.assertEqual((self.purge_operations(), self.purge_letters({START: LATE})), (1, 1))

    def test_many_batches_delete_all_and_step_over_what_stays(self) -> None:
        self.accept(*(job(START, 10 + n, start_fields(f"g{n}")) for n in range(20)))
        self.accept(*(job(START, 40 + n, {"who": "nobody"}) for n in range(20)))
        kept = self.queue.claim(7)
        while operations := self.queue.claim(10):
            for operation in operations:
                self.queue.finish(operation, ended())
        self.store.pass_time(2 * HOUR_S)
        self.queue.heartbeat(kept)
        self.assertEqual(self.purge_operations(limit=3), 13)
        self.assertEqual(self.purge_letters({START: EntryId(50, 0)}, limit=3), 10)

    def test_old_rows_of_the_log_are_deleted_and_the_others_keep_their_pages(self) -> None:
        now = self.store.findings(1).now()
        for age in (3, 2, 0):
            self.queue.submit(request("g1"))
            (operation,) = self.queue.claim(1)
            self.queue.finish(operation, ended(log=(log_entry(finished_at=now - timedelta(hours=age)),)))
        deleted, place = 0, BEGINNING
        while place is not None:
            purged = self.purge.purge_log(HOUR_S, place=place, limit=1)
            deleted, place = deleted + purged.deleted, purged.next
        self.assertEqual(deleted, 2)
        self.assertEqual([row.finished_at for row in self.store.log_rows()], [now])


class ImagesContract(StoreContract):
    """Pulled images are recorded by daemon, with the time since which nothing names them."""

    store: PurgedStoreUnderTest

    def setUp(self) -> None:
        super().setUp()
        self.images = self.store.images()

    def test_an_image_is_due_when_nothing_has_named_it_for_long_enough(self) -> None:
        self.images.pulled("d1", PulledImage("a:1", "i1"))
        self.images.pulled("d1", PulledImage("b:1", "i2"))
        self.assertEqual(list(self.images.unnamed("d1", ["b:1"], HOUR_S)), [])
        self.store.pass_time(2 * HOUR_S)
        self.assertEqual(list(self.images.unnamed("d1", ["b:1"], HOUR_S)), [PulledImage("a:1", "i1")])
        self.assertEqual(list(self.images.unnamed("d1", [], HOUR_S)), [PulledImage("a:1", "i1")])

    def test_one_that_is_named_or_pulled_again_begins_anew(self) -> None:
        for again in ("named", "pulled"):
            with self.subTest(again):
                self.images.pulled("d1", PulledImage("a:1", "i1"))
                self.images.unnamed("d1", [], HOUR_S)
                self.store.pass_time(2 * HOUR_S)
                if again == "named":
                    self.images.unnamed("d1", ["a:1"], HOUR_S)
                else:
                    self.images.pulled("d1", PulledImage("a:1", "i2"))
                self.assertEqual(list(self.images.unnamed("d1", [], HOUR_S)), [])

    def test_an_image_of_another_daemon_is_none_of_this_one(self) -> None:
        self.images.pulled("d1", PulledImage("a:1", "i1"))
        self.assertEqual((list(self.images.remembered("d1")), list(self.images.remembered("d2"))), (["a:1"], []))
        self.images.unnamed("d2", [], HOUR_S)
        self.store.pass_time(2 * HOUR_S)
        self.assertEqual(list(self.images.unnamed("d2", [], HOUR_S)), [])

    def test_what_is_forgotten_is_due_no_more(self) -> None:
        self.images.pulled("d1", PulledImage("a:1", "i1"))
        self.images.forget("d1", "a:1")
        self.assertEqual(list(self.images.remembered("d1")), [])

    def test_records_that_are_not_removed_and_operations_that_have_not_ended_name_images(self) -> None:
        self.store.put_record(record("g1", Status.RUNNING, current_image_ref="running:1"))
        self.store.put_record(record("g2", Status.STOPPED, current_image_ref="stopped:1"))
        self.store.put_record(record("g3", Status.REMOVED, current_image_ref="removed:1"))
        self.accept(job(START, 7, start_fields("g4", image_ref="waiting:1")))
        self.assertEqual(set(self.images.named()), {"running:1", "stopped:1", "waiting:1"})
        (operation,) = self.queue.claim(10)
        self.queue.finish(operation, ended())
        self.assertEqual(set(self.images.named()), {"running:1", "stopped:1"})


class TrimmedStreamsUnderTest(StreamsUnderTest, Protocol):
    def trimming(self) -> InputTrimming: ...

    def add_group(self, stream: Stream, name: str, reached: EntryId) -> None:
        """Add another group, which has read and acknowledged the entries up to `reached`."""
        ...


class TrimmingContract(StreamsContract):
    """An input stream loses only entries that every group has acknowledged."""

    streams: TrimmedStreamsUnderTest

    def setUp(self) -> None:
        super().setUp()
        self.reader = self.streams.reader()
        self.trimming = self.streams.trimming()

    def add(self, count: int, stream: Stream = START) -> None:
        for number in range(1, count + 1):
            self.streams.add_pairs(stream, [(b"game_id", b"g%d" % number)], EntryId(number, 0))

    def take(self, *kept: int, limit: int = 1000) -> None:
        """Read all entries, and acknowledge all but the `kept` ones."""
        entries = [entry for batch in self.reader.read(limit) for entry in batch.entries]
        self.reader.acknowledge([entry for entry in entries if entry.entry_id.milliseconds not in kept])

    def trim(self, older_than: int | None = 10**6, durable: int = 10**6, limit: int = 100) -> Trimmed:
        young = None if older_than is None else EntryId(older_than, 0)
        return self.trimming.trim(START, older_than=young, durable=EntryId(durable, 0), limit=limit)

    def left(self) -> list[str]:
        return [fields["game_id"] for fields in self.streams.entries(START)]

    def test_what_is_acknowledged_and_old_is_deleted_but_for_the_last_one(self) -> None:
        self.add(4)
        self.take()
        trimmed = self.trim()
        self.assertEqual((trimmed.deleted, trimmed.first, trimmed.held_by), (3, EntryId(4, 0), "rtmanager"))
        self.assertEqual((self.left(), self.trim().deleted), (["g4"], 0))

    def test_what_is_young_stays(self) -> None:
        self.add(4)
        self.take()
        trimmed = self.trim(older_than=3)
        self.assertEqual((trimmed.deleted, trimmed.first, trimmed.held_by), (2, EntryId(3, 0), ""))
        self.assertEqual(self.left(), ["g3", "g4"])

    def test_an_entry_that_is_not_acknowledged_stays_with_all_behind_it(self) -> None:
        self.add(5)
        self.take(3)
        self.assertEqual((self.trim().deleted, self.left()), (2, ["g3", "g4", "g5"]))
        self.assertEqual([e.entry_id.milliseconds for batch in self.reader.read(10) for e in batch.entries], [3])

    def test_an_entry_that_was_never_given_stays(self) -> None:
        self.add(5)
        self.take(limit=2)
        self.assertEqual((self.trim().deleted, self.left()), (1, ["g2", "g3", "g4", "g5"]))
        self.take()
        self.assertEqual(self.trim().deleted, 3)

    def test_the_slowest_group_of_all_decides_and_is_named(self) -> None:
        self.add(5)
        self.take()
        self.streams.add_group(START, "audit", EntryId(3, 0))
        self.streams.add_group(START, "mirror", EntryId(4, 0))
        trimmed = self.trim()
        self.assertEqual((trimmed.deleted, trimmed.held_by), (2, "audit"))
        self.assertEqual(self.left(), ["g3", "g4", "g5"])

    def test_nothing_is_deleted_from_the_last_durable_entry_on(self) -> None:
        self.add(5)
        self.take()
        self.assertEqual((self.trim(durable=3).deleted, self.left()), (2, ["g3", "g4", "g5"]))

    def test_without_a_retention_nothing_is_deleted_and_the_first_entry_is_known(self) -> None:
        self.add(3)
        self.take()
        trimmed = self.trim(older_than=None)
        self.assertEqual((trimmed.deleted, trimmed.first, trimmed.held_by), (0, EntryId(1, 0), ""))

    def test_the_first_entry_of_a_stream_that_was_emptied_is_the_last_given_one(self) -> None:
        self.add(2)
        self.take()
        for number in (1, 2):
            self.streams.delete_entry(START, EntryId(number, 0))
        self.assertEqual(self.trim().first, EntryId(2, 0))

    def test_many_entries_are_deleted_in_batches(self) -> None:
        self.add(730)
        while entries := [entry for batch in self.reader.read(1000) for entry in batch.entries]:
            self.reader.acknowledge(entries)
        batches = []
        while deleted := self.trim(older_than=701).deleted:
            batches.append(deleted)
        self.assertEqual(sum(batches), 700)
        self.assertLessEqual(max(batches), 200)
        self.assertEqual(len(self.left()), 30)

    def test_a_stream_without_our_group_is_left_alone(self) -> None:
        self.add(2)
        self.streams.add_group(START, "audit", EntryId(2, 0))
        self.assertEqual(self.trim().deleted, 0)
        self.assertEqual(len(self.left()), 2)
