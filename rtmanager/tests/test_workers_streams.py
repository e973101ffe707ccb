"""Ingest and relay: entries are accepted once and in order, messages are published once."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from unittest import mock

from rtmanager.domain.errors import ErrorCode, FinalAnswer, Unavailable
from rtmanager.domain.jobs import INPUT_STREAMS, EntryId, Job
from rtmanager.domain.messages import Message, Stream, intent
from rtmanager.fakes.store import MemoryIngestLock, MemoryRelayLease
from rtmanager.fakes.streams import MemoryStreams
from rtmanager.ports.store import StoreRejected
from rtmanager.ports.streams import DueMessage, LeaseHolder, StaleFencingToken
from rtmanager.tests.making import JOB_FIELDS, ended, request, start_fields, stop_fields
from rtmanager.tests.operating import WorldTestCase
from rtmanager.workers import ingest as ingest_module
from rtmanager.workers import missed_leases as missed_leases_module
from rtmanager.workers import outbox as outbox_module
from rtmanager.workers.held import SILENCES
from rtmanager.workers.ingest import Ingest
from rtmanager.workers.missed_leases import MissedLeases
from rtmanager.workers.outbox import Relay

START, STOP, RESULTS = Stream.START_JOBS, Stream.STOP_JOBS, Stream.JOB_RESULTS
NAMES = {stream: f"prod:{stream}" for stream in Stream}


class StreamsTestCase(WorldTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.world.store
        self.streams = MemoryStreams(self.world.clock, NAMES)
        self.accepted = mock.Mock()
        for module, name, value in ((ingest_module, "WAIT_S", 0.0), (ingest_module, "OTHER_TURN_PAUSE_S", 0.0)):
            patch = mock.patch.object(module, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def ingest(self) -> Ingest:
        logger = self.world.captured.logger
        return Ingest(self.streams, self.store.inbox, NAMES, accepted=self.accepted, logger=logger)

    def refs(self) -> list[str]:
        return [row.request.source_ref for row in self.store.operations.values()]


class IngestTest(StreamsTestCase):
    def test_entries_become_operations_and_are_acknowledged(self) -> None:
        entry_id = self.streams.add(START, start_fields())
        ingest = self.ingest()
        self.assertTrue(ingest.step())
        self.assertEqual(self.refs(), [f"prod:start_jobs:{entry_id}"])
        self.accepted.assert_called_once_with()
        self.streams.lose_acknowledgements()
        ingest.step()
        self.assertEqual(len(self.refs()), 1)

    def test_an_acknowledged_entry_is_not_read_again(self) -> None:
        self.streams.add(START, start_fields())
        ingest = self.ingest()
        ingest.step()
        ingest.step()
        self.accepted.assert_called_once_with()

    def test_nothing_is_acknowledged_before_it_is_durable(self) -> None:
        self.streams.add(START, start_fields())
        for call in (1, 2, 3):  # begin, accept, commit
            with self.subTest(call):
                self.store.trouble.fail_call(call)
                with self.assertRaises(Unavailable):
                    self.ingest().step()
                self.assertEqual(self.refs(), [])
        self.ingest().step()
        self.assertEqual(len(self.refs()), 1)

    def test_a_lost_acknowledgement_or_commit_makes_no_second_operation(self) -> None:
        self.streams.add(START, start_fields())
        self.store.trouble.fail_call(3, done=True)
        with self.assertRaises(Unavailable):
            self.ingest().step()
        self.streams.trouble.fail_call(2)  # read, then acknowledge
        with self.assertRaises(Unavailable):
            self.ingest().step()
        self.ingest().step()
        self.assertEqual(len(self.refs()), 1)

    def test_while_another_instance_has_the_turn_nothing_is_read(self) -> None:
        self.streams.add(START, start_fields())
        with self.store.inbox.lock():
            self.ingest().step()
            self.assertEqual(self.refs(), [])
        self.ingest().step()
        self.assertEqual(len(self.refs()), 1)

    def test_what_an_instance_read_and_did_not_take_over_is_taken_over_by_the_next(self) -> None:
        self.streams.add(START, start_fields())
        self.streams.read(10)
        self.streams.add(STOP, stop_fields())
        self.ingest().step()
        self.ingest().step()
        self.assertEqual([ref.split(":")[1] for ref in self.refs()], ["start_jobs", "stop_jobs"])

    def test_an_entry_that_names_no_game_is_a_dead_letter_and_blocks_nothing(self) -> None:
        self.streams.add(START, {"image_ref": "x"})
        self.streams.add(START, start_fields())
        self.ingest().step()
        self.assertEqual(len(self.refs()), 1)
        (letter,) = self.world.sent(Stream.DEAD_LETTERS)
        self.assertEqual(letter.fields["stream"], "prod:start_jobs")
        self.assertIn("entry names no game, moved to the dead letters", self.world.captured.messages)
        self.streams.lose_acknowledgements()
        self.ingest().step()
        self.assertEqual(len(self.world.sent(Stream.DEAD_LETTERS)), 1)

    def test_of_many_dead_letters_few_have_a_line_of_the_log_each_and_none_has_the_fields(self) -> None:
        for _ in range(30):
            self.streams.add(START, {"note": "secret" * 100})
        self.ingest().step()
        self.assertEqual(len(self.world.sent(Stream.DEAD_LETTERS)), 30)
        lines = [record for record in self.world.captured.records if "moved to the dead letters" in record.getMessage()]
        self.assertEqual(len(lines), ingest_module.LOGGED_LETTERS + 1)
        self.assertEqual(lines[-1].__dict__["count"], 30 - ingest_module.LOGGED_LETTERS)
        self.assertNotIn("secret", str([line.__dict__ for line in lines]))

    def test_a_key_that_is_no_stream_is_reported_and_the_other_stream_is_taken_over(self) -> None:
        self.streams.refuse(START, "WRONGTYPE")
        ingest = self.ingest()
        for number in range(2):
            with self.assertRaisesRegex(FinalAnswer, "prod:start_jobs is no stream"):
                ingest.step()
            self.assertEqual(len(self.refs()), number)
            self.streams.add(STOP, stop_fields(f"g{number}"))
        self.streams.refuse(START, "")
        self.streams.add(START, start_fields("g3"))
        ingest.step()
        self.assertEqual(len(self.refs()), 3)

    def test_a_flushed_redis_is_read_on(self) -> None:
        self.streams.add(START, start_fields())
        self.ingest().step()
        self.streams.flush()
        self.world.clock.advance(1)
        self.streams.add(START, start_fields("g2"))
        self.ingest().step()
        self.assertEqual(len(self.refs()), 2)

    def test_what_a_restored_database_has_forgotten_is_taken_over_again(self) -> None:
        first = self.streams.add(START, start_fields())
        self.streams.add(STOP, stop_fields())
        self.ingest().step()
        self.world.clock.advance(1)
        self.streams.add(START, start_fields("g2"))
        self.ingest().step()
        before = sorted(self.refs())
        self.store.forget_entries(START, first)
        self.assertLess(len(self.refs()), len(before))
        for _ in range(3):
            self.ingest().step()
        self.assertEqual(sorted(self.refs()), before)
        message = "entries that were taken over are gone from the database, reading them again"
        self.assertEqual(self.world.captured.messages.count(message), 1)

    def test_an_entry_under_an_id_that_was_set_back_is_taken_over(self) -> None:
        first = self.streams.add(START, start_fields())
        self.ingest().step()
        self.streams.delete(START, first)
        self.streams.set_last_id(START, EntryId(1, 0))
        self.streams.add(START, start_fields("g2"), EntryId(2, 0))
        for _ in range(3):
            self.ingest().step()
        self.assertEqual(len(self.refs()), 2)
        message = "the last id of a stream is below what was read, reading all its entries again"
        self.assertEqual(self.world.captured.messages.count(message), 1)

    def test_a_database_without_a_row_of_a_stream_does_not_have_all_of_it_done_again(self) -> None:
        self.streams.add(START, start_fields())
        self.ingest().step()
        self.store.forget_entries(START, EntryId(0, 0))
        self.ingest().step()
        self.ingest().step()
        self.assertEqual(self.refs(), [])

    def test_whatever_goes_wrong_the_order_over_all_streams_is_kept(self) -> None:
        for seed in range(60):
            with self.subTest(seed=seed):
                self.setUp()
                self.history(random.Random(seed))

    def history(self, rng: random.Random) -> None:
        added: list[tuple[tuple[object, int], str]] = []
        instances = [self.ingest(), self.ingest()]
        with mock.patch.object(ingest_module, "BATCH", rng.randrange(1, 5)):
            for _ in range(rng.randrange(1, 40)):
                self.world.clock.advance(rng.choice((0, 0.001)))
                for rank, stream in enumerate(INPUT_STREAMS):
                    if rng.random() < 0.5:
                        entry_id = self.streams.add(stream, JOB_FIELDS[stream]("g1"))
                        added.append(((entry_id, rank), f"prod:{stream}:{entry_id}"))
                if rng.random() < 0.3:
                    trouble = rng.choice((self.store.trouble, self.streams.trouble))
                    trouble.fail_call(rng.randrange(1, 5), done=rng.random() < 0.5)
                self.attempt(rng.choice(instances))
                self.world.clock.advance(0.001)
            for _ in range(2 * len(added) + 10):
                self.attempt(instances[0])
        self.assertEqual(self.refs(), [ref for _, ref in sorted(added)])

    def attempt(self, ingest: Ingest) -> None:
        try:
            ingest.step()
        except Unavailable:
            self.assertEqual(self.store.leases, {})


class RefusedEntriesTest(StreamsTestCase):
    """The store rejects the operations of some games, or all."""

    def setUp(self) -> None:
        super().setUp()
        self.refuses: Callable[[str], bool] = lambda _: False
        accept = MemoryIngestLock.accept

        def refusing(lock: MemoryIngestLock, jobs: Sequence[Job]) -> None:
            if any(not isinstance(each.becomes, Message) and self.refuses(each.becomes.game_id) for each in jobs):
                raise StoreRejected("no such row")
            accept(lock, jobs)

        def require_room(lock: MemoryIngestLock, _: Job) -> None:
            if self.refuses("any other"):
                raise StoreRejected("no row")

        for name, value in (("accept", refusing), ("require_room", require_room)):
            patch = mock.patch.object(MemoryIngestLock, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        self.worker = self.ingest()
        for game_id in ("bad", "g1"):
            self.streams.add(START, start_fields(game_id))

    def test_one_is_a_dead_letter_at_once_and_its_line_of_the_log_has_the_reason(self) -> None:
        self.refuses = lambda game_id: game_id == "bad"
        self.worker.step()
        self.assertEqual(len(self.refs()), 1)
        (letter,) = self.world.sent(Stream.DEAD_LETTERS)
        self.assertIn("no such row", letter.fields["reason"])
        message = "the store refuses the operation of an entry, moved to the dead letters"
        self.assertEqual(self.world.captured.messages.count(message), 1)
        self.assertNotIn("entry names no game, moved to the dead letters", self.world.captured.messages)

    def test_when_none_is_taken_all_stay_pending_until_the_store_is_mended(self) -> None:
        self.refuses = lambda _: True
        for _ in range(3):
            with self.assertRaisesRegex(FinalAnswer, "takes over no job.*no row"):
                self.worker.step()
        self.accepted.assert_not_called()
        self.refuses = lambda _: False
        self.worker.step()
        self.assertEqual(len(self.refs()), 2)
        self.assertEqual(self.world.sent(Stream.DEAD_LETTERS), [])

    def test_what_is_mended_while_it_is_examined_makes_no_dead_letter(self) -> None:
        self.refuses = lambda game_id: game_id != "any other"
        require_room = MemoryIngestLock.require_room

        def mended(lock: MemoryIngestLock, job: Job) -> None:
            require_room(lock, job)
            self.refuses = lambda _: False

        with mock.patch.object(MemoryIngestLock, "require_room", mended):
            self.worker.step()
        self.assertEqual(len(self.refs()), 2)
        self.assertEqual(self.world.sent(Stream.DEAD_LETTERS), [])


class HeldEntriesTest(StreamsTestCase):
    """The store does not answer for entries of some games, and accepts others."""

    def setUp(self) -> None:
        super().setUp()
        self.poison: set[str] = set()
        accept = MemoryIngestLock.accept

        def silent(lock: MemoryIngestLock, jobs: Sequence[Job]) -> None:
            if any(job.entry.fields["game_id"] in self.poison for job in jobs):
                raise Unavailable("postgres", "statement timeout")
            accept(lock, jobs)

        patch = mock.patch.object(MemoryIngestLock, "accept", silent)
        patch.start()
        self.addCleanup(patch.stop)
        self.worker = self.ingest()

    def add(self, *games: str) -> None:
        for game_id in games:
            self.world.clock.advance(0.001)
            self.streams.add(START, start_fields(game_id))

    def run_steps(self, count: int = 8) -> int:
        """The number of failed steps among so many."""
        failed = 0
        for _ in range(count):
            try:
                self.worker.step()
            except Unavailable:
                failed += 1
        return failed

    def games(self) -> list[str]:
        return [row.request.game_id for row in self.store.operations.values()]

    def test_one_is_held_with_the_later_ones_of_its_game_and_stops_no_other(self) -> None:
        self.poison = {"bad"}
        self.add("bad", "g1", "bad", "g2")
        self.assertEqual(self.run_steps(), SILENCES - 1)
        self.add("bad", "g3")
        self.assertEqual(self.run_steps(), 0)
        self.assertCountEqual(self.games(), ["g1", "g2", "g3"])
        self.assertRegex(self.worker.held.problem(), "of game bad is not taken over, though others are: statement")
        self.assertEqual(self.world.captured.messages.count("entry waits, the store does not take it over"), 1)
        self.poison = set()
        with mock.patch.object(self.worker.held, "_clock", lambda: float("inf")):
            self.run_steps()
        self.assertEqual(self.games()[3:], ["bad", "bad", "bad"])
        self.assertEqual(self.refs()[3:], sorted(self.refs()[3:]), "in their order")
        self.assertEqual(self.worker.held.problem(), "")

    def test_one_is_tried_again_soon_and_then_less_and_less_often(self) -> None:
        self.poison = {"bad"}
        self.add("bad", "g1")
        now_s, waits = 0.0, []

        def wait(timeout_s: float) -> bool:
            nonlocal now_s
            waits.append(timeout_s)
            now_s += timeout_s
            return False

        with (
            mock.patch.object(self.worker.held, "_clock", lambda: now_s),
            mock.patch.object(self.streams, "wait", wait),
            mock.patch.object(ingest_module, "WAIT_S", 5.0),
        ):
            self.run_steps(SILENCES + 1)
            self.assertEqual(waits, [1.0])
            self.run_steps(60)
            self.poison = set()
            self.run_steps(7)
        self.assertIn([5.0] * 6, [waits[at : at + 6] for at in range(len(waits))])
        self.assertEqual(self.games(), ["g1", "bad"])

    def test_a_silence_about_all_is_one_of_the_store(self) -> None:
        self.poison = {"g1", "g2", "g3", "g4"}
        self.add("g1", "g2", "g3", "g4")
        self.assertEqual(self.run_steps(), 8)
        self.assertEqual(self.worker.held.problem(), "")
        self.poison = set()
        self.assertEqual(self.run_steps(1), 0)
        self.assertEqual(self.games(), ["g1", "g2", "g3", "g4"])

    def test_more_than_are_read_at_once_stop_no_other(self) -> None:
        self.poison = {"bad"}
        with mock.patch.object(ingest_module, "BATCH", 3), mock.patch.object(ingest_module, "HELD_PAUSE_S", 0.0):
            self.add("bad", "g1")
            self.run_steps()
            self.add(*["bad"] * 20, "g2")
            self.assertEqual(self.run_steps(20), 0)
        self.assertCountEqual(self.games(), ["g1", "g2"])

    def test_one_that_another_instance_took_over_is_forgotten(self) -> None:
        self.poison = {"bad"}
        self.add("bad", "g1")
        self.run_steps()
        self.poison = set()
        self.ingest().step()
        self.run_steps(1)
        self.assertEqual((sorted(self.games()), self.worker.held.problem()), (["bad", "g1"], ""))


class MissedTurnsTest(WorldTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now_s = 0.0
        self.holder: LeaseHolder | None = None
        self.leases = MissedLeases(lambda: self.holder, lambda: self.now_s)

    def hold(self, transaction: str, *, like_manager: bool) -> None:
        self.holder = LeaseHolder("session 7 (application 'psql')", transaction, like_manager, "SELECT end_it(7)")

    def miss(self, seconds: int) -> bool:
        """Whether the holder is reported within so many seconds without the lease."""
        for _ in range(seconds):
            self.now_s += 1
            try:
                self.leases.missed()
            except FinalAnswer as error:
                self.assertRegex(str(error), r"session 7 \(application 'psql'\) holds the lease .* SELECT end_it\(7\)")
                return True
        return False

    def test_a_foreign_session_that_keeps_the_turn_is_reported_with_the_remedy(self) -> None:
        self.hold("3/0", like_manager=False)
        self.assertTrue(self.miss(20))
        self.assertTrue(self.miss(1), "as long as it lasts")
        self.leases.had()
        self.assertFalse(self.miss(10))

    def test_an_instance_that_keeps_the_turn_in_one_transaction_is_reported_after_a_minute(self) -> None:
        self.hold("3/17", like_manager=True)
        self.assertFalse(self.miss(60))
        self.assertTrue(self.miss(20))

    def test_instances_that_are_faster_each_time_are_not_reported(self) -> None:
        for number in range(100):
            self.hold(f"3/{number}", like_manager=bool(number % 2))
            self.assertFalse(self.miss(5))
        self.holder = None
        self.assertFalse(self.miss(100))


class HeldTurnTest(StreamsTestCase):
    def test_a_turn_that_is_held_for_too_long_fails_the_step_until_it_is_free(self) -> None:
        relay = Relay(self.store.outbox, self.streams, self.world.captured.logger)
        for step, take in ((self.ingest().step, self.store.inbox.lock), (relay.step, self.store.outbox.lease)):
            with (
                self.subTest(take),
                mock.patch.object(missed_leases_module, "CHECK_S", 0.0),
                mock.patch.object(missed_leases_module, "HELD_BY_MANAGER_S", 0.0),
            ):
                with take(), self.assertRaisesRegex(FinalAnswer, "session 1 holds the lease"):
                    step()
                step()


class RelayTest(StreamsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.refusals: list[str] = []
        self.relay = self.make_relay()
        self.queue = self.store.queue(1)

    def make_relay(self) -> Relay:
        return Relay(self.store.outbox, self.streams, self.world.captured.logger, refused=self.refusals.append)

    def promise(self, *numbers: int, stream: Stream = RESULTS) -> None:
        self.queue.submit(request())
        (operation,) = self.queue.claim(1)
        self.queue.finish(operation, ended(messages=tuple(Message(stream, {"n": str(n)}) for n in numbers)))

    def published(self, stream: Stream = RESULTS) -> list[str]:
        return [fields["n"] for fields in self.streams.entries(stream)]

    def run_out(self, relay: Relay | None = None) -> None:
        while (relay or self.relay).step():
            pass

    def test_what_is_due_is_published_in_order_and_forgotten(self) -> None:
        self.promise(1, 2, 3)
        self.assertTrue(self.relay.step())
        self.assertEqual(self.published(), ["1", "2", "3"])
        self.assertEqual((self.store.messages, self.streams.remembered()), ({}, set()))
        self.assertFalse(self.relay.step())

    def test_more_than_one_batch_is_published_in_order(self) -> None:
        with mock.patch.object(outbox_module, "BATCH", 2):
            self.promise(*range(5))
            self.run_out()
        self.assertEqual(self.published(), ["0", "1", "2", "3", "4"])

    def test_a_fault_at_any_call_of_either_side_publishes_nothing_twice_and_loses_nothing(self) -> None:
        for name in ("store", "streams"):
            for call in range(1, 8):
                for done in (False, True):
                    with self.subTest(side=name, call=call, done=done):
                        self.setUp()
                        self.promise(1, 2, 3)
                        trouble = self.store.trouble if name == "store" else self.streams.trouble
                        trouble.fail_call(call, done=done)
                        for _ in range(4):
                            try:
                                self.relay.step()
                            except Unavailable:
                                self.assertEqual(self.store.leases, {})
                        self.promise(4)
                        self.run_out(self.make_relay())
                        self.assertEqual(self.published(), ["1", "2", "3", "4"])
                        self.assertEqual((self.store.messages, self.streams.remembered()), ({}, set()))

    def test_what_a_dead_relay_published_and_did_not_delete_is_not_published_again(self) -> None:
        self.promise(1, 2)
        with self.store.outbox.lease() as lease:
            assert lease is not None
            self.streams.publish(lease.number, lease.due(1, 1 << 20))
        self.run_out()
        self.assertEqual(self.published(), ["1", "2"])

    def test_what_a_relay_of_an_older_release_published_and_did_not_delete_is_not_published_again(self) -> None:
        """It died before this relay began, or had the lease between two of this relay's."""
        self.promise(1, 2)
        self.streams.remember("1")
        self.run_out()
        self.assertEqual(self.published(), ["2"])
        self.promise(3, 4)
        with self.store.outbox.lease() as lease:
            assert lease is not None
            self.streams.remember(str(lease.due(1, 1 << 20)[0].message_id))
        self.run_out()
        self.assertEqual((self.published(), self.streams.remembered()), (["2", "4"], set()))

    def test_an_id_that_somebody_adds_costs_no_message(self) -> None:
        self.relay.step()
        for number in range(9):
            self.streams.remember(str(number))
        self.promise(1, 2)
        self.run_out()
        self.assertEqual(self.published(), ["1", "2"])

    def test_ids_that_a_dead_relay_left_behind_are_forgotten(self) -> None:
        self.promise(1)
        self.streams.trouble.fail_call(4)  # `remembered`, `forget`, `publish`, then the last `forget`
        with self.assertRaises(Unavailable):
            self.relay.step()
        self.assertEqual((self.store.messages, len(self.streams.remembered())), ({}, 1))
        self.run_out(self.make_relay())
        self.assertEqual((self.published(), self.streams.remembered()), (["1"], set()))

    def test_without_the_turn_nothing_is_published(self) -> None:
        self.promise(1)
        with self.store.outbox.lease():
            self.assertFalse(self.relay.step())
        self.assertEqual(self.published(), [])

    def test_a_relay_whose_turn_is_behind_catches_up(self) -> None:
        """The database was restored from a backup, Redis was not."""
        self.promise(1)
        self.streams.publish(1000, [])
        self.assertFalse(self.relay.step())
        self.assertEqual(self.published(), [])
        self.assertIn("outbox lease was behind", self.world.captured.messages)
        self.run_out()
        self.assertEqual(self.published(), ["1"])

    def test_after_a_restore_a_message_is_not_taken_for_one_whose_id_it_has(self) -> None:
        """A relay died between publishing and forgetting; then the database was restored, and assigned the id again."""
        self.relay.step()
        self.streams.publish(1000, [DueMessage(1, Message(RESULTS, {"n": "before"}))])
        self.promise(1)
        self.assertEqual([*self.store.messages], [1])
        self.relay.step()
        self.run_out()
        self.assertEqual(self.published(), ["before", "1"])

    def test_a_frozen_relay_that_resumes_adds_nothing(self) -> None:
        self.promise(1)
        with self.assertRaises(Unavailable), self.store.outbox.lease() as frozen:
            assert frozen is not None
            due = frozen.due(10, 1 << 20)
            self.store.break_turns()
            self.run_out(self.make_relay())
            with self.assertRaises(StaleFencingToken):
                self.streams.publish(frozen.number, due)
        self.assertEqual(self.published(), ["1"])

    def test_a_row_that_is_no_message_is_reported_once_and_until_it_is_gone(self) -> None:
        due = MemoryRelayLease.due

        def leaves_out(lease: MemoryRelayLease, limit: int, size: int) -> Sequence[DueMessage]:
            lease.unreadable = {7: "job_results"}
            return due(lease, limit, size)

        with mock.patch.object(MemoryRelayLease, "due", leaves_out):
            self.promise(1)
            self.run_out()
            self.assertEqual(self.published(), ["1"])
            self.assertEqual(self.relay.unreadable, {7: "job_results"})
            self.assertGreaterEqual(self.refusals.count("job_results"), 2)
        message = "a row of the outbox is no message and is left out"
        self.assertEqual(self.world.captured.messages.count(message), 1)
        self.run_out()
        self.assertEqual(self.relay.unreadable, {})

    def test_a_refused_stream_does_not_block_the_others_and_is_reported_once(self) -> None:
        self.streams.refuse(RESULTS, "WRONGTYPE")
        self.promise(1)
        self.promise(2, stream=Stream.HEALTH_EVENTS)
        self.run_out()
        self.run_out()
        self.assertEqual(self.published(Stream.HEALTH_EVENTS), ["2"])
        self.assertEqual(self.world.captured.messages.count("redis refuses an output stream"), 1)
        self.assertEqual(self.world.captured.records[-1].__dict__["stream"], "prod:job_results")
        self.assertEqual(self.relay.refused, {"prod:job_results": "WRONGTYPE"})
        self.assertGreaterEqual(self.refusals.count("prod:job_results"), 2)
        with self.store.outbox.lease():
            self.relay.step()
        self.assertEqual(self.relay.refused, {}, "another instance has the turn")
        self.run_out()
        self.streams.refuse(RESULTS, "")
        self.run_out()
        self.assertEqual(self.relay.refused, {})
        self.assertEqual((self.published(), self.store.messages), (["1"], {}))

    def test_a_flushed_redis_gets_what_is_still_due(self) -> None:
        self.promise(1)
        self.run_out()
        self.streams.flush()
        self.promise(2)
        self.run_out()
        self.assertEqual(self.published(), ["2"])


