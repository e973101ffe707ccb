"""Contract tests of the store for operations and workers; run against PostgreSQL and the fake.

A test case subclasses `StoreContract` and creates its store in `make`. The tests use only the ports and the hooks of
`StoreUnderTest`. Game ids are lower case, since a database may sort others differently.
"""

from __future__ import annotations

import json
import unittest
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Any, Protocol

from rtmanager.domain.daemon import Daemon
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.health import EventType, HealthEvent, HealthSource, HealthStatus
from rtmanager.domain.jobs import EntryId
from rtmanager.domain.messages import INTENT_OF, Message, Stream, intent, limited_type
from rtmanager.domain.operation import LogEntry, Operation, OpKind, Outcome
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.fakes.answers import record_json
from rtmanager.ports.store import (
    ClaimLost,
    DaemonRecords,
    GameBusy,
    Namesake,
    OperationQueue,
    RecordConflict,
    Records,
    SessionLock,
    StoreRejected,
    UnknownOperation,
)
from rtmanager.ports.streams import Inbox, IntentCount, Outbox, RelayLease
from rtmanager.tests.making import NOW, ended, job, log_entry, record, request, start_fields, stop_fields

#: Seconds by which a clock was ahead.
YEAR_S = 365 * 24 * 3600.0

START, STOP = Stream.START_JOBS, Stream.STOP_JOBS


class Session(SessionLock, Protocol):
    """A session lock, with a way to end its session."""

    def close(self) -> None:
        """End the instance's session."""
        ...


class StoreUnderTest(Protocol):
    """The ports of one empty store, and what a test needs beside them."""

    lease_s: float
    grace_s: float

    def records(self) -> Records: ...

    def queue(self, owner: int) -> OperationQueue:
        """The queue of one instance, without a session lock yet."""
        ...

    def session_lock(self, owner: int) -> Session:
        """The session lock of that instance."""
        ...

    def inbox(self) -> Inbox: ...

    def outbox(self) -> Outbox: ...

    def daemons(self) -> DaemonRecords: ...

    def pass_time(self, seconds: float) -> None:
        """Move every stored moment so many seconds into the past."""
        ...

    def put_record(self, record: RuntimeRecord) -> None:
        """Insert a record as another writer would."""
        ...

    def log_rows(self) -> Sequence[LogEntry]:
        """All rows of the operation log, oldest first."""
        ...

    def snapshot(self, game_id: str) -> tuple[str, HealthStatus, HealthSource, Mapping[str, object]] | None:
        """A game's health snapshot: container id, status, source, details."""
        ...


class StoreContract(unittest.TestCase):
    """Subclass it and override `make`."""

    store: StoreUnderTest

    def make(self) -> StoreUnderTest:
        """Create an empty store."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.store = self.make()
        self.queue = self.store.queue(1)
        self.other = self.store.queue(2)
        for owner in (1, 2):
            session_lock = self.store.session_lock(owner)
            session_lock.show()
            self.addCleanup(session_lock.close)

    def accept(self, *jobs: Any) -> None:
        with self.store.inbox().lock() as lock:
            assert lock is not None
            lock.accept(jobs)

    def claim_one(self, queue: OperationQueue | None = None) -> Operation:
        (operation,) = (queue or self.queue).claim(10)
        return operation

    def due(self) -> list[Message]:
        with self.store.outbox().lease() as lease:
            assert lease is not None
            return [due.message for due in lease.due(1000, 1 << 20)]

    def drain(self) -> list[tuple[str, int]]:
        """Claim and finish all operations, one at a time; return the games in order, with each entry's number."""
        order = []
        while claimed := self.queue.claim(1):
            self.queue.finish(claimed[0], ended())
            order.append((claimed[0].game_id, int(claimed[0].request.source_ref.split(":")[2].split("-")[0])))
        return order


class DaemonsContract(StoreContract):
    FIRST = Daemon("id-1", "host-1", "galaxy-net", "n1")
    SECOND = Daemon("id-2", "host-2", "galaxy-net", "n2")

    def test_no_daemon_is_on_record_before_the_first(self) -> None:
        self.assertIsNone(self.store.daemons().recorded())

    def test_the_first_daemon_stays_on_record(self) -> None:
        daemons = self.store.daemons()
        self.assertEqual(daemons.record(self.FIRST), self.FIRST)
        self.assertEqual(daemons.record(self.SECOND), self.FIRST)
        self.assertEqual(daemons.recorded(), self.FIRST)

    def test_a_daemon_that_is_accepted_takes_the_place_of_the_one_on_record(self) -> None:
        daemons = self.store.daemons()
        for daemon in (self.FIRST, self.SECOND, self.SECOND):
            daemons.accept(daemon)
            self.assertEqual(daemons.recorded(), daemon)

    def test_a_deployment_keeps_its_id_until_it_is_given_a_new_one(self) -> None:
        daemons = self.store.daemons()
        known = daemons.deployment_id()
        daemons.accept(self.SECOND)
        self.assertEqual(daemons.deployment_id(), known)
        daemons.accept(self.SECOND, new_deployment=True)
        self.assertNotIn(daemons.deployment_id(), ("", known))


