"""The store in memory: records, queue, inbox and outbox with the semantics of `adapters/postgres`.

One `MemoryStore` is one database. Each instance that uses it gets a `MemoryQueue` and a `MemorySessionLock` of its own.
It passes the same `rtmanager.tests.store_contract` as PostgreSQL. It uses the clock that it gets and has no threads of
its own, so a seeded test is reproducible.
"""

from __future__ import annotations

import itertools
import json
from bisect import insort
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from rtmanager.domain.daemon import Daemon
from rtmanager.domain.findings import Alarm, AlarmKind, HealthReport, RestartCause, Snapshot
from rtmanager.domain.game import same_name
from rtmanager.domain.health import HealthEvent
from rtmanager.domain.jobs import DUPLICATE_ID_MARK, STREAM_ORDER, EntryId, Job
from rtmanager.domain.messages import Message, Stream, epoch_ms, health_message, intents_summary
from rtmanager.domain.operation import QUEUED, Changes, Completion, LogEntry, Operation, OpKind, Request
from rtmanager.domain.outage import LastExit
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.domain.restarts import keeps_plan, next_try
from rtmanager.fakes.answers import record_json
from rtmanager.fakes.fault_injector import FaultInjector, call
from rtmanager.ports.clock import Clock
from rtmanager.ports.store import (
    LONGEST_DELAY_S,
    ClaimLost,
    GameBusy,
    Namesake,
    OperationResult,
    OrphanedClaim,
    RecordConflict,
    StoreRejected,
    UnknownOperation,
)
from rtmanager.ports.streams import DueMessage, IntentCount, LeaseHolder, Place, PulledImage, Purged

#: An id that is ahead by more is of a Redis whose clock was wrong.
DAY_MS = 86_400_000
#: Position of a call among the jobs of its game: before all of them.
CALL_POSITION = (EntryId(-1, -1), -1)


