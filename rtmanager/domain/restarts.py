"""Planned restarts: the operation that a plan becomes, and what the end of an operation means for its game's plan.

The number of a try is a part of the operation's `source_ref`, so it is known to whichever instance ends the operation,
and does not depend on a clock.

| ended operation                             | plan                                |
| ------------------------------------------- | ----------------------------------- |
| own start after an outage, failed, not last | the same start again, after a pause |
| restart or patch that failed, nothing done  | stays                               |
| any other                                   | cancelled                           |
"""

from __future__ import annotations

from dataclasses import dataclass

from rtmanager.domain.findings import RestartCause
from rtmanager.domain.operation import KINDS, Completion, OpKind, OpSource, Outcome, Request
from rtmanager.domain.record import Status

#: Pauses after failed starts of a game after an outage, in seconds; the last one repeats. What a start needs may come
#: up later than Docker: a log server, a mount, a registry.
OUTAGE_PAUSES_S = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
#: Starts of a game after an outage until it is given up; with these pauses about 24 hours.
OUTAGE_TRIES = 294
#: Characters of a container's id in a `source_ref`.
SHORT_ID = 12


@dataclass(frozen=True, slots=True)
class NextTry:
    """The plan after a failed start: the game's container, the failed tries, and the pause before the next one."""

    container_id: str
    tries: int
    pause_s: float


def restart_request(game_id: str, container_id: str, cause: RestartCause, tries: int = 0) -> Request:
    """Return the request that restarts a game; after an outage a start, which does not count for the restart budget.

    `tries`: how many have failed.
    """
    kind = OpKind.START if cause is RestartCause.OUTAGE else OpKind.RESTART
    return Request(game_id, kind, OpSource.AUTO_RECONCILE, restart_ref(container_id, cause, tries))


def restart_ref(container_id: str, cause: RestartCause, tries: int = 0) -> str:
    """Return the `source_ref` of a restart, or of the notification that there is none; from the second try numbered."""
    ref = f"{cause}:{container_id[:SHORT_ID]}"
    return f"{ref}:{tries + 1}" if tries else ref


def status_before(cause: RestartCause) -> Status:
    """Return the status that a planned restart requires: a game whose probes fail is running."""
    return Status.RUNNING if cause is RestartCause.PROBE else Status.STOPPED


def outage_pause_s(tries: int) -> float:
    """Return the pause before the next start after an outage, when so many have failed; none before the first."""
    return OUTAGE_PAUSES_S[min(tries, len(OUTAGE_PAUSES_S)) - 1] if tries else 0.0


def next_try(request: Request, completion: Completion) -> NextTry | None:
    """Return the plan that the end of an operation makes; None when it makes none."""
    tries = _outage_try(request)
    if tries is None or tries >= OUTAGE_TRIES or completion.outcome is Outcome.SUCCESS:
        return None
    record = completion.new or completion.seen
    # A failed start may have removed the container already.
    container_id = (record.current_container_id if record else None) or request.source_ref.split(":")[1]
    return NextTry(container_id, tries, outage_pause_s(tries))


def keeps_plan(request: Request, completion: Completion) -> bool:
    """Return whether the end of an operation leaves its game's plan: a refused restart or patch decides nothing.

    A start, a stop and a cleanup decide what becomes of the game, also when they fail.
    """
    untouched = (completion.new, completion.launched, completion.last_exit) == (None, None, None)
    refused = completion.outcome is Outcome.FAILURE and untouched
    return refused and KINDS[request.kind].replaces


def is_notified(request: Request) -> bool:
    """Return whether a failure requests a notification: of the starts after an outage, that of the first and last."""
    return _outage_try(request) in (None, 1, OUTAGE_TRIES)


def is_outage_start(request: Request) -> bool:
    """Return whether this is a start of the manager's own after an outage."""
    return _outage_try(request) is not None


def _outage_try(request: Request) -> int | None:
    """Return the number of this start after an outage, from 1; None for every other request."""
    if request.source is not OpSource.AUTO_RECONCILE or request.kind is not OpKind.START:
        return None
    cause, *parts = request.source_ref.split(":")
    if cause != RestartCause.OUTAGE or not parts:
        return None
    return int(parts[1]) if len(parts) > 1 and parts[1].isdecimal() else 1