class RecordsContract(StoreContract):
    """Records: read, page, compare and swap."""

    def finish_with(self, seen: RuntimeRecord | None, new: RuntimeRecord) -> None:
        self.queue.submit(request(new.game_id))
        self.queue.finish(self.claim_one(), ended(seen=seen, new=new))

    def test_a_game_nobody_started_has_no_record(self) -> None:
        self.assertIsNone(self.store.records().get("g1"))

    def test_a_record_comes_back_as_it_was_written(self) -> None:
        new = record("g1", stopped_at=None)
        self.finish_with(None, new)
        self.assertEqual(self.store.records().get("g1"), new)

    def test_a_change_replaces_everything_but_the_time_of_creation(self) -> None:
        old = record("g1")
        self.store.put_record(old)
        later = NOW.replace(year=2027)
        new = replace(
            old,
            status=Status.STOPPED,
            current_container_id="c-new",
            current_image_ref="galaxy/game:2.0.0",
            stopped_at=later,
            last_op_at=later,
            created_at=later,
        )
        self.finish_with(old, new)
        self.assertEqual(self.store.records().get("g1"), replace(new, created_at=old.created_at))

    def test_a_change_decided_on_another_container_is_refused_and_nothing_is_written(self) -> None:
        self.store.put_record(record("g1", current_container_id="c-now"))
        self.queue.submit(request("g1", OpKind.STOP))
        operation = self.claim_one()
        seen = record("g1", current_container_id="c-then")
        completion = ended(seen=seen, new=seen.stopped(NOW), log=(log_entry(),))
        with self.assertRaises(RecordConflict):
            self.queue.finish(operation, completion)
        self.assertEqual(self.store.records().get("g1"), record("g1", current_container_id="c-now"))
        self.assertEqual(list(self.store.log_rows()), [])
        self.assertIsNone(self.queue.verdict(operation.operation_id))
        self.queue.finish(operation, ended())  # still ours

    def test_a_change_decided_on_another_status_is_refused(self) -> None:
        self.store.put_record(record("g1", Status.STOPPED))
        seen = record("g1", Status.RUNNING)
        with self.assertRaises(RecordConflict):
            self.finish_with(seen, seen.stopped(NOW))

    def test_a_first_record_is_refused_when_another_writer_was_first(self) -> None:
        self.store.put_record(record("g1", current_container_id="c-other"))
        with self.assertRaises(RecordConflict):
            self.finish_with(None, record("g1"))

    def test_a_record_without_a_container_can_be_compared_too(self) -> None:
        seen = record("g1", Status.REMOVED)
        self.store.put_record(seen)
        self.finish_with(seen, record("g1"))
        self.assertEqual(self.store.records().get("g1"), record("g1"))

    def test_of_some_games_those_have_records_that_were_started(self) -> None:
        for game_id in ("g1", "g2", "g3"):
            self.store.put_record(record(game_id))
        found = self.store.records().of({"g1", "g3", "g9"})
        self.assertEqual(found, {"g1": record("g1"), "g3": record("g3")})

    def test_pages_go_through_all_games_in_order_once(self) -> None:
        games = [f"game{n:02}" for n in range(7)]
        for game_id in reversed(games):
            self.store.put_record(record(game_id))
        seen: list[str] = []
        while page := self.store.records().page(status=None, after=seen[-1] if seen else None, limit=3):
            self.assertLessEqual(len(page), 3)
            seen += [found.game_id for found in page]
        self.assertEqual(seen, games)

    def test_a_page_of_one_status_has_no_other(self) -> None:
        for n, status in enumerate([Status.RUNNING, Status.STOPPED, Status.REMOVED, Status.STOPPED]):
            self.store.put_record(record(f"g{n}", status))
        page = self.store.records().page(status=Status.STOPPED, after=None, limit=10)
        self.assertEqual([found.game_id for found in page], ["g1", "g3"])
        self.assertEqual(list(self.store.records().page(status=Status.STOPPED, after="g1", limit=10)), [page[1]])

    def test_what_is_passed_on_is_the_json_of_the_record_itself(self) -> None:
        whole_second, other_zone = NOW.replace(microsecond=0), NOW.astimezone(timezone(timedelta(hours=5)))
        records = [
            record("g1", started_at=NOW.replace(microsecond=7), last_op_at=whole_second, created_at=other_zone),
            record("g2", Status.REMOVED, current_image_ref=None, state_path='/games/"é\\\t\u2028/g2'),
            record("g3", Status.STOPPED, current_container_id=None),
        ]
        for each in records:
            self.store.put_record(each)
        for status, after, limit in ((None, None, 10), (None, None, 2), (None, "g1", 10), (Status.STOPPED, "g1", 10)):
            page = self.store.records().page(status=status, after=after, limit=limit)
            listed = self.store.records().page_as_json(status=status, after=after, limit=limit)
            loaded, alone = [json.loads(text) for text in listed], [json.loads(record_json(each)) for each in page]
            self.assertEqual(loaded, alone)
            self.assertEqual([list(each) for each in loaded], [list(each) for each in alone], "the order of the fields")
        for each in records:
            text = self.store.records().get_as_json(each.game_id) or b""
            self.assertEqual(json.loads(text), json.loads(record_json(each)))
        self.assertIsNone(self.store.records().get_as_json("g4"))

    def test_each_time_of_a_listed_record_is_its_own(self) -> None:
        moments = [NOW, NOW + timedelta(microseconds=1), NOW - timedelta(days=400)]
        times = list(product(moments, [None, *moments[:2]], [None, *moments[1:]], moments, moments[:2]))
        names = ("started_at", "stopped_at", "removed_at", "last_op_at", "created_at")
        for number, values in enumerate(times):
            self.store.put_record(record(f"g{number:04}", Status.STOPPED, **dict(zip(names, values, strict=True))))
        listed = self.store.records().page_as_json(status=None, after=None, limit=1000)
        page = self.store.records().page(status=None, after=None, limit=1000)
        self.assertEqual(len(listed), len(times))
        self.assertEqual([json.loads(each) for each in listed], [json.loads(record_json(each)) for each in page])