class ManualClock:
    """A clock that a test sets."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.start = self.moment = start
        #: Seconds that have passed, without the jumps.
        self.passed_s = 0.0

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.passed_s += seconds
        self.jump(seconds)

    def jump(self, seconds: float) -> None:
        """Set the clock forward or back, without time passing."""
        self.moment += timedelta(seconds=seconds)


@dataclass(slots=True, order=True)
class Row:
    """One row of the operations table; rows of one game sort in their order of execution."""

    position: tuple[EntryId, int]
    operation_id: int
    request: Request = field(compare=False)
    accepted_at: datetime = field(compare=False)
    not_before: datetime = field(compare=False)
    state: str = field(default="due", compare=False)
    owner: int | None = field(default=None, compare=False)
    generation: int = field(default=0, compare=False)
    heartbeat_at: datetime | None = field(default=None, compare=False)
    deferrals: int = field(default=0, compare=False)
    deferred_why: str | None = field(default=None, compare=False)
    answer: str = field(default="", compare=False)
    answer_since: datetime | None = field(default=None, compare=False)
    defects: int = field(default=0, compare=False)
    verdict: OperationResult | None = field(default=None, compare=False)
    claims_name: bool = field(default=False, compare=False)
    ends_container: str | None = field(default=None, compare=False)
    finished_at: datetime | None = field(default=None, compare=False)


class PlannedRestart(NamedTuple):
    """One row of the planned restarts."""

    container_id: str
    due_at: datetime
    cause: RestartCause
    tries: int = 0


class MemoryStore:
    """The database. Tests may read its public attributes; `put_record` acts as another writer."""

    def __init__(self, clock: Clock, *, lease_s: float = 60.0, grace_s: float = 3.0) -> None:
        self.clock = clock
        self.lease_s = lease_s
        self.grace_s = grace_s
        self.trouble = FaultInjector("postgres")
        self.operations: dict[int, Row] = {}
        self.records_by_game: dict[str, RuntimeRecord] = {}
        self.log: list[LogEntry] = []
        self.snapshots: dict[str, HealthEvent] = {}
        self.messages: dict[int, Message] = {}
        self.present: set[int] = set()
        self.relay_number = 0
        self.leases: dict[str, _Transaction] = {}
        self.transactions = itertools.count(1)
        self.live: dict[str, list[Row]] = {}
        self.alarms: dict[tuple[str, AlarmKind], Alarm] = {}
        self.last_exits: dict[str, LastExit] = {}
        self.planned_restarts: dict[str, PlannedRestart] = {}
        self.watch_turns: dict[str, tuple[int, datetime]] = {}
        self.daemon: Daemon | None = None
        self.deployment = "deployment-1"
        self.intent_windows: dict[str, tuple[datetime, IntentCount]] = {}
        self.forgotten: dict[Stream, EntryId] = {}
        #: The same of entries whose ids were in the future when they were deleted.
        self.forgotten_ahead: dict[Stream, EntryId] = {}
        self._entries: dict[tuple[Stream, EntryId], list[str]] = {}
        #: When the first entry under an id was accepted.
        self._accepted: dict[tuple[Stream, EntryId], datetime] = {}
        #: When an entry that names no game was accepted.
        self._letters: dict[tuple[Stream, EntryId], datetime] = {}
        self._next_operation = 1
        self._next_message = 1
        self._refusals = 0
        self.records = MemoryRecords(self)
        self.inbox = MemoryInbox(self)
        self.outbox = MemoryOutbox(self)
        self.purge = MemoryPurge(self)
        self.images = MemoryImages(self)
        self.daemons = MemoryDaemons(self)

    def queue(self, owner: int = 1) -> MemoryQueue:
        """The queue of one instance, which has its session lock from now on."""
        self.present.add(owner)
        return MemoryQueue(self, owner)

    def put_record(self, record: RuntimeRecord) -> None:
        """Write a record as another writer would, whatever was there."""
        with self.trouble.lock:
            self.records_by_game[record.game_id] = record

    def refuse_endings(self, count: int) -> None:
        """Reject the next completions for good, as PostgreSQL does with data that it cannot store."""
        self._refusals = count

    def break_turns(self) -> None:
        """End the transactions of all locks, as PostgreSQL does when a holder is silent for too long."""
        with self.trouble.lock:
            self.leases.clear()

    def turn_holder(self, kind: str) -> LeaseHolder | None:
        """The holder of the lock of this kind, which is always a manager; None when it is free."""
        with self.trouble.lock:
            lock = self.leases.get(kind)
        return (
            None if lock is None else LeaseHolder("session 1", str(lock.transaction), like_manager=True, remedy="none")
        )

    def add_row(self, request: Request, position: tuple[EntryId, int]) -> Row:
        """Add a new operation, due now."""
        now = self.clock()
        row = Row(position, self._next_operation, request, accepted_at=now, not_before=now)
        self._next_operation += 1
        self.operations[row.operation_id] = row
        insort(self.live.setdefault(request.game_id, []), row)
        return row

    def is_forgotten(self, job: Job) -> bool:
        """Whether the entry was accepted earlier, though its rows may be deleted."""
        entry, now_ms = job.entry, epoch_ms(self.clock())
        marks = (each.get(entry.stream, EntryId(-1, -1)) for each in (self.forgotten, self.forgotten_ahead))
        return any(
            entry.entry_id <= mark and not entry.entry_id.milliseconds - DAY_MS <= now_ms <= mark.milliseconds
            for mark in marks
        )

    def add_job(self, job: Job) -> None:
        """Accept an entry; a known one changes nothing."""
        if self.is_forgotten(job):
            return
        known = self._entries.setdefault((job.entry.stream, job.entry.entry_id), [])
        if job.entry.digest in known:
            return
        apart = DUPLICATE_ID_MARK + job.entry.digest if known else ""
        known.append(job.entry.digest)
        self._accepted.setdefault((job.entry.stream, job.entry.entry_id), self.clock())
        if isinstance(job.becomes, Message):
            self.add_message(job.becomes)
            self._letters[job.entry.stream, job.entry.entry_id] = self.clock()
        else:
            renamed = replace(job.becomes, source_ref=job.becomes.source_ref + apart)
            self.add_row(renamed, job.entry.position)

    def latest_entries(self) -> Mapping[Stream, EntryId]:
        """The highest accepted entry of each stream."""
        latest: dict[Stream, EntryId] = {}
        for stream, entry_id in [*self.forgotten.items(), *self.forgotten_ahead.items(), *self._entries]:
            latest[stream] = max(entry_id, latest.get(stream, entry_id))
        return latest

    def forget_entries(self, stream: Stream, after: EntryId) -> None:
        """Set the store back, as a restore does: delete all entries after this one."""
        for key in [key for key in self._entries if key[0] is stream and key[1] > after]:
            del self._entries[key], self._accepted[key]
        for row in [row for row in self.operations.values() if STREAM_ORDER[stream] == row.position[1]]:
            if row.position[0] > after:
                del self.operations[row.operation_id]
                self.live[row.request.game_id].remove(row)

    def name_holder(self, game_id: str) -> Namesake | None:
        """Another game whose name differs only in case: by its record first, or by a start under way."""
        for other, record in sorted(self.records_by_game.items()):
            if other != game_id and same_name(other, game_id) and record.status is not Status.REMOVED:
                return Namesake(other, record.status)
        for other, rows in self.live.items():
            if other != game_id and same_name(other, game_id) and any(row.claims_name for row in rows):
                return Namesake(other, None)
        return None

    def forget_entry(self, stream: Stream, entry_id: EntryId) -> None:
        """Delete what recognises an entry, and raise the mark of forgotten entries."""
        self._entries.pop((stream, entry_id), None)
        self._accepted.pop((stream, entry_id), None)
        self._letters.pop((stream, entry_id), None)
        marks = self.forgotten if entry_id.milliseconds < epoch_ms(self.clock()) else self.forgotten_ahead
        marks[stream] = max(entry_id, marks.get(stream, entry_id))

    def accepted_from(self, stream: Stream, since: EntryId) -> list[tuple[EntryId, datetime]]:
        """The accepted entries of a stream from one on, in order, and when they were accepted."""
        return sorted((each[1], at) for each, at in self._accepted.items() if each[0] is stream and each[1] >= since)

    def letters_before(self, moment: datetime) -> list[tuple[Stream, EntryId]]:
        """Entries that name no game and were accepted before `moment`."""
        return [entry for entry, received_at in self._letters.items() if received_at < moment]

    def add_message(self, message: Message) -> None:
        """Add a due message."""
        self.messages[self._next_message] = message
        self._next_message += 1

    def end(self, row: Row, completion: Completion) -> None:
        """Write a completion as a whole or not at all. Raises `RecordConflict` or `StoreRejected`."""
        self.check_endurable(row, completion)
        self.write(row.request.game_id, completion)
        row.state, row.finished_at = "done", self.clock()
        row.verdict = OperationResult(completion.outcome, completion.error_code, completion.error_message)
        game = self.live[row.request.game_id]
        game.remove(row)
        if not game:
            del self.live[row.request.game_id]
        if not keeps_plan(row.request, completion):
            self.planned_restarts.pop(row.request.game_id, None)
        following = next_try(row.request, completion)
        if following is not None:
            due_at = self.clock() + timedelta(seconds=following.pause_s)
            plan = PlannedRestart(following.container_id, due_at, RestartCause.OUTAGE, following.tries)
            self.planned_restarts[row.request.game_id] = plan

    def write(self, game_id: str, changes: Changes) -> None:
        """Write what an end or a finding changes. Raises `RecordConflict`."""
        if changes.new is not None or changes.seen is not None:
            stored = self.records_by_game.get(game_id)
            if state_of(stored) != state_of(changes.seen):
                raise RecordConflict(f"the record of game {game_id} changed while it was worked on")
            if changes.new is not None:
                # Only an insert writes `created_at`.
                created_at = stored.created_at if stored else changes.new.created_at
                self.records_by_game[game_id] = replace(changes.new, created_at=created_at)
        self.log.extend(changes.log)
        for event in changes.health:
            self.write_event(event)
        if changes.last_exit is not None:
            self.last_exits[game_id] = changes.last_exit
        for message in changes.messages:
            self.add_message(message)

    def write_event(self, event: HealthEvent) -> None:
        """Write the snapshot, and the message if the event has one."""
        self.snapshots[event.game_id] = event
        if event.published:
            self.add_message(health_message(event))

    def check_endurable(self, row: Row, completion: Completion) -> None:
        """Raise `StoreRejected` for what PostgreSQL does not accept, `UnicodeEncodeError` for lone surrogates."""
        if self._refusals:
            self._refusals -= 1
            raise StoreRejected(f"the store in memory was set to refuse the end of operation {row.operation_id}")
        values = itertools.chain.from_iterable(message.fields.values() for message in completion.messages)
        texts = [completion.error_message, *(entry.error_message or "" for entry in completion.log)]
        texts += [completion.last_exit.log if completion.last_exit else ""]
        for text in itertools.chain(texts, values):
            if not text.isascii():
                text.encode()  # raises for lone surrogates, as psycopg does
        if any("\0" in text for text in texts):
            raise StoreRejected("PostgreSQL text fields cannot contain NUL (0x00) bytes")


def state_of(record: RuntimeRecord | None) -> tuple[Status, str | None] | None:
    """The part of a record that a change compares: status and container id."""
    return (record.status, record.current_container_id) if record else None


class MemoryDaemons:
    """`DaemonRecords` of the store."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.trouble = store.trouble

    @call
    def recorded(self) -> Daemon | None:
        """See the port."""
        return self._store.daemon

    @call
    def record(self, daemon: Daemon) -> Daemon:
        """See the port."""
        self._store.daemon = self._store.daemon or daemon
        return self._store.daemon

    @call
    def accept(self, daemon: Daemon, *, new_deployment: bool = False) -> None:
        """See the port."""
        self._store.daemon = daemon
        if new_deployment:
            self._store.deployment = f"{self._store.deployment}-new"

    @call
    def deployment_id(self) -> str:
        """See the port."""
        return self._store.deployment


