"""Findings in memory, with the semantics of `adapters/postgres/findings`; both keep `store_contract`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from rtmanager.domain.findings import Alarm, AlarmKind, Finding
from rtmanager.domain.health import EventType, HealthEvent, HealthSource, HealthStatus
from rtmanager.domain.operation import OpKind, OpSource, Request
from rtmanager.domain.record import RecordChange, RuntimeRecord, Status
from rtmanager.operations.store import RecordChanged
from rtmanager.testing.store import CALL_POSITION, MemoryStore, state_of
from rtmanager.testing.trouble import call
from rtmanager.workers.watching import Written


class MemoryFindings:
    """`Findings` and `Turns` of one instance over a store in memory."""

    def __init__(self, store: MemoryStore, owner: int = 1) -> None:
        self._store = store
        self._owner = owner
        self.trouble = store.trouble

    @call
    def write(self, finding: Finding) -> Written:
        """See the port."""
        store = self._store
        if store.live.get(finding.game_id):
            return Written.BUSY
        stored = store.records_by_game.get(finding.game_id)
        if (finding.new or finding.seen) and state_of(stored) != state_of(finding.seen):
            return Written.CHANGED
        if not self._is_news(finding):
            return Written.KNOWN
        if finding.new is not None:
            try:
                store.write_change(RecordChange(finding.seen, finding.new))
            except RecordChanged:
                return Written.CHANGED
        store.log.extend(finding.log)
        for event in finding.health:
            store.write_event(event)
        if finding.last_exit is not None:
            store.last_exits[finding.game_id] = finding.last_exit
            if finding.restart_at is not None:
                plan = (finding.last_exit.container_id, store.clock(), finding.restart_at)
                store.planned_restarts[finding.game_id] = plan
        return Written.WRITTEN

    @call
    def busy(self, game_id: str) -> bool:
        """See the port."""
        return bool(self._store.live.get(game_id))

    @call
    def alarms(self, kind: AlarmKind) -> Mapping[str, Alarm]:
        """See the port."""
        return {game_id: alarm for (game_id, of), alarm in self._store.alarms.items() if of is kind}

    @call
    def records_of(self, game_ids: Collection[str]) -> Sequence[RuntimeRecord]:
        """See the port."""
        return [record for game_id, record in self._store.records_by_game.items() if game_id in game_ids]

    @call
    def stopped_before(self, moment: datetime, limit: int) -> Sequence[RuntimeRecord]:
        """See the port."""
        records = self._store.records_by_game.values()
        old = [record for record in records if record.status is Status.STOPPED and record.last_op_at < moment]
        return sorted(old, key=lambda record: record.last_op_at)[:limit]

    @call
    def queue_restart(self, due_by: datetime) -> Sequence[Request]:
        """See the port."""
        store, queued = self._store, []
        due = [game_id for game_id, (_, _, due_at) in store.planned_restarts.items() if due_at <= due_by]
        for game_id in due:
            container_id, crashed_at, _ = store.planned_restarts.pop(game_id)
            if state_of(store.records_by_game.get(game_id)) != (Status.STOPPED, container_id):
                continue
            rows = [row for row in store.operations.values() if row.request.game_id == game_id]
            if any(row.state != "done" or row.accepted_at > crashed_at for row in rows):
                continue
            request = Request(game_id, OpKind.RESTART, OpSource.AUTO_RECONCILE, f"crash:{container_id[:12]}")
            store.add_row(request, CALL_POSITION)
            queued.append(request)
        return queued

    @call
    def restarts_since(self, game_id: str, moment: datetime) -> int:
        """See the port."""
        return sum(
            row.request.game_id == game_id
            and row.request.source is OpSource.AUTO_RECONCILE
            and row.request.kind is OpKind.RESTART
            and row.accepted_at > moment
            for row in self._store.operations.values()
        )

    @call
    def mine(self, work: str, for_s: float) -> bool:
        """See the port."""
        now = self._store.clock()
        owner, until = self._store.watch_turns.get(work, (self._owner, now))
        if owner != self._owner and until >= now:
            return False
        self._store.watch_turns[work] = (self._owner, now + timedelta(seconds=for_s))
        return True

    def _is_news(self, finding: Finding) -> bool:
        alarms = self._store.alarms
        container_id = finding.seen.current_container_id if finding.seen else None
        if finding.raises is not None:
            key = (finding.game_id, finding.raises.kind)
            known = alarms.get(key)
            if known and (known.container_id, known.mark) == (finding.raises.container_id, finding.raises.mark):
                return False
            alarms[key] = finding.raises
        if finding.calms is not None:
            known = alarms.get((finding.game_id, finding.calms))
            if known is None or known.container_id != container_id:
                return False
            del alarms[(finding.game_id, finding.calms)]
            if finding.restores:
                self._restore(finding.game_id)
        return True

    def _restore(self, game_id: str) -> None:
        """What the inspector complained about is over; what the prober did may not be."""
        snapshot = self._store.snapshots.get(game_id)
        if snapshot is None or snapshot.status is not HealthStatus.INSPECT_UNHEALTHY:
            return
        probe = self._store.alarms.get((game_id, AlarmKind.PROBE))
        if probe is not None and probe.container_id == snapshot.container_id:
            self._store.snapshots[game_id] = replace(
                snapshot, event_type=EventType.PROBE_FAILED, source=HealthSource.PROBE, details=probe.details
            )
        else:
            self._store.snapshots[game_id] = HealthEvent(
                game_id, snapshot.container_id, EventType.PROBE_RECOVERED, HealthSource.INSPECT, self._store.clock()
            )
