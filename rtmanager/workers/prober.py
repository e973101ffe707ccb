"""The prober: probes the engine of every running game concurrently, once a period.

It writes a finding once when a game reaches the threshold of failures in a row, and once at the next success. The store
keeps the alarm, so neither a restart of the manager nor another instance writes the finding again. A container that has
ended is not probed: its exit says more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from time import monotonic
from urllib.parse import urlsplit

from rtmanager.domain.crash import RestartPolicy
from rtmanager.domain.findings import Alarm, AlarmKind, Finding, RestartCause
from rtmanager.domain.game import ENGINE_PORT
from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.record import RuntimeRecord
from rtmanager.ports.clock import Clock
from rtmanager.ports.runtime import ContainerRuntime
from rtmanager.ports.store import Records
from rtmanager.ports.watching import Findings, Leases, ProbeBy, ProbeResult, Probes, ProbeTarget, WriteResult, lease
from rtmanager.workers.crash_restarts import notification, planned
from rtmanager.workers.failures import GameFailures
from rtmanager.workers.running import running_records

WORK = "probe"
#: Work under which a record without an endpoint is counted as a failure.
AIMING = "probe_target"


class Prober:
    """One step probes every running game; `by`, called in each step, returns how engines are reached."""

    def __init__(
        self,
        *,
        records: Records,
        findings: Findings,
        leases: Leases,
        runtime: ContainerRuntime,
        probes: Probes,
        by: Callable[[], ProbeBy],
        clock: Clock,
        written: Callable[[Finding], None],
        period_s: float,
        timeout_s: float,
        threshold: int,
        logger: logging.Logger,
        failures: GameFailures | None = None,
        restarts: RestartPolicy | None = None,
    ) -> None:
        """`restarts`: the policy for games whose probes fail; None: they are not restarted."""
        self._restarts = restarts
        self._records = records
        self._findings = findings
        self._leases = leases
        self._runtime = runtime
        self._probes = probes
        self._by = by
        self._clock = clock
        self._written = written
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._threshold = threshold
        self._logger = logger
        self._game_failures = failures or GameFailures(logger)
        self._failures: dict[str, int] = {}

    def step(self) -> bool:
        """Return False: once a period is enough. Raises `Unavailable`."""
        with lease(self._leases, WORK, self._period_s) as mine:
            if mine:
                self._probe_all()
            else:
                self._failures.clear()
        return False

    def _probe_all(self) -> None:
        began = monotonic()
        records = {record.game_id: record for record in running_records(self._records)}
        answers = self._probes.probe(self._targets(records.values()), self._timeout_s)
        alarms = self._findings.alarms(AlarmKind.PROBE)
        failures: dict[str, int] = {}
        for game_id, record in records.items():
            container_id = record.current_container_id or ""
            answer, before = answers.get(game_id), self._failures.get(container_id, 0)
            if answer is None:
                failures[container_id] = before
                continue
            alarm = alarms.get(game_id)
            raised = alarm if alarm and alarm.container_id == container_id else None
            failures[container_id] = 0 if answer.good else before + 1
            self._game_failures.guarded(WORK, game_id, partial(self._report, record, answer, before, raised))
        self._failures = {container_id: count for container_id, count in failures.items() if count}
        elapsed_ms = round((monotonic() - began) * 1000)
        self._logger.debug("probe cycle", extra={"probed": len(answers), "elapsed_ms": elapsed_ms})

    def _targets(self, records: Iterable[RuntimeRecord]) -> list[ProbeTarget]:
        if self._by() is ProbeBy.ENDPOINT:
            targets = [
                self._game_failures.guarded(AIMING, record.game_id, partial(_by_endpoint, record)) for record in records
            ]
            return [target for target in targets if target is not None]
        views = {view.container_id: view for view in self._runtime.list_games() if view.alive}
        found = []
        for record in records:
            view = views.get(record.current_container_id or "")
            address = view.addresses.get(record.docker_network) if view else None
            if address:
                found.append(ProbeTarget(record.game_id, address, ENGINE_PORT))
        return found

    def _report(self, record: RuntimeRecord, answer: ProbeResult, before: int, raised: Alarm | None) -> None:
        if answer.good and raised is not None:
            finding = self._recovered(record, before, raised)
        elif not answer.good and raised is None and before + 1 >= self._threshold:
            finding = self._with_restart(record, self._failed(record, answer, before + 1))
        else:
            return
        if self._findings.write(finding) is WriteResult.WRITTEN:
            self._written(finding)
            self._logger.warning("probe", extra={"game_id": record.game_id, "why": finding.why})

    def _failed(self, record: RuntimeRecord, answer: ProbeResult, count: int) -> Finding:
        details = {"consecutive_failures": count, "last_status": answer.status, "last_error": answer.error}
        event = self._event(record, EventType.PROBE_FAILED, details)
        return Finding(
            game_id=record.game_id,
            seen=record,
            why=f"{count} failed probes in a row: {answer.error}",
            health=(event,),
            raises=Alarm(AlarmKind.PROBE, event.container_id, "probe", event.occurred_at, details),
        )

    def _with_restart(self, record: RuntimeRecord, finding: Finding) -> Finding:
        """The finding with its restart time, or with the notification that the budget is used up."""
        policy = self._restarts
        if policy is None:
            return finding

        def given_up(done: int) -> Finding:
            why = f"{finding.why}; not restarted, it had {done} restarts within {policy.window_s:g} s"
            at, container_id = self._clock(), record.current_container_id or ""
            message = notification(finding, container_id, RestartCause.PROBE, why, attempted_at=at, now=at)
            raises = finding.raises and replace(finding.raises, restart_given_up=True)
            return replace(finding, raises=raises, messages=(message,))

        return planned(finding, RestartCause.PROBE, policy, self._findings, given_up)

    def _recovered(self, record: RuntimeRecord, before: int, raised: Alarm) -> Finding:
        # After a restart of the manager only the alarm holds the count of earlier failures.
        recorded = raised.details.get("consecutive_failures")
        count = max(before, recorded if isinstance(recorded, int) else 0)
        event = self._event(record, EventType.PROBE_RECOVERED, {"prior_failure_count": count})
        why = f"the engine answers again after {count} failed probes"
        return Finding(record.game_id, why, seen=record, health=(event,), calms=AlarmKind.PROBE)

    def _event(self, record: RuntimeRecord, event_type: EventType, details: Mapping[str, object]) -> HealthEvent:
        container_id = record.current_container_id or ""
        return HealthEvent(record.game_id, container_id, event_type, HealthSource.PROBE, self._clock(), details)


def _by_endpoint(record: RuntimeRecord) -> ProbeTarget:
    parts = urlsplit(record.engine_endpoint)
    return ProbeTarget(record.game_id, parts.hostname or "", parts.port or ENGINE_PORT)