class MemoryRecords:
    """`Records` in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.trouble = store.trouble

    @call
    def get(self, game_id: str) -> RuntimeRecord | None:
        """See the port."""
        return self._store.records_by_game.get(game_id)

    @call
    def of(self, game_ids: Collection[str]) -> Mapping[str, RuntimeRecord]:
        """See the port."""
        known = self._store.records_by_game
        return {game_id: known[game_id] for game_id in game_ids if game_id in known}

    @call
    def page(self, *, status: Status | None, after: str | None, limit: int) -> Sequence[RuntimeRecord]:
        """See the port."""
        found = sorted(self._store.records_by_game.items())
        fits = (r for game_id, r in found if (after is None or game_id > after) and status in (None, r.status))
        return [record for record, _ in zip(fits, range(limit), strict=False)]

    @call
    def get_as_json(self, game_id: str) -> bytes | None:
        """See the port."""
        record = self.get(game_id)
        return record_json(record).encode() if record else None

    @call
    def page_as_json(self, *, status: Status | None, after: str | None, limit: int) -> Sequence[bytes]:
        """See the port."""
        return [record_json(each).encode() for each in self.page(status=status, after=after, limit=limit)]


class MemoryHistories:
    """`Histories` in memory; the id of a log row is its position, from 1."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.trouble = store.trouble

    @call
    def health(self, game_id: str) -> HealthReport:
        """See the port."""
        event, plan = self._store.snapshots.get(game_id), self._store.planned_restarts.get(game_id)
        snapshot = None
        if event is not None:
            snapshot = Snapshot(event.container_id, event.status, event.source, event.details, event.occurred_at)
        due_at = plan.due_at if plan else None
        return HealthReport(snapshot, self._store.last_exits.get(game_id), due_at, self._given_up(game_id))

    def _given_up(self, game_id: str) -> bool:
        """Whether the probes of the running container fail and its restart was given up."""
        alarm = self._store.alarms.get((game_id, AlarmKind.PROBE))
        runs = state_of(self._store.records_by_game.get(game_id))
        return alarm is not None and alarm.restart_given_up and runs == (Status.RUNNING, alarm.container_id)

    @call
    def log(self, game_id: str, *, before: int | None, limit: int) -> Sequence[tuple[int, LogEntry]]:
        """See the port."""
        rows = [(place, row) for place, row in enumerate(self._store.log, 1) if row.game_id == game_id]
        return [row for row in reversed(rows) if before is None or row[0] < before][:limit]