class QueueContract(StoreContract):
    """Calls and claims: one at a time for each game."""

    def test_a_call_is_claimed_with_all_that_was_requested(self) -> None:
        submitted = request(
            "g1", OpKind.PATCH, source_ref="req-7", image_ref="galaxy/game:1.2.3", caller="game-master-1"
        )
        operation_id = self.queue.submit(submitted)
        operation = self.claim_one()
        self.assertEqual((operation.operation_id, operation.request), (operation_id, submitted))
        self.assertIsNotNone(operation.accepted_at.tzinfo)

    def test_a_second_call_for_a_game_is_refused_while_the_first_is_due_or_running(self) -> None:
        self.queue.submit(request("g1"))
        with self.assertRaises(GameBusy):
            self.other.submit(request("g1"))
        operation = self.claim_one()
        with self.assertRaises(GameBusy) as caught:
            self.other.submit(request("g1", OpKind.STOP))
        self.assertIn(f"operation {operation.operation_id}", str(caught.exception))
        self.queue.finish(operation, ended())
        self.other.submit(request("g1", OpKind.STOP))

    def test_a_name_is_claimed_by_one_start_at_a_time_whatever_the_case_of_its_letters(self) -> None:
        operations = {}
        for game_id, queue in (("match-1", self.queue), ("Match-1", self.other), ("match_1", self.other)):
            queue.submit(request(game_id))
            operations[game_id] = self.claim_one(queue)
        first, second = operations["match-1"], operations["Match-1"]
        for _ in range(2):
            self.assertIsNone(self.queue.claim_name(first), "again, by the same operation")
            self.assertEqual(self.other.claim_name(second), Namesake("match-1", None))
            self.assertIsNone(self.other.claim_name(operations["match_1"]), "only case makes no other name")
        self.queue.finish(first, ended(Outcome.FAILURE))
        self.assertIsNone(self.other.claim_name(second), "the first has ended, without a record")

    def test_a_name_stays_claimed_while_its_operation_is_put_off(self) -> None:
        self.queue.submit(request("match-1"))
        self.other.submit(request("MATCH-1"))
        first, second = sorted(self.queue.claim(2), key=lambda each: each.game_id, reverse=True)
        self.assertIsNone(self.queue.claim_name(first))
        self.queue.defer(first, delay_s=60, why="docker is away")
        self.assertEqual(self.queue.claim_name(second), Namesake("match-1", None))
        with self.assertRaises(ClaimLost):
            self.queue.claim_name(first)

    def test_a_noted_end_outlives_its_claim_and_is_replaced_by_the_next_note(self) -> None:
        self.queue.submit(request("g1", OpKind.STOP))
        first = self.claim_one()
        self.assertIsNone(self.queue.noted_end(first))
        self.assertIsNone(self.queue.note_end(first, "c1"))
        self.assertEqual(self.queue.note_end(first, "c1"), "c1")
        self.queue.defer(first, delay_s=0, why="it was killed")
        second = self.claim_one(self.other)
        self.assertEqual(self.other.noted_end(second), "c1")
        self.assertEqual(self.other.note_end(second, None), "c1")
        self.assertIsNone(self.other.noted_end(second))

    def test_a_claim_that_is_lost_notes_no_end(self) -> None:
        self.queue.submit(request("g1", OpKind.STOP))
        first = self.claim_one()
        self.queue.defer(first, delay_s=0, why="it was frozen")
        second = self.claim_one(self.other)
        with self.assertRaises(ClaimLost):
            self.queue.note_end(first, "c1")
        self.assertIsNone(self.other.noted_end(second))

    def test_a_noted_end_renews_the_claim(self) -> None:
        self.queue.submit(request("g1", OpKind.STOP))
        operation = self.claim_one()
        self.store.pass_time(3600)
        self.queue.note_end(operation, "c1")
        self.assertEqual(list(self.other.reclaim_orphans()), [])

    def test_a_game_has_its_name_until_it_is_removed(self) -> None:
        self.queue.submit(request("match-1"))
        operation = self.claim_one()
        for status, holder in (
            (Status.RUNNING, Namesake("Match-1", Status.RUNNING)),
            (Status.STOPPED, Namesake("Match-1", Status.STOPPED)),
            (Status.REMOVED, None),
        ):
            if status is Status.RUNNING:
                self.store.put_record(record("Match-1"))
            else:
                self.change("Match-1", status)
            self.assertEqual(self.queue.claim_name(operation), holder)

    def change(self, game_id: str, status: Status) -> None:
        """Change the status of a game's record by an operation."""
        seen = self.store.records().get(game_id)
        assert seen is not None
        self.other.submit(request(game_id, OpKind.STOP))
        stopping = self.claim_one(self.other)
        self.other.finish(stopping, ended(seen=seen, new=replace(seen, status=status)))

    def test_a_game_that_has_a_record_of_its_own_has_no_namesake_in_itself(self) -> None:
        self.store.put_record(record("match-1", Status.REMOVED))
        self.queue.submit(request("match-1"))
        self.assertIsNone(self.queue.claim_name(self.claim_one()))

    def test_to_require_room_for_a_call_leaves_nothing(self) -> None:
        self.queue.submit(request("g1"))
        for kind in (OpKind.START, OpKind.STOP, OpKind.RESTART):
            self.queue.require_room(request("g1", kind))
        self.assertEqual([each.request.game_id for each in self.queue.claim(9)], ["g1"])

    def test_a_call_is_refused_while_a_job_of_its_game_waits(self) -> None:
        self.accept(job(START, 5))
        with self.assertRaises(GameBusy):
            self.queue.submit(request("g1"))

    def test_what_is_required_of_a_record_is_refused_when_that_has_changed(self) -> None:
        stored = record("g1")
        self.store.put_record(stored)
        for changed in (NOW.replace(year=2027), stored.last_op_at - timedelta(microseconds=1)):
            with self.assertRaises(GameBusy):
                self.queue.submit(request("g1", OpKind.CLEANUP), last_op_at=changed)
        with self.assertRaises(GameBusy):
            self.queue.submit(request("unknown", OpKind.CLEANUP), last_op_at=stored.last_op_at)
        self.queue.submit(request("g1", OpKind.CLEANUP), last_op_at=stored.last_op_at)
        with self.assertRaises(GameBusy):
            self.queue.submit(request("g1", OpKind.CLEANUP), last_op_at=stored.last_op_at)

    def test_a_refused_call_gets_the_reason_why_the_first_one_waits(self) -> None:
        self.queue.submit(request("g1"))
        self.queue.defer(self.claim_one(), delay_s=60, why="docker sleeps")
        with self.assertRaises(GameBusy) as caught:
            self.queue.submit(request("g1"))
        self.assertIn("docker sleeps", str(caught.exception))

    def test_what_is_claimed_is_not_claimed_again(self) -> None:
        self.queue.submit(request("g1"))
        self.claim_one()
        self.assertEqual(list(self.queue.claim(10)), [])
        self.assertEqual(list(self.other.claim(10)), [])

    def test_a_claim_takes_no_more_than_its_limit_and_leaves_the_rest_to_others(self) -> None:
        ids = {self.queue.submit(request(f"g{n}")) for n in range(5)}
        first = {operation.operation_id for operation in self.queue.claim(3)}
        rest = {operation.operation_id for operation in self.other.claim(3)}
        self.assertEqual((len(first), len(rest), first | rest), (3, 2, ids))

    def test_a_game_with_many_jobs_does_not_keep_the_others_waiting(self) -> None:
        for number in range(3):
            self.accept(job(START, 10 + number, start_fields("g1")))
        self.accept(job(START, 20, start_fields("g2")), job(START, 21, start_fields("g3")))
        self.assertEqual([game for game, _ in self.drain()], ["g1", "g2", "g3", "g1", "g1"])

    def test_one_claim_takes_one_operation_of_each_game(self) -> None:
        self.accept(job(START, 1), job(STOP, 2), job(START, 3, start_fields("g2")))
        self.assertEqual(sorted(operation.game_id for operation in self.queue.claim(10)), ["g1", "g2"])
        self.assertEqual(list(self.queue.claim(10)), [])

    def test_jobs_of_one_game_run_in_the_order_of_their_entry_ids_over_both_streams(self) -> None:
        self.accept(job(STOP, 30), job(START, 10), job(STOP, 20))
        self.accept(job(START, 25), job(START, 5))
        self.assertEqual([position for _, position in self.drain()], [5, 10, 20, 25, 30])

    def test_the_sequence_part_of_an_entry_id_counts_as_a_number(self) -> None:
        self.accept(job(START, 10, sequence=10), job(STOP, 10, sequence=9), job(START, 9, sequence=11))
        kinds = []
        while claimed := self.queue.claim(1):
            kinds.append(str(claimed[0].request.source_ref))
            self.queue.finish(claimed[0], ended())
        self.assertEqual(kinds, ["runtime:start_jobs:9-11", "runtime:stop_jobs:10-9", "runtime:start_jobs:10-10"])

    def test_of_two_equal_ids_the_start_comes_first(self) -> None:
        self.accept(job(STOP, 10), job(START, 10))
        self.assertIs(self.claim_one().request.kind, OpKind.START)

    def test_ids_as_great_as_redis_makes_them_keep_their_order(self) -> None:
        top = 2**64 - 1
        self.accept(job(STOP, top, sequence=top), job(START, top, sequence=top - 1))
        self.assertIs(self.claim_one().request.kind, OpKind.START)

    def test_a_call_that_was_there_first_goes_before_a_later_job(self) -> None:
        self.queue.submit(request("g1"))
        self.accept(job(STOP, 1))
        self.assertIs(self.claim_one().request.kind, OpKind.START)

    def test_a_put_off_operation_is_due_again_after_its_delay(self) -> None:
        self.queue.submit(request("g1"))
        self.queue.defer(self.claim_one(), delay_s=30, why="docker is away")
        self.assertEqual(list(self.queue.claim(10)), [])
        self.store.pass_time(31)
        self.assertEqual(self.claim_one(self.other).generation, 2)

    def test_what_was_put_off_by_a_clock_that_was_ahead_is_due(self) -> None:
        self.queue.submit(request("g1"))
        self.queue.defer(self.claim_one(), delay_s=30, why="docker is away")
        self.store.pass_time(-YEAR_S)
        self.assertEqual(self.claim_one().generation, 2)

    def test_what_was_accepted_by_a_clock_that_was_ahead_is_due(self) -> None:
        self.queue.submit(request("g1"))
        self.store.pass_time(-YEAR_S)
        self.assertEqual(self.claim_one().generation, 1)

    def test_what_requests_certain_images_may_be_claimed_before_its_turn(self) -> None:
        for game_id, image_ref in (("a", "x:1"), ("b", "y:1"), ("c", "x:1"), ("d", "z:1")):
            self.queue.submit(request(game_id, image_ref=image_ref))
        self.queue.submit(request("e", OpKind.STOP))
        self.assertEqual(self.queue.claim(9, images=[]), [])
        first = self.queue.claim(9, {OpKind.START}, images=["y:1", "z:1"])
        self.assertEqual(sorted(each.game_id for each in first), ["b", "d"])
        self.assertEqual([each.game_id for each in self.queue.claim(1)], ["a"], "and it is nobody's turn")
        self.assertEqual(sorted(each.game_id for each in self.queue.claim(9)), ["c", "e"])

    def test_for_how_long_temporary_answers_come_is_kept_and_silence_is_taken_off_but_for_the_first(self) -> None:
        self.queue.submit(request("g1"))
        first = self.claim_one()
        self.assertEqual((first.answer, first.answer_s, first.defects), ("", 0.0, 0))
        steps: tuple[tuple[str, bool, float], ...] = (
            ("busy", False, 100),
            ("busy", False, 200),
            ("other", False, 300),
            ("", False, 400),
            ("", False, 400),
            ("", True, 400),
            ("other", True, 500),
            ("", True, 600),
        )
        defects, operation = 0, first
        for answer, by_defect, expected_s in steps:
            self.queue.defer(operation, delay_s=0, why="it says so", answer=answer, by_defect=by_defect)
            self.store.pass_time(100)
            operation, defects = self.claim_one(), defects + by_defect
            self.assertEqual((operation.answer, operation.defects), (answer, defects))
            self.assertAlmostEqual(operation.answer_s, expected_s, delta=20)

    def test_an_answer_that_was_met_by_a_clock_that_was_ahead_counts_from_the_next_time(self) -> None:
        self.queue.submit(request("g1"))
        self.queue.defer(self.claim_one(), delay_s=0, why="it says so", answer="busy")
        self.store.pass_time(-YEAR_S)
        self.queue.defer(self.claim_one(), delay_s=0, why="it says so", answer="busy")
        self.store.pass_time(100)
        self.assertAlmostEqual(self.claim_one().answer_s, 100, delta=20)

    def test_without_a_temporary_answer_nothing_counts(self) -> None:
        self.queue.submit(request("g1"))
        operation = self.claim_one()
        for _ in range(3):
            self.queue.defer(operation, delay_s=0, why="silence")
            self.store.pass_time(100)
            operation = self.claim_one()
            self.assertEqual((operation.answer, operation.answer_s), ("", 0.0))

    def test_a_put_off_job_holds_up_its_own_game_only(self) -> None:
        self.accept(job(START, 1), job(STOP, 2), job(START, 3, start_fields("g2")))
        first = next(operation for operation in self.queue.claim(10) if operation.game_id == "g1")
        self.queue.defer(first, delay_s=30, why="docker is away")
        self.assertEqual(list(self.queue.claim(10)), [])
        self.store.pass_time(31)
        self.assertEqual(self.claim_one().operation_id, first.operation_id)

    def test_each_claim_has_a_greater_generation(self) -> None:
        self.queue.submit(request("g1"))
        generations = []
        for _ in range(3):
            operation = self.claim_one()
            generations.append(operation.generation)
            self.queue.defer(operation, delay_s=0, why="again")
        self.assertEqual(generations, sorted(set(generations)))

    def test_an_operation_that_has_not_ended_has_no_verdict(self) -> None:
        operation_id = self.queue.submit(request("g1"))
        self.assertIsNone(self.queue.verdict(operation_id))
        self.claim_one()
        self.assertIsNone(self.queue.verdict(operation_id))

    def test_what_is_not_there_any_more_or_another_one_under_its_id_is_forgotten(self) -> None:
        self.queue.submit(request("g1"))
        operation = self.claim_one()
        self.queue.finish(operation, ended())
        here, ref = operation.operation_id, operation.request.source_ref
        self.assertIsNotNone(self.queue.verdict(here, ref))
        for operation_id, source_ref in ((here + 1000, None), (here + 1000, ref), (here, "rest:another")):
            with self.subTest(operation_id=operation_id, source_ref=source_ref), self.assertRaises(UnknownOperation):
                self.queue.verdict(operation_id, source_ref)