class IntentLimitTest(StreamsTestCase):
    """Above the limit of a minute intents are counted, each of them once, and one summary has their number."""

    LIMIT = 3

    def setUp(self) -> None:
        super().setUp()
        self.queue = self.store.queue(1)
        self.relay = self.make_relay()

    def make_relay(self, limit: int = LIMIT) -> Relay:
        return Relay(self.store.outbox, self.streams, self.world.captured.logger, intents_per_minute=limit)

    def failing(self, *games: str, code: ErrorCode = ErrorCode.IMAGE_PULL_FAILED) -> None:
        now = self.world.clock()
        messages = tuple(
            intent(code, game_id=game, image_ref="x:1", message="why", source_ref="rest:1", attempted_at=now, now=now)
            for game in games
        )
        self.queue.submit(request())
        (operation,) = self.queue.claim(1)
        self.queue.finish(operation, ended(messages=messages))

    def run_out(self, relay: Relay | None = None) -> None:
        while (relay or self.relay).step():
            pass

    def sent(self) -> list[str]:
        """The games of the published intents, and the numbers of the summaries."""
        found = []
        for fields in self.streams.entries(Stream.NOTIFICATION_INTENTS):
            payload = json.loads(fields["payload_json"])
            summary = ":summary:" in fields["idempotency_key"]
            found.append(payload["error_message"].split()[0] if summary else payload["game_id"])
        return found

    def test_up_to_the_limit_each_is_sent(self) -> None:
        self.failing("g1", "g2", "g3")
        self.run_out()
        self.assertEqual(self.sent(), ["g1", "g2", "g3"])
        self.world.clock.advance(61)
        self.run_out()
        self.assertEqual(len(self.sent()), 3)

    def test_above_it_they_are_counted_and_reported_when_the_minute_is_over_though_nothing_else_fails(self) -> None:
        for number in range(10):
            self.failing(f"g{number}")
            self.run_out()
        self.assertEqual(self.sent(), ["g0", "g1", "g2"])
        self.assertEqual(self.store.messages, {})
        self.assertEqual(self.world.captured.messages.count("more intents than may be sent, the others are counted"), 1)
        self.world.clock.advance(61)
        self.run_out()
        self.assertEqual(self.sent(), ["g0", "g1", "g2", "7"])

    def test_each_minute_and_each_type_has_its_own(self) -> None:
        self.failing("a", "b", "c", "d")
        self.failing("e", "f", "g", "h", "i", code=ErrorCode.START_CONFIG_INVALID)
        self.run_out()
        self.world.clock.advance(61)
        self.failing("j", "k")
        self.run_out()
        self.assertCountEqual(self.sent(), [*"abcefgjk", "1", "2"])

    def test_results_and_events_are_not_limited(self) -> None:
        self.queue.submit(request())
        (operation,) = self.queue.claim(1)
        self.queue.finish(operation, ended(messages=tuple(Message(RESULTS, {"n": str(n)}) for n in range(9))))
        self.run_out()
        self.assertEqual(len(self.streams.entries(RESULTS)), 9)

    def test_without_a_limit_all_are_sent(self) -> None:
        self.failing(*(f"g{number}" for number in range(9)))
        self.run_out(self.make_relay(0))
        self.assertEqual(len(self.sent()), 9)
        self.assertEqual(self.store.intent_windows, {})

    def test_while_redis_refuses_the_stream_none_is_left_out(self) -> None:
        self.streams.refuse(Stream.NOTIFICATION_INTENTS, "WRONGTYPE")
        self.failing(*(f"g{number}" for number in range(5)))
        self.run_out()
        self.world.clock.advance(61)
        self.run_out()
        self.assertEqual((len(self.store.messages), self.sent()), (5, []))
        self.streams.refuse(Stream.NOTIFICATION_INTENTS, "")
        self.run_out()
        self.world.clock.advance(61)
        self.run_out()
        self.assertEqual(self.sent(), ["g0", "g1", "g2", "2"])

    def test_whatever_goes_wrong_each_is_sent_or_counted_once(self) -> None:
        for seed in range(150):
            with self.subTest(seed=seed):
                self.setUp()
                self.history(random.Random(seed))

    def history(self, rng: random.Random) -> None:
        relays, failed = [self.make_relay(), self.make_relay()], 0
        with mock.patch.object(outbox_module, "BATCH", rng.randrange(1, 6)):
            for _ in range(rng.randrange(5, 60)):
                games = [f"g{failed + n}" for n in range(rng.randrange(4))]
                failed += len(games)
                self.failing(*games)
                if rng.random() < 0.4:
                    trouble = rng.choice((self.store.trouble, self.streams.trouble))
                    trouble.fail_call(rng.randrange(1, 6), done=rng.random() < 0.5)
                with suppress(Unavailable):
                    rng.choice(relays).step()
                for trouble in (self.store.trouble, self.streams.trouble):
                    trouble.heal()
                self.world.clock.advance(rng.choice((0.1, 1, 30)))
            for _ in range(3):
                self.run_out(relays[0])
                self.world.clock.advance(61)
        games = [each for each in self.sent() if each.startswith("g")]
        counted = sum(int(each) for each in self.sent() if not each.startswith("g"))
        self.assertEqual(len(games), len(set(games)))
        self.assertEqual(len(games) + counted, failed)