class MemoryQueue:
    """`OperationQueue` in memory, for the instance `owner`."""

    def __init__(self, store: MemoryStore, owner: int) -> None:
        self._store = store
        self._owner = owner
        self._last_claimed = ""
        self.trouble = store.trouble

    @call
    def submit(self, request: Request, *, last_op_at: datetime | None = None) -> int:
        """See the port."""
        record = self._store.records_by_game.get(request.game_id)
        if last_op_at is not None and (record is None or record.last_op_at != last_op_at):
            raise GameBusy(f"something was done about game {request.game_id} meanwhile")
        rows = self._store.live.get(request.game_id)
        if rows:
            first = next((row for row in rows if row.state == "running"), rows[0])
            waits = f", waiting because {first.deferred_why}" if first.deferred_why else ""
            what = f"{first.request.kind} (operation {first.operation_id} from {first.request.source}{waits})"
            raise GameBusy(f"game {request.game_id} is busy with {what}; try again when it has ended")
        return self._store.add_row(request, CALL_POSITION).operation_id

    @call
    def require_room(self, request: Request) -> None:
        """See the port."""

    @call
    def claim(
        self, limit: int, kinds: Collection[OpKind] = QUEUED, *, images: Collection[str] | None = None
    ) -> Sequence[Operation]:
        """See the port."""
        now = self._store.clock()
        due = []
        for rows in self._store.live.values():
            first = rows[0]
            waits = now < first.not_before <= now + timedelta(seconds=LONGEST_DELAY_S)
            ready = first.state == "due" and not waits and first.request.kind in kinds
            ready = ready and (images is None or first.request.image_ref in images)
            if ready and not any(row.state == "running" for row in rows):
                due.append(first)
        # Round robin: the games after the last claimed one first, then from the beginning again.
        due.sort(key=lambda row: (row.request.game_id <= self._last_claimed, row.request.game_id))
        for row in due[:limit]:
            row.state, row.owner, row.heartbeat_at = "running", self._owner, now
            row.generation += 1
            row.deferred_why = None
            if images is None:
                self._last_claimed = row.request.game_id
        return [
            Operation(
                row.operation_id,
                row.request,
                row.generation,
                row.accepted_at,
                row.deferrals,
                answer=row.answer,
                answer_s=(now - row.answer_since).total_seconds() if row.answer_since else 0.0,
                defects=row.defects,
            )
            for row in due[:limit]
        ]

    @call
    def heartbeat(self, claimed: Sequence[Operation], *, skip_locked: bool = False) -> set[int]:
        """See the port; nothing is locked here."""
        now = self._store.clock()
        mine = [row for row in map(self._mine, claimed) if row is not None]
        for row in mine:
            row.heartbeat_at = now
        return {row.operation_id for row in mine}

    @call
    def reclaim_orphans(self, live: Collection[int] = (), *, by_presence: bool = True) -> Sequence[OrphanedClaim]:
        """See the port."""
        store, now, found = self._store, self._store.clock(), []
        for row in sorted(itertools.chain.from_iterable(store.live.values()), key=lambda row: row.operation_id):
            if row.state != "running" or row.heartbeat_at is None:
                continue
            if row.heartbeat_at > now + timedelta(seconds=store.lease_s):
                row.heartbeat_at = now
            silent_s = (now - row.heartbeat_at).total_seconds()
            if row.owner == self._owner:
                left = row.operation_id not in live
            else:
                left = by_presence and row.owner not in store.present
            if silent_s > store.lease_s or (silent_s > store.grace_s and left):
                ours = row.owner == self._owner
                row.state, row.owner, row.not_before = "due", None, now
                found.append(OrphanedClaim(row.operation_id, row.request.game_id, row.request.kind, ours))
        return found

    @call
    def defer(
        self, operation: Operation, *, delay_s: float, why: str, answer: str = "", by_defect: bool = False
    ) -> None:
        """See the port."""
        row = self._mine(operation)
        if row is not None:
            row.defects += by_defect
            now = self._store.clock()
            due = now + timedelta(seconds=delay_s)
            since = row.answer_since
            if answer:
                row.answer_since = since if since is not None and since <= now else now
            elif since and not row.answer:  # a silence that follows a silence does not count
                row.answer_since = since + (due - max(row.not_before, since))
            row.answer = answer
            row.state, row.owner, row.deferred_why = "due", None, why
            row.deferrals += 1
            row.not_before = due

    @call
    def park(self, operation: Operation, *, why: str) -> None:
        """See the port."""
        row = self._mine(operation)
        if row is not None:
            row.deferred_why = why

    @call
    def claim_name(self, operation: Operation) -> Namesake | None:
        """See the port."""
        row = self._mine(operation)
        if row is None:
            raise ClaimLost(f"operation {operation.operation_id} was taken over by another claim")
        holder = self._store.name_holder(operation.game_id)
        row.claims_name = holder is None
        return holder

    @call
    def note_end(self, operation: Operation, container_id: str | None) -> str | None:
        """See the port."""
        row = self._mine(operation)
        if row is None:
            raise ClaimLost(f"operation {operation.operation_id} was taken over by another claim")
        before, row.ends_container = row.ends_container, container_id
        row.heartbeat_at = self._store.clock()
        return before

    @call
    def noted_end(self, operation: Operation) -> str | None:
        """See the port."""
        row = self._store.operations.get(operation.operation_id)
        return row.ends_container if row is not None and row.request == operation.request else None

    @call
    def finish(self, operation: Operation, completion: Completion) -> None:
        """See the port."""
        row = self._mine(operation)
        if row is None:
            raise ClaimLost(f"operation {operation.operation_id} was taken over by another claim")
        self._store.end(row, completion)

    @call
    def finish_together(self, endings: Sequence[tuple[Operation, Completion]]) -> set[int]:
        """See the port."""
        ours = [(row, completion) for operation, completion in endings if (row := self._mine(operation)) is not None]
        for row, completion in ours:
            self._store.check_endurable(row, completion)
        ended = set()
        for row, completion in ours:
            with suppress(RecordConflict):
                self._store.end(row, completion)
                ended.add(row.operation_id)
        return ended

    @call
    def hand_back(self) -> Sequence[int]:
        """See the port."""
        held = [row for row in self._store.operations.values() if row.state == "running" and row.owner == self._owner]
        for row in held:
            row.state, row.owner, row.not_before = "due", None, self._store.clock()
        return [row.operation_id for row in held]

    @call
    def verdict(self, operation_id: int, source_ref: str | None = None) -> OperationResult | None:
        """See the port."""
        row = self._store.operations.get(operation_id)
        if row is None or source_ref not in (None, row.request.source_ref):
            raise UnknownOperation("postgres", f"postgres knows nothing of operation {operation_id} any more")
        return row.verdict

    def _mine(self, operation: Operation) -> Row | None:
        """The row while this claim still has it, otherwise None."""
        row = self._store.operations.get(operation.operation_id)
        if row is None or row.state != "running":
            return None
        return row if (row.generation, row.request) == (operation.generation, operation.request) else None