class OwnershipContract(StoreContract):
    """Heartbeats, orphans, and former holders, which may write nothing."""

    def claimed(self, game_id: str = "g1") -> Operation:
        self.queue.submit(request(game_id))
        return self.claim_one()

    def test_a_heartbeat_names_what_is_still_ours(self) -> None:
        mine, lost = self.claimed("g1"), self.claimed("g2")
        self.queue.defer(lost, delay_s=0, why="again")
        self.claim_one(self.other)
        for skip_locked in (False, True):
            alive = self.queue.heartbeat([mine, lost], skip_locked=skip_locked)
            self.assertEqual(alive, {mine.operation_id})

    def test_what_has_the_id_of_an_operation_and_is_another_one_is_left_alone(self) -> None:
        """A restore set the database back, and it assigns its ids again."""
        here = self.claimed()
        others: tuple[dict[str, Any], ...] = ({"game_id": "g9"}, {"source_ref": "rest:another"})
        for changed in others:
            forgotten = replace(here, request=replace(here.request, **changed))
            with self.subTest(changed), self.assertRaises(ClaimLost):
                self.queue.finish(forgotten, ended())
            self.queue.defer(forgotten, delay_s=0, why="of old")
            self.assertEqual(self.queue.heartbeat([forgotten]), set())
            self.assertEqual(self.queue.heartbeat([forgotten], skip_locked=True), set())
        self.assertEqual(self.queue.heartbeat([here]), {here.operation_id})
        self.queue.finish(here, ended())

    def test_a_heartbeat_of_a_clock_that_was_ahead_keeps_nothing_alive(self) -> None:
        claimed = self.claimed()
        self.store.pass_time(-YEAR_S)
        self.assertEqual(list(self.other.reclaim_orphans()), [], "its owner may live: the next heartbeat counts")
        self.store.pass_time(self.store.lease_s + 1)
        self.assertEqual([each.operation_id for each in self.other.reclaim_orphans()], [claimed.operation_id])

    def test_of_several_ends_those_are_written_that_no_other_claim_has(self) -> None:
        mine, lost = self.claimed("g1"), self.claimed("g2")
        self.queue.defer(lost, delay_s=0, why="again")
        self.claim_one(self.other)
        endings = [(each, ended(log=(log_entry(each.game_id),))) for each in (mine, lost)]
        self.assertEqual(self.queue.finish_together(endings), {mine.operation_id})
        self.assertEqual([row.game_id for row in self.store.log_rows()], ["g1"])
        self.assertIsNone(self.queue.verdict(lost.operation_id))

    def test_of_several_ends_one_that_was_decided_on_another_record_is_not_written(self) -> None:
        mine, changed = self.claimed("g1"), self.claimed("g2")
        self.store.put_record(record("g2", current_container_id="c-now"))
        late = ended(new=record("g2"), log=(log_entry("g2"),))
        self.assertEqual(self.queue.finish_together([(changed, late), (mine, ended())]), {mine.operation_id})
        self.assertEqual(list(self.store.log_rows()), [])
        self.assertIsNone(self.queue.verdict(changed.operation_id))

    def test_an_end_that_changes_no_record_is_not_written_when_the_one_that_it_rests_on_changed(self) -> None:
        for now in (record("g1", current_container_id="c-now"), record("g1", Status.REMOVED)):
            with self.subTest(now.status):
                self.store.put_record(now)
                operation = self.claimed("g1")
                late = ended(seen=record("g1", current_container_id="c-then"), log=(log_entry(),))
                with self.assertRaises(RecordConflict):
                    self.queue.finish(operation, late)
                self.assertEqual(self.queue.finish_together([(operation, late)]), set())
                self.assertEqual(list(self.store.log_rows()), [])
                self.queue.finish(operation, ended(seen=now))  # still ours
                self.assertEqual(self.store.records().get("g1"), now)

    def test_of_several_ends_none_is_written_when_one_is_refused(self) -> None:
        mine, refused = self.claimed("g1"), self.claimed("g2")
        endings = [(mine, ended()), (refused, ended(log=(log_entry("g2", error_message="a \0"),)))]
        with self.assertRaises(StoreRejected):
            self.queue.finish_together(endings)
        self.assertIsNone(self.queue.verdict(mine.operation_id))

    def test_nothing_is_an_orphan_while_its_instance_gives_both_signs_of_life(self) -> None:
        operation = self.claimed()
        self.store.pass_time(self.store.lease_s - 2)
        self.assertEqual(list(self.other.reclaim_orphans()), [])
        self.queue.heartbeat([operation], skip_locked=True)
        self.store.pass_time(self.store.lease_s - 2)
        self.assertEqual(list(self.other.reclaim_orphans()), [])

    def test_an_instance_that_is_silent_for_a_lease_loses_its_operations(self) -> None:
        operation = self.claimed()
        self.store.pass_time(self.store.lease_s + 1)
        (orphan,) = self.other.reclaim_orphans()
        self.assertEqual(
            (orphan.operation_id, orphan.game_id, orphan.kind, orphan.ours),
            (operation.operation_id, "g1", OpKind.START, False),
        )
        self.assertGreater(self.claim_one(self.other).generation, operation.generation)
        self.assertEqual(list(self.queue.reclaim_orphans()), [])

    def test_an_instance_whose_session_is_gone_loses_them_after_the_grace_time(self) -> None:
        third = self.store.queue(3)
        session = self.store.session_lock(3)
        session.show()
        third.submit(request("g1"))
        self.claim_one(third)
        self.store.pass_time(self.store.grace_s + 1)
        self.assertEqual(list(self.queue.reclaim_orphans()), [])
        session.close()
        self.assertEqual([orphan.game_id for orphan in self.queue.reclaim_orphans()], ["g1"])

    def test_an_instance_whose_session_has_just_gone_may_still_show_itself_again(self) -> None:
        third = self.store.queue(3)
        third.submit(request("g1"))
        self.claim_one(third)
        self.assertEqual(list(self.queue.reclaim_orphans()), [])

    def test_an_orphan_keeps_its_place_before_later_jobs_of_its_game(self) -> None:
        self.accept(job(START, 1), job(STOP, 2))
        self.claim_one()
        self.store.pass_time(self.store.lease_s + 1)
        self.other.reclaim_orphans()
        self.assertIs(self.claim_one(self.other).request.kind, OpKind.START)

    def lose(self, operation: Operation) -> Operation:
        self.store.pass_time(self.store.lease_s + 1)
        self.other.reclaim_orphans()
        return self.claim_one(self.other)

    def test_the_former_holder_cannot_write_an_end(self) -> None:
        operation = self.claimed()
        now_held = self.lose(operation)
        with self.assertRaises(ClaimLost):
            self.queue.finish(operation, ended(new=record("g1"), log=(log_entry(),)))
        self.assertIsNone(self.store.records().get("g1"))
        self.assertEqual(list(self.store.log_rows()), [])
        self.other.finish(now_held, ended())

    def test_the_former_holder_cannot_give_it_back_or_keep_it_alive(self) -> None:
        operation = self.claimed()
        now_held = self.lose(operation)
        self.queue.defer(operation, delay_s=0, why="not mine to say")
        self.assertEqual(self.queue.heartbeat([operation]), set())
        self.assertEqual(list(self.queue.claim(10)), [])
        self.other.finish(now_held, ended())

    def test_an_orphan_that_nobody_claimed_yet_cannot_be_ended_by_its_former_holder(self) -> None:
        operation = self.claimed()
        self.store.pass_time(self.store.lease_s + 1)
        self.other.reclaim_orphans()
        with self.assertRaises(ClaimLost):
            self.queue.finish(operation, ended())

    def test_what_an_instance_holds_when_it_stops_is_handed_back(self) -> None:
        mine = self.claimed("g1")
        self.queue.submit(request("g2"))
        theirs = self.claim_one(self.other)
        self.assertEqual(list(self.queue.hand_back()), [mine.operation_id])
        self.assertEqual(self.claim_one(self.other).operation_id, mine.operation_id)
        self.assertEqual(self.other.heartbeat([theirs]), {theirs.operation_id})

    def test_a_claim_of_our_own_that_we_do_not_work_on_is_due_again_after_the_grace_time(self) -> None:
        lost, worked_on = self.claimed("g1"), self.claimed("g2")
        self.store.pass_time(self.store.grace_s + 1)
        found = self.queue.reclaim_orphans([worked_on.operation_id])
        self.assertEqual([(orphan.operation_id, orphan.ours) for orphan in found], [(lost.operation_id, True)])

    def test_an_instance_that_has_just_come_itself_takes_nobody_for_dead(self) -> None:
        self.claimed("g1")
        absent = self.store.queue(3)
        self.queue.hand_back()
        self.claim_one(absent)
        self.store.pass_time(self.store.grace_s + 1)
        self.assertEqual(list(self.queue.reclaim_orphans(by_presence=False)), [])
        self.assertEqual(len(self.queue.reclaim_orphans(by_presence=True)), 1)

    def test_a_claim_takes_only_the_requested_kinds_and_no_game_jumps_its_queue(self) -> None:
        self.accept(job(START, 1), job(STOP, 2), job(STOP, 3, stop_fields("g2")))
        claimed = self.queue.claim(10, {OpKind.STOP})
        self.assertEqual([operation.game_id for operation in claimed], ["g2"])

    def test_an_end_is_written_once(self) -> None:
        operation = self.claimed()
        self.queue.finish(operation, ended(log=(log_entry(),)))
        with self.assertRaises(ClaimLost):
            self.queue.finish(operation, ended(log=(log_entry(),)))
        self.assertEqual(len(self.store.log_rows()), 1)


