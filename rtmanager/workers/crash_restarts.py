"""Queues the due restarts of games that crashed, failed their probes or ended with the runtime, as operations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from rtmanager.domain.crash import RestartPolicy
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.findings import Finding, RestartCause
from rtmanager.domain.messages import Message, intent
from rtmanager.domain.operation import Request
from rtmanager.domain.restarts import OUTAGE_PAUSES_S, restart_ref
from rtmanager.ports.watching import Findings
from rtmanager.workers.failures import GameFailures

#: A restart that could not be queued for so many seconds is dropped as out of date.
EXPECTED_S = 3600.0
#: A restart due later than the longest pause plus so many seconds was planned by a clock that was ahead.
AHEAD_S = 3600.0
#: The same of the pause after a failed start: its end may be younger than the time that the step began with.
JUST_ENDED_S = 5.0
#: The first start after an outage has no pause: its time is only its place in the order.
LONGEST_OUTAGE_PAUSES_S = (0.0, *(pause_s + JUST_ENDED_S for pause_s in OUTAGE_PAUSES_S))
WORK = "crash-restarts"


def planned(
    finding: Finding,
    cause: RestartCause,
    policy: RestartPolicy,
    findings: Findings,
    given_up: Callable[[int], Finding],
) -> Finding:
    """The finding with its restart time, or `given_up(restarts done)` when the budget is used up."""
    now = findings.now()
    done = findings.restarts_since(finding.game_id, policy.window_begins(now))
    due_at = policy.restart_at(now, done)
    return given_up(done) if due_at is None else replace(finding, restart_at=due_at, restart_cause=cause)


def notification(
    finding: Finding, container_id: str, cause: RestartCause, message: str, *, attempted_at: datetime, now: datetime
) -> Message:
    """The notification intent for a game whose restart budget is used up."""
    return intent(
        ErrorCode.CONTAINER_START_FAILED,
        game_id=finding.game_id,
        image_ref=(finding.seen.current_image_ref if finding.seen else None) or "",
        message=message,
        source_ref=restart_ref(container_id, cause),
        attempted_at=attempted_at,
        now=now,
    )


class CrashRestarts:
    """One step queues the restarts that are due; several instances may do so concurrently."""

    def __init__(
        self,
        findings: Findings,
        *,
        queued: Callable[[], None],
        logger: logging.Logger,
        longest_pause_s: float,
        failures: GameFailures | None = None,
        outages_at_once: int = 0,
        causes: Sequence[RestartCause] = (RestartCause.CRASH,),
        runtime_away: Callable[[], object] = lambda: None,
    ) -> None:
        """`outages_at_once`: starts after an outage that run concurrently; 0: none, and plans of them are dropped once.
        `causes`: all other causes.

        `runtime_away` returns why the runtime does not answer, None while it does. While it is away, no start after an
        outage is queued: deferred starts do not count, so all would be queued, and run together afterwards.
        """
        self._runtime_away = runtime_away
        self._findings = findings
        self._outages_at_once = outages_at_once
        #: Whether plans are left from a time when games were started after an outage.
        self._plans_left = not outages_at_once
        self._causes = causes
        self._queued = queued
        self._logger = logger
        self._longest_plan_s = longest_pause_s + AHEAD_S
        self._failures = failures or GameFailures(logger)

    def step(self) -> bool:
        """Return False. Raises `Unavailable`."""
        if self._plans_left:
            # Once, not with each step: meanwhile another instance may run with the switch on.
            self._findings.drop_restarts(RestartCause.OUTAGE)
            self._plans_left = False
        if not self._causes and not self._outages_at_once:
            return False
        now = self._findings.now()
        oldest, pauses_s = now - timedelta(seconds=EXPECTED_S), [self._longest_plan_s]
        requests: list[Request] = []
        for cause in self._causes:
            requests += self._findings.queue_restart(
                now, cause=cause, oldest=oldest, pauses_s=pauses_s, refused=self._refused
            )
        if self._outages_at_once and self._runtime_away() is None:
            # No `oldest`: after an outage a host with many games needs longer than an hour.
            requests += self._findings.queue_restart(
                now,
                cause=RestartCause.OUTAGE,
                at_once=self._outages_at_once,
                pauses_s=LONGEST_OUTAGE_PAUSES_S,
                refused=self._refused,
            )
        for request in requests:
            self._failures.succeeded(WORK, request.game_id)
            self._logger.warning(
                "game is started again", extra={"game_id": request.game_id, "source_ref": request.source_ref}
            )
        if requests:
            self._queued()
        return False

    def _refused(self, game_id: str, error: Exception) -> None:
        self._failures.report(WORK, game_id, error)