class MemorySessionLock:
    """`SessionLock` of one instance; `close` acts like a kill of the instance."""

    def __init__(self, store: MemoryStore, owner: int) -> None:
        self._store = store
        self._owner = owner
        self._since = store.clock()
        self.trouble = store.trouble

    @call
    def show(self) -> float:
        """See the port."""
        if self._owner not in self._store.present:
            self._store.present.add(self._owner)
            self._since = self._store.clock()
        return (self._store.clock() - self._since).total_seconds()

    def close(self) -> None:
        """End the session, which releases the lock."""
        with self.trouble.lock:
            self._store.present.discard(self._owner)


class _Transaction:
    """One lock and its transaction: others see its writes after the commit."""

    def __init__(self, store: MemoryStore, kind: str) -> None:
        self._store = store
        self._kind = kind
        self.transaction = next(store.transactions)
        self.trouble = store.trouble

    def begin(self) -> bool:
        """Take the lock; False while another transaction has it. Raises `Unavailable`."""
        with self.trouble.lock:
            lost = self.trouble.enter(f"{self._kind}.begin")
            mine = self._store.leases.setdefault(self._kind, self) is self
            if lost:
                self.end()
                raise self.trouble.unavailable(f"{self._kind}.begin")
            return mine

    def check(self) -> None:
        """Raise `Unavailable` when the database ended this transaction."""
        if self._store.leases.get(self._kind) is not self:
            raise self.trouble.unavailable(f"a statement of a {self._kind} lock that was ended")

    def end(self) -> None:
        """Release the lock."""
        with self.trouble.lock:
            if self._store.leases.get(self._kind) is self:
                del self._store.leases[self._kind]