class EndingContract(StoreContract):
    """The completion of an operation is written as a whole or not at all."""

    def operation(self) -> Operation:
        self.queue.submit(request("g1"))
        return self.claim_one()

    def test_the_verdict_has_how_it_ended(self) -> None:
        operation = self.operation()
        completion = ended(Outcome.FAILURE, error_code=ErrorCode.CONFLICT, error_message="no")
        self.queue.finish(operation, completion)
        verdict = self.other.verdict(operation.operation_id)
        assert verdict is not None
        self.assertEqual(
            (verdict.outcome, verdict.error_code, verdict.error_message), (Outcome.FAILURE, ErrorCode.CONFLICT, "no")
        )

    def test_a_success_without_a_code_has_none_in_its_verdict(self) -> None:
        operation = self.operation()
        self.queue.finish(operation, ended())
        verdict = self.queue.verdict(operation.operation_id)
        assert verdict is not None
        self.assertEqual((verdict.outcome, verdict.error_code, verdict.error_message), (Outcome.SUCCESS, None, ""))

    def test_log_rows_are_kept_in_order_and_whole(self) -> None:
        rows = (
            log_entry(kind=OpKind.STOP, image_ref="galaxy/game:1.0.0", container_id="c-1"),
            log_entry(
                kind=OpKind.START,
                outcome=Outcome.FAILURE,
                error_code=ErrorCode.CONTAINER_START_FAILED,
                error_message="no space € left",
            ),
            log_entry(kind=OpKind.RESTART, error_code=ErrorCode.REPLAY_NO_OP),
        )
        self.queue.finish(self.operation(), ended(log=rows))
        self.assertEqual(tuple(self.store.log_rows()), rows)

    def event(self, kind: EventType, **details: object) -> HealthEvent:
        return HealthEvent("g1", "c-1", kind, HealthSource.INSPECT, NOW, details)

    def test_the_last_health_event_is_the_snapshot(self) -> None:
        self.assertIsNone(self.store.snapshot("g1"))
        events = (
            self.event(EventType.CONTAINER_STARTED, image_ref="i"),
            self.event(EventType.CONTAINER_EXITED, exit_code=3, oom=False),
        )
        self.queue.finish(self.operation(), ended(health=events))
        found = self.store.snapshot("g1")
        self.assertEqual(found, ("c-1", HealthStatus.EXITED, HealthSource.INSPECT, {"exit_code": 3, "oom": False}))

    def test_each_health_event_is_due_as_a_message_before_the_other_messages(self) -> None:
        result = Message(Stream.JOB_RESULTS, {"game_id": "g1"})
        event = self.event(EventType.CONTAINER_STARTED, image_ref="i")
        self.queue.finish(self.operation(), ended(health=(event,), messages=(result,)))
        self.assertEqual([message.stream for message in self.due()], [Stream.HEALTH_EVENTS, Stream.JOB_RESULTS])

    def test_a_message_keeps_its_fields_and_their_order(self) -> None:
        fields = {"zebra": "1", "game_id": "gé€1", "empty": "", "json": '{"a":"\\u0000"}'}
        self.queue.finish(self.operation(), ended(messages=(Message(Stream.JOB_RESULTS, fields),)))
        (message,) = self.due()
        self.assertEqual(list(message.fields.items()), list(fields.items()))

    def test_what_the_store_can_never_take_is_refused_and_leaves_no_trace(self) -> None:
        operation = self.operation()
        poison = ended(
            new=record("g1"),
            log=(log_entry(), log_entry(error_message="nul \0 here")),
            messages=(Message(Stream.JOB_RESULTS, {"a": "b"}),),
        )
        with self.assertRaises(StoreRejected):
            self.queue.finish(operation, poison)
        self.assertIsNone(self.store.records().get("g1"))
        self.assertEqual((list(self.store.log_rows()), self.due()), ([], []))
        self.queue.finish(operation, ended())  # still ours to end


