"""The inspector: compares the runtime's view of each running game's container with the last one, once a period.

It writes a finding when the restart count grew, the state is not running, or the image's health check reports
unhealthy. Each is written once until it is over; the first restart count is the baseline. A missing container is left
to the reconciler.

One list shows that nearly all containers are well: one that has run for an hour was not restarted since the last
pass. The others are inspected one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from rtmanager.domain.container import ContainerState, ContainerView
from rtmanager.domain.errors import Unavailable
from rtmanager.domain.findings import Alarm, AlarmKind, Finding
from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.record import RuntimeRecord
from rtmanager.ports.clock import Clock
from rtmanager.ports.runtime import ContainerNotFound, ContainerRuntime
from rtmanager.ports.store import Records
from rtmanager.ports.watching import Findings, Leases, WriteResult, lease
from rtmanager.threads import side_by_side
from rtmanager.workers.failures import GameFailures
from rtmanager.workers.running import running_records
from rtmanager.workers.status import FAILURES_IN_A_ROW

#: Containers that are inspected concurrently.
THREADS = 8
WORK = "inspect"
#: Work under which a finding that cannot be written is counted as a failure.
TELLING = "inspect_write"
HOUR_S = 3600.0


class Inspector:
    """One step checks the container of every running game."""

    def __init__(
        self,
        *,
        records: Records,
        findings: Findings,
        leases: Leases,
        runtime: ContainerRuntime,
        clock: Clock,
        written: Callable[[Finding], None],
        period_s: float,
        logger: logging.Logger,
        failures: GameFailures | None = None,
        threads: int = THREADS,
    ) -> None:
        self._records = records
        self._findings = findings
        self._leases = leases
        self._runtime = runtime
        self._clock = clock
        self._written = written
        self._period_s = period_s
        self._threads = threads
        self._logger = logger
        self._failures = failures or GameFailures(logger)
        self._restarts: dict[str, int] = {}
        self._silent = 0

    def step(self) -> bool:
        """Return False: once a period is enough. Raises `Unavailable`."""
        with lease(self._leases, WORK, self._period_s) as mine:
            if mine:
                self._inspect_due()
            else:
                self._restarts.clear()
        return False

    def _inspect_due(self) -> None:
        records = {record.current_container_id: record for record in running_records(self._records)}
        listed = [view for view in self._runtime.list_games() if view.container_id in records]
        alarms = self._findings.alarms(AlarmKind.INSPECT)
        alarming = {alarm.container_id for alarm in alarms.values()}
        well = {view.container_id for view in listed if self._is_well(view)} - alarming
        # A restart count that such a container shows later is new: a start by a person resets the count to 0.
        seen = dict.fromkeys(well, 0)
        closer = [records[view.container_id] for view in listed if view.container_id not in well]
        views, silent = self._inspect_all(closer)
        for record, view in zip(closer, views, strict=True):
            if view is None or view.state is ContainerState.REMOVING:
                continue
            alarm = alarms.get(record.game_id)
            finding = self._judge(record, view, alarm if alarm and alarm.container_id == view.container_id else None)
            seen[view.container_id] = view.restart_count
            if finding is not None:
                self._failures.guarded(TELLING, record.game_id, partial(self._write, finding))
        self._restarts = seen
        if len(silent) == len(closer) >= FAILURES_IN_A_ROW:  # no single container is the cause
            raise silent[0]

    def _write(self, finding: Finding) -> None:
        if self._findings.write(finding) is WriteResult.WRITTEN:
            self._written(finding)

    def _is_well(self, view: ContainerView) -> bool:
        """Whether the list alone shows that the container is well."""
        lately = not view.up_for_an_hour or self._period_s > HOUR_S
        return view.state is ContainerState.RUNNING and view.health != "unhealthy" and not lately

    def _inspect_all(
        self, records: Sequence[RuntimeRecord]
    ) -> tuple[list[ContainerView | None], Sequence[Unavailable]]:
        """The view of each container (None: gone or not inspected), and the errors of those that timed out."""
        silent: list[Unavailable] = []

        def inspect(record: RuntimeRecord) -> ContainerView | None:
            try:
                return self._runtime.inspect(record.current_container_id or "")
            except ContainerNotFound:
                return None

        def guarded(record: RuntimeRecord) -> ContainerView | None:
            try:
                return self._failures.guarded(WORK, record.game_id, lambda: inspect(record))
            except Unavailable as error:  # one stuck container must not hide the others
                silent.append(error)
                self._logger.debug("cannot be inspected", extra={"game_id": record.game_id, "error": str(error)})
                return None

        views = side_by_side(guarded, records, self._threads, "rtm-inspect")
        self._report_silent(len(silent), silent)
        return views, silent

    def _report_silent(self, count: int, silent: Sequence[Unavailable]) -> None:
        """Log a warning when the number of silent containers changes; the debug log names them."""
        if count and count != self._silent:
            extra = {"containers": count, "error": str(silent[0])}
            self._logger.warning("containers cannot be inspected", extra=extra)
        self._silent = count

    def _judge(self, record: RuntimeRecord, view: ContainerView, alarm: Alarm | None) -> Finding | None:
        grew = view.restart_count > self._restarts.get(view.container_id, view.restart_count)
        if grew or view.state is not ContainerState.RUNNING or view.health == "unhealthy":
            return self._unhealthy(record, view)
        if alarm is not None:
            why = f"container {view.container_id[:12]} is well again"
            return Finding(record.game_id, why, seen=record, calms=AlarmKind.INSPECT, restores=True)
        return None

    def _unhealthy(self, record: RuntimeRecord, view: ContainerView) -> Finding:
        now = self._clock()
        state = view.state_word or view.state.value
        details = {"restart_count": view.restart_count, "state": state, "health": view.health}
        mark = "/".join(str(value) for value in details.values())
        event = HealthEvent(
            record.game_id, view.container_id, EventType.INSPECT_UNHEALTHY, HealthSource.INSPECT, now, details
        )
        return Finding(
            game_id=record.game_id,
            seen=record,
            why=f"container {view.container_id[:12]} is {state}, restarted {view.restart_count} times",
            health=(event,),
            raises=Alarm(AlarmKind.INSPECT, view.container_id, mark, now, details),
        )