class MemoryIngestLock(_Transaction):
    """`IngestLock` in memory."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store, "ingest")
        self._jobs: list[Job] = []

    @property
    def forgotten(self) -> int:
        """See the port."""
        return sum(map(self._store.is_forgotten, self._jobs))

    @call
    def latest(self) -> Mapping[Stream, EntryId]:
        """See the port."""
        self.check()
        return self._store.latest_entries()

    @call
    def accept(self, jobs: Sequence[Job]) -> None:
        """See the port."""
        self.check()
        self._jobs.extend(jobs)

    @call
    def accept_alone(self, job: Job) -> None:
        """See the port."""
        self.accept([job])

    @call
    def require_room(self, job: Job) -> None:
        """See the port."""
        self.check()

    @call
    def commit(self) -> None:
        """Write the accepted jobs."""
        self.check()
        for job in self._jobs:
            self._store.add_job(job)


class MemoryInbox:
    """`Inbox` in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def holder(self) -> LeaseHolder | None:
        """See the port."""
        return self._store.turn_holder("ingest")

    @contextmanager
    def lock(self) -> Iterator[MemoryIngestLock | None]:
        """See the port."""
        lock = MemoryIngestLock(self._store)
        if not lock.begin():
            yield None
            return
        try:
            yield lock
            lock.commit()
        finally:
            lock.end()