class InboxContract(StoreContract):
    """Entries become operations once."""

    def test_an_entry_becomes_an_operation_with_all_its_values(self) -> None:
        self.accept(job(STOP, 7, stop_fields("g1", reason="timeout")))
        submitted = self.claim_one().request
        self.assertEqual((submitted.game_id, submitted.kind, submitted.reason), ("g1", OpKind.STOP, "timeout"))
        self.assertEqual(submitted.source_ref, "runtime:stop_jobs:7-0")

    def test_a_problem_is_kept_with_its_operation(self) -> None:
        self.accept(job(START, 7, start_fields("g1", image_ref="NOT GOOD")))
        problem = self.claim_one().request.problem
        assert problem is not None
        self.assertIs(problem[0], ErrorCode.START_CONFIG_INVALID)
        self.assertIn("NOT GOOD", problem[1])

    def test_an_entry_that_is_delivered_twice_is_one_operation(self) -> None:
        self.accept(job(START, 7), job(START, 7))
        self.accept(job(START, 7), job(STOP, 8))
        self.assertEqual([position for _, position in self.drain()], [7, 8])
        self.accept(job(START, 7))
        self.assertEqual(list(self.queue.claim(10)), [])

    def test_another_entry_under_a_known_id_is_an_operation_of_its_own_and_known_from_then_on(self) -> None:
        """A stream was lost, and Redis assigns its ids again."""
        jobs = [job(STOP, 7, stop_fields(game_id)) for game_id in ("g1", "g2", "g3")]
        for each in jobs:
            self.accept(each)
        self.accept(*jobs)
        claimed = self.queue.claim(10)
        self.assertEqual(sorted(operation.game_id for operation in claimed), ["g1", "g2", "g3"])
        refs = {operation.game_id: operation.request.source_ref for operation in claimed}
        self.assertEqual((refs["g1"], len(set(refs.values()))), ("runtime:stop_jobs:7-0", 3))

    def test_two_entries_of_one_batch_under_one_id_are_two_operations(self) -> None:
        self.accept(job(STOP, 7, stop_fields("g1")), job(STOP, 7, stop_fields("g2")), job(STOP, 7, stop_fields("g1")))
        self.assertEqual(len(self.queue.claim(10)), 2)

    def test_whoever_holds_the_turn_is_known_and_each_time_another(self) -> None:
        held = []
        for _ in range(2):
            self.assertIsNone(self.store.inbox().holder())
            with self.store.inbox().lock():
                held.append(self.store.inbox().holder())
                self.assertEqual(self.store.inbox().holder(), held[-1])
                self.assertIsNone(self.store.outbox().holder())
        self.assertTrue(all(each is not None and each.like_manager for each in held))
        self.assertNotEqual(*held)

    def test_another_dead_letter_under_a_known_id_is_due_too(self) -> None:
        letters = [job(START, 7, {"who": who}) for who in ("nobody", "somebody")]
        for letter in (*letters, *letters):
            self.accept(letter)
        self.assertEqual(len(self.due()), 2)

    def test_the_latest_entry_of_each_stream_is_known_whatever_became_of_it(self) -> None:
        self.assertEqual(self.latest(), {})
        self.accept(job(START, 7), job(START, 9), job(START, 8))
        self.assertEqual(self.latest(), {START: EntryId(9, 0)})
        self.accept(job(START, 10, {"who": "nobody"}), job(STOP, 3))
        self.drain()
        self.assertEqual(self.latest(), {START: EntryId(10, 0), STOP: EntryId(3, 0)})

    def latest(self) -> dict[Stream, EntryId]:
        with self.store.inbox().lock() as lock:
            assert lock is not None
            return dict(lock.latest())

    def test_equal_ids_on_the_two_streams_are_two_operations(self) -> None:
        self.accept(job(START, 7), job(STOP, 7))
        self.assertEqual(len(self.drain()), 2)

    def test_a_dead_letter_is_due_once_however_often_it_is_delivered(self) -> None:
        letter = job(START, 7, {"who": "nobody"})
        self.accept(letter, letter)
        self.accept(letter)
        (message,) = self.due()
        self.assertIs(message.stream, Stream.DEAD_LETTERS)
        self.assertEqual(message.fields["entry_id"], "7-0")
        self.assertEqual(list(self.queue.claim(10)), [])

    def test_only_one_instance_has_the_turn(self) -> None:
        with self.store.inbox().lock() as mine, self.store.inbox().lock() as theirs:
            self.assertIsNotNone(mine)
            self.assertIsNone(theirs)
        with self.store.inbox().lock() as mine:
            self.assertIsNotNone(mine)

    def test_a_turn_that_ends_in_an_error_takes_nothing_over(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.store.inbox().lock() as lock:
            assert lock is not None
            lock.accept([job(START, 7), job(START, 8, {"who": "nobody"})])
            raise ZeroDivisionError
        self.assertEqual((list(self.queue.claim(10)), self.due()), ([], []))
        self.accept(job(START, 7))
        self.claim_one()

    def test_nothing_is_durable_before_the_turn_ends(self) -> None:
        with self.store.inbox().lock() as lock:
            assert lock is not None
            lock.accept([job(START, 7)])
            self.assertEqual(list(self.queue.claim(10)), [])
        self.claim_one()

    def test_an_empty_batch_is_fine(self) -> None:
        self.accept()
        self.assertEqual(list(self.queue.claim(10)), [])

    def test_an_earlier_entry_of_another_game_holds_nothing_up(self) -> None:
        self.accept(*(job(START, 10 - n, start_fields(f"g{n}")) for n in range(3)))
        self.assertEqual(len(self.queue.claim(10)), 3)


class OutboxContract(StoreContract):
    """Messages are due in order until they are deleted."""

    def promise(self, *messages: Message) -> None:
        self.queue.submit(request("g1"))
        self.queue.finish(self.claim_one(), ended(messages=messages))

    def numbered(self, stream: Stream, count: int) -> list[Message]:
        return [Message(stream, {"n": str(n)}) for n in range(count)]

    def test_messages_are_due_in_the_order_of_their_ids(self) -> None:
        messages = [
            message
            for pair in zip(
                self.numbered(Stream.JOB_RESULTS, 4), self.numbered(Stream.NOTIFICATION_INTENTS, 4), strict=True
            )
            for message in pair
        ]
        self.promise(*messages)
        with self.store.outbox().lease() as lease:
            assert lease is not None
            due = lease.due(100, 1 << 20)
        self.assertEqual([d.message for d in due], messages)
        self.assertEqual([d.message_id for d in due], sorted({d.message_id for d in due}))

    def test_the_limit_holds_for_each_stream_by_itself(self) -> None:
        self.promise(*self.numbered(Stream.JOB_RESULTS, 5), *self.numbered(Stream.HEALTH_EVENTS, 2))
        with self.store.outbox().lease() as lease:
            assert lease is not None
            due = [(d.message.stream, d.message.fields["n"]) for d in lease.due(3, 1 << 20)]
        results = [(Stream.JOB_RESULTS, str(n)) for n in range(3)]
        self.assertEqual(due, [*results, (Stream.HEALTH_EVENTS, "0"), (Stream.HEALTH_EVENTS, "1")])

    def test_a_batch_is_bounded_in_bytes_for_each_stream_and_has_one_message_of_each_in_any_case(self) -> None:
        large = [Message(Stream.DEAD_LETTERS, {"n": str(n), "fields": "x" * 10_000}) for n in range(3)]
        self.promise(*large, *self.numbered(Stream.JOB_RESULTS, 2))
        with self.store.outbox().lease() as lease:
            assert lease is not None
            for size, letters, results in ((1, 1, 1), (9_000, 1, 2), (11_000, 2, 2), (1 << 20, 3, 2)):
                streams = [due.message.stream for due in lease.due(100, size)]
                found = streams.count(Stream.DEAD_LETTERS), streams.count(Stream.JOB_RESULTS)
                self.assertEqual(found, (letters, results), size)

    def test_what_is_deleted_is_gone_after_the_turn(self) -> None:
        self.promise(*self.numbered(Stream.JOB_RESULTS, 3))
        with self.store.outbox().lease() as lease:
            assert lease is not None
            ids = [d.message_id for d in lease.due(100, 1 << 20)]
            lease.delete(ids[:2])
            self.assertEqual(lease.still_waiting([*ids, ids[-1] + 100]), {ids[2]})
        self.assertEqual([message.fields["n"] for message in self.due()], ["2"])

    def test_a_turn_that_ends_in_an_error_deletes_nothing(self) -> None:
        self.promise(*self.numbered(Stream.JOB_RESULTS, 2))
        with self.assertRaises(ZeroDivisionError), self.store.outbox().lease() as lease:
            assert lease is not None
            lease.delete([d.message_id for d in lease.due(100, 1 << 20)])
            raise ZeroDivisionError
        self.assertEqual(len(self.due()), 2)

    def test_only_one_instance_has_the_turn(self) -> None:
        with self.store.outbox().lease() as mine, self.store.outbox().lease() as theirs:
            self.assertIsNotNone(mine)
            self.assertIsNone(theirs)

    def test_the_turns_of_inbox_and_outbox_do_not_stand_in_each_others_way(self) -> None:
        with self.store.inbox().lock() as reading, self.store.outbox().lease() as publishing:
            self.assertIsNotNone(reading)
            self.assertIsNotNone(publishing)

    def number(self) -> int:
        with self.store.outbox().lease() as lease:
            assert lease is not None
            return lease.number

    def test_the_number_of_a_turn_grows_even_over_one_that_ended_in_an_error(self) -> None:
        first = self.number()
        with self.assertRaises(ZeroDivisionError), self.store.outbox().lease():
            raise ZeroDivisionError
        self.assertGreater(self.number(), first + 1)

    def test_the_number_can_be_raised_above_what_redis_has_seen(self) -> None:
        with self.store.outbox().lease() as lease:
            assert lease is not None
            lease.raise_number(1_000_000)
        self.assertGreater(self.number(), 1_000_000)


class IntentsContract(StoreContract):
    """Intents are counted by type and minute; those left out of a minute become one summary."""

    def message(self, game_id: str, code: ErrorCode = ErrorCode.IMAGE_PULL_FAILED) -> Message:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        return intent(
            code, game_id=game_id, image_ref="x:1", message="why", source_ref="rest:1", attempted_at=at, now=at
        )

    @contextmanager
    def lease(self) -> Iterator[RelayLease]:
        with self.store.outbox().lease() as lease:
            assert lease is not None
            yield lease

    def count(self, sent: int, *left_out: str, code: ErrorCode = ErrorCode.IMAGE_PULL_FAILED) -> None:
        count = IntentCount(sent, [self.message(game_id, code) for game_id in left_out])
        with self.lease() as lease:
            lease.count_intents({INTENT_OF[code]: count})

    def sent(self) -> Mapping[str, int]:
        with self.lease() as lease:
            return lease.intents_sent()

    def test_at_first_nothing_was_sent(self) -> None:
        self.assertEqual(self.sent(), {})

    def test_what_is_counted_adds_up_by_type_whichever_instance_counts(self) -> None:
        self.count(3)
        self.count(2, "g1")
        self.count(1, code=ErrorCode.START_CONFIG_INVALID)
        self.assertEqual(self.sent(), {"runtime.image_pull_failed": 5, "runtime.start_config_invalid": 1})

    def test_a_turn_that_ends_in_an_error_counts_nothing(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.lease() as lease:
            lease.count_intents({"runtime.image_pull_failed": IntentCount(3)})
            raise ZeroDivisionError
        self.assertEqual(self.sent(), {})

    def test_a_minute_that_left_nothing_out_ends_in_silence(self) -> None:
        self.count(60)
        self.store.pass_time(61)
        with self.lease() as lease:
            self.assertFalse(lease.summary_due)
            self.assertEqual(lease.intents_sent(), {})
        self.assertEqual(self.due(), [])

    def test_within_the_minute_no_summary_is_due(self) -> None:
        self.count(60, "g1")
        self.store.pass_time(50)
        with self.lease() as lease:
            self.assertFalse(lease.summary_due)
            self.assertEqual(lease.intents_sent(), {"runtime.image_pull_failed": 60})
        self.assertEqual(self.due(), [])

    def test_after_the_minute_one_summary_stands_for_what_it_left_out(self) -> None:
        self.count(60)
        self.count(0, "g1", "g2")
        self.count(0, "g3", code=ErrorCode.START_CONFIG_INVALID)
        self.count(0, "g4")
        self.store.pass_time(61)
        with self.lease() as lease:
            self.assertTrue(lease.summary_due)
            self.assertEqual(lease.intents_sent(), {})
        summaries = {each.fields["notification_type"]: each for each in self.due()}
        self.assertEqual(len(self.due()), 2)
        payload = json.loads(summaries["runtime.image_pull_failed"].fields["payload_json"])
        self.assertEqual((payload["game_id"], payload["error_code"]), ("g1", "image_pull_failed"))
        self.assertRegex(payload["error_message"], "^3 more failures .* the first was game g1: why$")
        payload = json.loads(summaries["runtime.start_config_invalid"].fields["payload_json"])
        self.assertRegex(payload["error_message"], "^1 more failure ")
        with self.lease() as lease:
            self.assertFalse(lease.summary_due)
            lease.intents_sent()
        self.assertEqual(len(self.due()), 2)

    def test_a_summary_is_itself_not_limited_and_has_a_key_of_its_minute(self) -> None:
        keys = []
        for _ in range(2):
            self.count(60, "g1")
            self.store.pass_time(61)
            self.sent()
            keys = [each.fields["idempotency_key"] for each in self.due()]
            self.assertEqual([limited_type(each) for each in self.due()], [None] * len(keys))
        self.assertEqual((len(keys), len(set(keys))), (2, 2))

    def test_a_turn_that_ends_in_an_error_makes_no_summary_and_the_next_one_does(self) -> None:
        self.count(60, "g1")
        self.store.pass_time(61)
        with self.assertRaises(ZeroDivisionError), self.lease() as lease:
            lease.intents_sent()
            raise ZeroDivisionError
        self.assertEqual(self.due(), [])
        self.sent()
        self.assertEqual(len(self.due()), 1)
