"""Findings in memory, with the semantics of `adapters/postgres/findings`; both pass `findings_contract`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from rtmanager.domain.drift import RunningGame
from rtmanager.domain.findings import Alarm, AlarmKind, Finding, RestartCause
from rtmanager.domain.health import EventType, HealthSource, HealthStatus
from rtmanager.domain.operation import OpKind, OpSource, Request
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.domain.restarts import restart_request, status_before
from rtmanager.fakes.fault_injector import call
from rtmanager.fakes.store import CALL_POSITION, MemoryStore, PlannedRestart, state_of
from rtmanager.ports.store import StoreRejected
from rtmanager.ports.watching import (
    AHEAD_S,
    AHEAD_TIMES,
    MOST_AT_ONCE,
    OOM_PAUSE_S,
    WriteResult,
)

INSPECT_UNHEALTHY = HealthStatus.INSPECT_UNHEALTHY


class MemoryFindings:
    """`Findings` and `Leases` of one instance over a store in memory."""

    def __init__(self, store: MemoryStore, owner: int = 1) -> None:
        self._store = store
        self._owner = owner
        self.trouble = store.trouble

    @call
    def write(self, finding: Finding) -> WriteResult:
        """See the port."""
        store = self._store
        if finding.claims_name and (holder := store.name_holder(finding.game_id)):
            return WriteResult.CHANGED if holder.status else WriteResult.BUSY
        if store.live.get(finding.game_id):
            return WriteResult.BUSY
        stored = store.records_by_game.get(finding.game_id)
        if (finding.new or finding.seen) and state_of(stored) != state_of(finding.seen):
            return WriteResult.CHANGED
        if not self._is_news(finding):
            return WriteResult.KNOWN
        _check_storable(finding)
        store.write(finding.game_id, finding)
        self._raise_and_calm(finding)
        if finding.restart_at is not None and finding.seen is not None:
            store.planned_restarts[finding.game_id] = PlannedRestart(
                finding.seen.current_container_id or "", finding.restart_at, finding.restart_cause
            )
        elif finding.new is not None or finding.calms is AlarmKind.PROBE:
            store.planned_restarts.pop(finding.game_id, None)
        return WriteResult.WRITTEN

    @call
    def busy(self, game_id: str) -> bool:
        """See the port."""
        return bool(self._store.live.get(game_id))

    @call
    def alarms(self, kind: AlarmKind) -> Mapping[str, Alarm]:
        """See the port."""
        return {
            game_id: alarm
            for (game_id, of), alarm in self._store.alarms.items()
            if of is kind and self._runs(game_id, alarm)
        }

    @call
    def forget_old_alarms(self) -> None:
        """See the port."""
        alarms = self._store.alarms
        for key in [key for key, alarm in alarms.items() if not self._runs(key[0], alarm)]:
            del alarms[key]

    @call
    def now(self) -> datetime:
        """See the port."""
        return self._store.clock()

    @call
    def running(self) -> Sequence[RunningGame]:
        """See the port."""
        return [
            RunningGame(record.game_id, record.current_container_id, record.docker_network)
            for record in self._store.records_by_game.values()
            if record.status is Status.RUNNING
        ]

    @call
    def records_of(self, game_ids: Collection[str]) -> Sequence[RuntimeRecord]:
        """See the port."""
        return [record for game_id, record in self._store.records_by_game.items() if game_id in game_ids]

    @call
    def namesakes(self, game_ids: Collection[str]) -> Mapping[str, str]:
        """See the port."""
        found = ((game_id, self._store.name_holder(game_id)) for game_id in game_ids)
        return {game_id: holder.game_id for game_id, holder in found if holder and holder.status}

    @call
    def stopped_before(self, moment: datetime, limit: int) -> Sequence[RuntimeRecord]:
        """See the port."""
        records = self._store.records_by_game.values()
        old = [record for record in records if record.status is Status.STOPPED and record.last_op_at < moment]
        return sorted(old, key=lambda record: record.last_op_at)[:limit]

    @call
    def queue_restart(
        self,
        due_by: datetime,
        *,
        cause: RestartCause = RestartCause.CRASH,
        at_once: int = MOST_AT_ONCE,
        oldest: datetime | None = None,
        pauses_s: Sequence[float] = (),
        refused: Callable[[str, StoreRejected], None] | None = None,
    ) -> Sequence[Request]:
        """See the port."""
        store, queued = self._store, []
        room = at_once - (self._outage_restarts_under_way() if cause is RestartCause.OUTAGE else 0)
        due = [
            game_id
            for game_id, plan in store.planned_restarts.items()
            if plan.cause is cause
            and not store.live.get(game_id)
            and (plan.due_at <= due_by or _is_ahead(plan, due_by, pauses_s))
        ]
        for game_id in due[: max(0, room)]:
            plan = store.planned_restarts.pop(game_id)
            if oldest is not None and plan.due_at < oldest:
                continue
            record = store.records_by_game.get(game_id)
            if record is None or not _fits(plan, record):
                continue
            request = restart_request(game_id, plan.container_id, cause, plan.tries)
            if request.kind is OpKind.START:
                request = replace(request, image_ref=record.current_image_ref or "")
            store.add_row(request, CALL_POSITION)
            queued.append(request)
        return queued

    @call
    def drop_restarts(self, cause: RestartCause) -> None:
        """See the port."""
        plans = self._store.planned_restarts
        for game_id in [game_id for game_id, plan in plans.items() if plan.cause is cause]:
            del plans[game_id]

    def _outage_restarts_under_way(self) -> int:
        rows = (row for rows in self._store.live.values() for row in rows)
        return sum(
            row.request.source_ref.startswith(f"{RestartCause.OUTAGE}:")
            and row.deferrals == 0
            and row.deferred_why is None
            for row in rows
        )

    @call
    def restarts_since(self, game_id: str, moment: datetime) -> int:
        """See the port."""
        return sum(
            row.request.game_id == game_id
            and row.request.source is OpSource.AUTO_RECONCILE
            and row.request.kind is OpKind.RESTART
            and moment < row.accepted_at <= self._store.clock()
            for row in self._store.operations.values()
        )

    @call
    def mine(self, work: str, for_s: float) -> bool:
        """See the port."""
        now = self._store.clock()
        owner, until = self._store.watch_turns.get(work, (self._owner, now))
        if owner != self._owner and now < until <= now + timedelta(seconds=for_s * AHEAD_TIMES):
            return False
        self._store.watch_turns[work] = (self._owner, now + timedelta(seconds=for_s))
        return True

    def _runs(self, game_id: str, alarm: Alarm) -> bool:
        return state_of(self._store.records_by_game.get(game_id)) == (Status.RUNNING, alarm.container_id)

    def _is_news(self, finding: Finding) -> bool:
        """Whether the alarm that it raises is new, or the alarm that it calms is raised."""
        alarms, raises = self._store.alarms, finding.raises
        if raises is not None:
            known = alarms.get((finding.game_id, raises.kind))
            if known and known.container_id == raises.container_id:
                later = raises.kind is not AlarmKind.OOM or self._comes_later(raises, known)
                if known.mark == raises.mark or not later:
                    return False
        if finding.calms is not None:
            known = alarms.get((finding.game_id, finding.calms))
            return known is not None and known.container_id == _seen_container(finding)
        return True

    def _comes_later(self, raises: Alarm, known: Alarm) -> bool:
        now = self._store.clock()
        pause, ahead = timedelta(seconds=OOM_PAUSE_S), timedelta(seconds=AHEAD_S)
        return min(raises.raised_at, now) >= known.raised_at + pause or known.raised_at > now + ahead

    def _raise_and_calm(self, finding: Finding) -> None:
        if (raises := finding.raises) is not None:
            raised_at = min(raises.raised_at, self._store.clock())
            self._store.alarms[(finding.game_id, raises.kind)] = replace(raises, raised_at=raised_at)
        if finding.calms is not None:
            del self._store.alarms[(finding.game_id, finding.calms)]
            if finding.restores:
                self._restore(finding.game_id, _seen_container(finding))

    def _restore(self, game_id: str, container_id: str | None) -> None:
        """Replace the inspector's snapshot; the prober's alarm may still stand."""
        snapshot = self._store.snapshots.get(game_id)
        if snapshot is None or (snapshot.status, snapshot.container_id) != (INSPECT_UNHEALTHY, container_id):
            return
        probe = self._store.alarms.get((game_id, AlarmKind.PROBE))
        failing = probe if probe is not None and probe.container_id == container_id else None
        self._store.snapshots[game_id] = replace(
            snapshot,
            event_type=EventType.PROBE_FAILED if failing else EventType.PROBE_RECOVERED,
            source=HealthSource.PROBE if failing else HealthSource.INSPECT,
            details=failing.details if failing else {},
            occurred_at=self._store.clock(),
        )


def _is_ahead(plan: PlannedRestart, due_by: datetime, pauses_s: Sequence[float]) -> bool:
    """Whether a clock that was ahead made the plan: it is later than the longest pause of its try."""
    return bool(pauses_s) and plan.due_at > due_by + timedelta(seconds=pauses_s[min(plan.tries, len(pauses_s) - 1)])


def _fits(plan: PlannedRestart, record: RuntimeRecord) -> bool:
    """Whether the game is as planned; a failed start may have left it without a container."""
    same = record.current_container_id in (plan.container_id, None)
    return same and record.status is status_before(plan.cause)


def _seen_container(finding: Finding) -> str | None:
    return finding.seen.current_container_id if finding.seen else None


def _check_storable(finding: Finding) -> None:
    """Raise `StoreRejected` for texts that PostgreSQL does not accept."""
    texts = [entry.error_message or "" for entry in finding.log]
    texts += [finding.last_exit.log if finding.last_exit else ""]
    if any("\0" in text for text in texts):
        raise StoreRejected("PostgreSQL text fields cannot contain NUL (0x00) bytes")