class MemoryRelayLease(_Transaction):
    """`RelayLease` in memory."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store, "outbox")
        self.number = 0
        self.summary_due = False
        self.unreadable: dict[int, str] = {}
        self._deleted: set[int] = set()
        self._windows: dict[str, tuple[datetime, IntentCount]] = {}
        self._summaries: list[Message] = []

    def begin(self) -> bool:
        """Take the lease and its number."""
        if not super().begin():
            return False
        with self.trouble.lock:
            self._store.relay_number += 1
            self.number = self._store.relay_number
            self._windows = dict(self._store.intent_windows)
            self.summary_due = any(self._over(at) and count.left_out for at, count in self._windows.values())
        return True

    @call
    def due(self, limit: int, size: int) -> Sequence[DueMessage]:
        """See the port."""
        self.check()
        seen: dict[Stream, int] = {}
        bytes_before: dict[Stream, int] = {}
        found = []
        for message_id, message in self._waiting().items():
            seen[message.stream] = seen.get(message.stream, 0) + 1
            if seen[message.stream] <= limit and bytes_before.get(message.stream, 0) < size:
                found.append(DueMessage(message_id, message))
            own = len(json.dumps(dict(message.fields), ensure_ascii=False).encode())
            bytes_before[message.stream] = bytes_before.get(message.stream, 0) + own
        return found

    def _over(self, began_at: datetime) -> bool:
        return not began_at <= self._store.clock() <= began_at + timedelta(minutes=1)

    @call
    def intents_sent(self) -> Mapping[str, int]:
        """See the port."""
        self.check()
        for notification_type, (began_at, count) in [*self._windows.items()]:
            if self._over(began_at):
                del self._windows[notification_type]
                if count.left_out:
                    self._summaries.append(
                        intents_summary(
                            notification_type,
                            left_out=len(count.left_out),
                            first=count.left_out[0].fields,
                            began_at=began_at,
                            now=self._store.clock(),
                        )
                    )
        return {notification_type: count.sent for notification_type, (_, count) in self._windows.items()}

    @call
    def count_intents(self, counts: Mapping[str, IntentCount]) -> None:
        """See the port."""
        self.check()
        for notification_type, count in counts.items():
            began_at, old = self._windows.get(notification_type, (self._store.clock(), IntentCount()))
            new = IntentCount(old.sent + count.sent, [*old.left_out, *count.left_out])
            self._windows[notification_type] = (began_at, new)

    @call
    def delete(self, ids: Sequence[int]) -> None:
        """See the port."""
        self.check()
        self._deleted.update(ids)

    @call
    def still_waiting(self, ids: Sequence[int]) -> set[int]:
        """See the port."""
        self.check()
        return self._waiting().keys() & set(ids)

    @call
    def raise_number(self, above: int) -> None:
        """See the port."""
        self.check()
        self._store.relay_number = above

    @call
    def commit(self) -> None:
        """Write the deletions, the counts and the summaries."""
        self.check()
        for message_id in self._deleted:
            self._store.messages.pop(message_id, None)
        self._store.intent_windows = self._windows
        for message in self._summaries:
            self._store.add_message(message)

    def _waiting(self) -> Mapping[int, Message]:
        if not self._deleted:
            return self._store.messages
        return {key: value for key, value in self._store.messages.items() if key not in self._deleted}


class MemoryOutbox:
    """`Outbox` in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def holder(self) -> LeaseHolder | None:
        """See the port."""
        return self._store.turn_holder("outbox")

    @contextmanager
    def lease(self) -> Iterator[MemoryRelayLease | None]:
        """See the port."""
        lease = MemoryRelayLease(self._store)
        if not lease.begin():
            yield None
            return
        try:
            yield lease
            lease.commit()
        finally:
            lease.end()


class MemoryPurge:
    """`PurgeStore` in memory; a pass is one batch."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.trouble = store.trouble

    @call
    def latest(self) -> Mapping[Stream, EntryId]:
        """See the port."""
        return self._store.latest_entries()

    @call
    def first_young(self, stream: Stream, keep_s: float, since: EntryId, *, limit: int) -> EntryId | None:
        """See the port."""
        moment = self._before(keep_s)
        accepted = self._store.accepted_from(stream, since)[:limit]
        young = [entry_id for entry_id, accepted_at in accepted if accepted_at >= moment]
        return next(iter([*young, *(entry_id for entry_id, _ in accepted[limit - 1 :])]), None)

    @call
    def purge_operations(self, keep_s: float, below: Mapping[Stream, EntryId], *, place: Place, limit: int) -> Purged:
        """See the port."""
        if "ingest" in self._store.leases:
            return Purged(0, place)
        moment, deleted = self._before(keep_s), 0
        for row in list(self._store.operations.values()):
            if row.finished_at is None or row.finished_at >= moment:
                continue
            entry_id, rank = row.position
            stream = next((each for each, own in STREAM_ORDER.items() if own == rank), None)
            if stream is not None and not self._is_gone(stream, entry_id, below, moment):
                continue
            del self._store.operations[row.operation_id]
            deleted += 1
            if stream is not None:
                self._store.forget_entry(stream, entry_id)
        return Purged(deleted, None)

    @call
    def purge_dead_letters(self, keep_s: float, below: Mapping[Stream, EntryId], *, place: Place, limit: int) -> Purged:
        """See the port."""
        if "ingest" in self._store.leases:
            return Purged(0, place)
        moment = self._before(keep_s)
        old = [each for each in self._store.letters_before(moment) if self._is_gone(*each, below, moment)]
        for stream, entry_id in old:
            self._store.forget_entry(stream, entry_id)
        return Purged(len(old), None)

    @call
    def purge_log(self, keep_s: float, *, place: Place, limit: int) -> Purged:
        """See the port."""
        moment = self._before(keep_s)
        kept = [row for row in self._store.log if row.finished_at >= moment]
        deleted = len(self._store.log) - len(kept)
        self._store.log[:] = kept
        return Purged(deleted, None)

    def _before(self, keep_s: float) -> datetime:
        return self._store.clock() - timedelta(seconds=keep_s)

    def _is_gone(self, stream: Stream, entry_id: EntryId, below: Mapping[Stream, EntryId], moment: datetime) -> bool:
        bound, now_ms = below.get(stream), epoch_ms(self._store.clock())
        waits = epoch_ms(moment) <= entry_id.milliseconds <= now_ms + DAY_MS
        return bound is not None and entry_id < bound and not waits


class MemoryImages:
    """`PulledImages` in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.trouble = store.trouble
        #: By daemon and reference: the image id, and since when nothing names the image.
        self._pulled: dict[tuple[str, str], tuple[str, datetime | None]] = {}

    @call
    def pulled(self, daemon: str, image: PulledImage) -> None:
        """See the port."""
        self._pulled[daemon, image.image_ref] = (image.image_id, None)

    @call
    def named(self) -> Collection[str]:
        """See the port."""
        records = self._store.records_by_game.values()
        of_records = {each.current_image_ref for each in records if each.status is not Status.REMOVED}
        of_operations = {row.request.image_ref for rows in self._store.live.values() for row in rows}
        return {ref for ref in of_records | of_operations if ref}

    @call
    def remembered(self, daemon: str) -> Sequence[str]:
        """See the port."""
        return sorted(ref for on, ref in self._pulled if on == daemon)

    @call
    def unnamed(self, daemon: str, named: Collection[str], keep_s: float) -> Sequence[PulledImage]:
        """See the port."""
        now, due = self._store.clock(), []
        for (on, ref), (image_id, since) in sorted(self._pulled.items()):
            if on == daemon:
                since = None if ref in named else since or now
                self._pulled[on, ref] = (image_id, since)
                if since is not None and (now - since).total_seconds() > keep_s:
                    due.append(PulledImage(ref, image_id))
        return due

    @call
    def forget(self, daemon: str, image_ref: str) -> None:
        """See the port."""
        self._pulled.pop((daemon, image_ref), None)
