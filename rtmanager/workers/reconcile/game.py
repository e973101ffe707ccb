"""Reconciles one game: reads its record, inspects its containers, and writes the resulting findings if they still hold.

The record is read first. A container that is alive after its record said "stopped" was started since; in the other
order an operation may just have stopped it. A finding is written only while the record is unchanged and no operation is
under way. So an intended stop is never taken for a crash, whichever instance does it and whenever its events arrive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from rtmanager.domain.container import ContainerState, ContainerView
from rtmanager.domain.crash import RestartPolicy, is_crash
from rtmanager.domain.drift import Observation, Placement, decide, explained
from rtmanager.domain.errors import DependencyError, FinalAnswer, TemporaryAnswer
from rtmanager.domain.findings import Alarm, AlarmKind, Finding, RestartCause, Stray
from rtmanager.domain.game import container_name, is_game_id
from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.outage import KILLED, OUTAGES, LastExit, Sender, requested_by
from rtmanager.domain.record import RuntimeRecord, Status, has_no_name
from rtmanager.operations.tools import end_of_log
from rtmanager.ports.clock import Clock
from rtmanager.ports.runtime import ContainerNotFound, ContainerRuntime, StillRunning
from rtmanager.ports.store import Records, StoreRejected
from rtmanager.ports.watching import Findings, WriteResult
from rtmanager.workers.crash_restarts import notification, planned
from rtmanager.workers.reconcile.queue import ReconcileHint
from rtmanager.workers.reconcile.sightings import RunSightings
from rtmanager.workers.reconcile.strays import StrayRegistry

#: Seconds to wait for an out-of-memory event after a death by SIGKILL that no event explains: Docker sends that event
#: through another channel, which may be late.
OOM_GRACE_S = 0.2
#: Seconds to wait for the event of an exit that a list already shows, where the event decides on a restart.
EVENT_GRACE_S = 1.0

#: Decisions in a row about one game (a container gone, another one adopted); the next attempt makes further ones.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class GameReconciler:
    """Reconciles one game at a time; `ReconcileQueue` calls `settle`."""

    records: Records
    findings: Findings
    runtime: ContainerRuntime
    placement: Placement
    strays: StrayRegistry
    clock: Clock
    #: Called when a finding was written: its messages are due.
    written: Callable[[Finding], None]
    #: Queues a game again after so many seconds.
    later: Callable[[str, ReconcileHint, float], None]
    logger: logging.Logger
    #: How crashed games are started again; None: not at all.
    restarts: RestartPolicy | None = None
    #: Whether a game that ended with the runtime or the host is started again.
    after_outages: bool = False
    #: Whether this instance has an operation of the game under way.
    works_on: Callable[[str], bool] = lambda _: False
    #: Called with the container and the seconds since its end, when a pass and no event found an exit.
    exit_found: Callable[[str, float], None] = lambda *_: None
    #: Who sent the signal that explains the end of a container.
    sender: Callable[[ContainerView], Sender | None] = lambda _: None
    #: The containers that are known to have run in the runtime's present run.
    sightings: RunSightings = field(default_factory=RunSightings)

    def settle(self, game_id: str, hint: ReconcileHint) -> bool:
        """Reconcile the game; False when it has to be retried.

        Raises `Unavailable`, and `FinalAnswer` when the store or Docker refuses for good.
        """
        settled = self._settle_record(game_id, hint)
        if hint.unstarted:
            self._remove_unstarted(game_id, hint.unstarted)
        return settled

    def _remove_unstarted(self, game_id: str, containers: frozenset[str]) -> None:
        """Remove the new containers that an unfinished restart or patch left, unless an operation is under way.

        The containers were listed before this check, so no operation that begins now created them. A game without a
        record may belong to another deployment.
        """
        record = self.records.get(game_id)
        if record is None or self.findings.busy(game_id):
            return
        ours = {record.docker_network, self.placement.network}
        for container_id in containers:
            try:
                found = self.runtime.inspect(container_id)
                if found.is_unstarted_next and found.game_id == game_id and ours & {*found.networks, found.made_for}:
                    self.runtime.remove(container_id)
                    extra = {"game_id": game_id, "container_id": container_id}
                    self.logger.info("removed the new container of a restart that was not finished", extra=extra)
            except (ContainerNotFound, StillRunning) as error:
                self.logger.debug("container is no leftover", extra={"game_id": game_id, "error": str(error)})

    def _settle_record(self, game_id: str, hint: ReconcileHint) -> bool:
        """Write the findings about the game's containers; returns and raises as `settle`."""
        if self.works_on(game_id):
            # Nothing can be written before the operation ends, and inspecting would slow Docker and the operation.
            return False
        for _ in range(ROUNDS):
            record = self.records.get(game_id)
            runs = record is not None and record.status is Status.RUNNING
            if not (hint.listed or runs):
                # Events about containers of another deployment on this host end here, too.
                return not self._may_come_true(game_id, hint)
            if not runs and self.findings.busy(game_id):
                # The container of a start under way must not be adopted, even if the start fails during this attempt.
                return False
            failed: list[DependencyError] = []
            views = self._inspect_all(game_id, record, hint, failed)
            own = _own(record, views)
            if own is not None and own.state is ContainerState.REMOVING:
                return False
            if own is not None and self._put_off(game_id, own, hint):
                return True
            results = self._write_all(game_id, record, views, hint, failed)
            if failed:
                raise failed[0]  # the other findings are written; the next pass retries
            if WriteResult.BUSY in results:
                return False
            if WriteResult.WRITTEN not in results and WriteResult.CHANGED not in results:
                return not self._may_come_true(game_id, hint)
        return False

    def _write_all(
        self,
        game_id: str,
        record: RuntimeRecord | None,
        views: Sequence[ContainerView],
        hint: ReconcileHint,
        failed: list[DependencyError],
    ) -> list[WriteResult]:
        """Write every finding about these containers; refused ones go to `failed`."""
        own = _own(record, views)
        results = [self._write(finding, failed) for finding in self._out_of_memory(record, own, hint)]
        observation, namesakes = Observation(self.clock(), hint.source), self._namesakes(game_id, record, views)
        for decision in decide([record] if record else [], views, observation, self.placement, namesakes):
            if isinstance(decision, Stray):
                self._report(decision)
            elif hint.listed or not _of_its_own_accord(decision):
                results.append(self._write(self._enriched(decision, own, hint), failed))
                self._note_exit(decision, hint, results[-1])
        return results

    def _put_off(self, game_id: str, own: ContainerView, hint: ReconcileHint) -> bool:
        """Queue the game for later when an event that explains its container's end may still come."""
        if own.container_id in hint.unexplained and _may_be_memory(own, hint):
            self.later(game_id, replace(hint, unexplained=frozenset()), OOM_GRACE_S)
            return True
        if self.restarts and _may_be_overtaken(own, hint):
            self.later(game_id, replace(hint, waited_for=hint.waited_for | {own.container_id}), EVENT_GRACE_S)
            return True
        return False

    def _may_come_true(self, game_id: str, hint: ReconcileHint) -> bool:
        """Whether an event that does not concern the present record may concern it after an operation under way."""
        return hint.source is HealthSource.DOCKER_EVENT and self.findings.busy(game_id)

    def _inspect_all(
        self, game_id: str, record: RuntimeRecord | None, hint: ReconcileHint, failed: list[DependencyError]
    ) -> Sequence[ContainerView]:
        """The containers that may be the game's: the recorded one, those of the hint, the one with the game's name.

        Errors about containers other than the recorded one go to `failed`, so that they do not hide that one.
        """
        recorded = record.current_container_id if record is not None else None

        def inspect(id_or_name: str) -> ContainerView | None:
            try:
                return self.runtime.inspect(id_or_name)
            except ContainerNotFound:
                return None
            except (FinalAnswer, TemporaryAnswer) as error:
                if id_or_name == recorded:
                    raise
                failed.append(error)
                return None

        wanted = {*hint.containers, *([recorded] if recorded is not None else [])}
        found = {view.container_id: view for view in map(inspect, wanted) if view is not None}
        own, name = _own(record, list(found.values())), container_name(game_id)
        is_found = (own is not None and own.alive) or any(view.name == name for view in found.values())
        if not is_found and is_game_id(game_id):
            named = inspect(name)
            if named is not None:
                found[named.container_id] = named
        return [view for view in found.values() if view.game_id == game_id or view.container_id == recorded]

    def _namesakes(
        self, game_id: str, record: RuntimeRecord | None, views: Sequence[ContainerView]
    ) -> Mapping[str, str]:
        """Other games that have the game's name, where that prevents the adoption of a container."""
        if has_no_name(record) and not all(view.ended for view in views):
            return self.findings.namesakes([game_id])
        return {}

    def _out_of_memory(
        self, record: RuntimeRecord | None, own: ContainerView | None, hint: ReconcileHint
    ) -> list[Finding]:
        """The finding of an out-of-memory event about the container of a running game."""
        container_id = record.current_container_id if record and record.status is Status.RUNNING else None
        time_ns = hint.oom.get(container_id or "")
        if record is None or container_id is None or time_ns is None:
            return []
        now = self.clock()
        at = min(now, datetime.fromtimestamp(time_ns / 1e9, UTC)) if time_ns else now  # the daemon's clock may be ahead
        details = {"exit_code": own.exit_code if own else None}
        source = HealthSource.DOCKER_EVENT
        event = HealthEvent(record.game_id, container_id, EventType.CONTAINER_OOM, source, at, details)
        return [
            Finding(
                game_id=record.game_id,
                seen=record,
                why=f"container {container_id[:12]} ran out of memory",
                health=(event,),
                raises=Alarm(AlarmKind.OOM, container_id, str(time_ns), at, details),
            )
        ]

    def _enriched(self, finding: Finding, own: ContainerView | None, hint: ReconcileHint) -> Finding:
        """The finding of an exit with its details: who requested it, memory, the log's end, and the restart time.

        Raises `Unavailable` while the runtime shuts down: only after its restart is it clear whether that ended the
        game.
        """
        if finding.last_exit is None or own is None:
            return finding
        container_id, run = own.container_id, self.runtime.present_run()
        by = requested_by(
            own,
            run,
            signalled=container_id in hint.signalled,
            sender=self.sender(own),
            ran_in_run=self.sightings.ran_in(run, finding.game_id, container_id),
        )
        if by in OUTAGES:
            self.sightings.ended_with_earlier(run, finding.game_id, container_id)
        log = end_of_log(self.runtime, container_id)
        finding = explained(finding, by, log, memory_ran_out=container_id in hint.oom)
        return self._with_restart(finding, hint)

    def _with_restart(self, finding: Finding, hint: ReconcileHint) -> Finding:
        """The finding with the time and cause of a restart, if the game is to be restarted."""
        last_exit = finding.last_exit
        if last_exit is None:
            return finding
        if last_exit.requested_by in OUTAGES:
            at = self.findings.now() if self.after_outages else None
            return replace(finding, restart_at=at, restart_cause=RestartCause.OUTAGE)
        policy = self.restarts
        if policy is None or not is_crash(last_exit, event_seen=last_exit.container_id in hint.died):
            return finding
        given_up = partial(self._given_up, finding, last_exit, policy)
        return planned(finding, RestartCause.CRASH, policy, self.findings, given_up)

    def _given_up(self, finding: Finding, last_exit: LastExit, policy: RestartPolicy, done: int) -> Finding:
        """The finding of an exit after which the game stays stopped: notifies an administrator and marks its health."""
        self.logger.error(
            "crashed game is not started again, its budget is used up",
            extra={"game_id": finding.game_id, "restarts": done, "window_s": policy.window_s},
        )
        message = notification(
            finding,
            last_exit.container_id,
            RestartCause.CRASH,
            f"the game crashed with exit code {last_exit.exit_code} after {done} restarts within "
            f"{policy.window_s:g} s and stays stopped; see its health, and start it when the cause is mended",
            attempted_at=last_exit.exited_at,
            now=self.clock(),
        )
        return replace(finding, last_exit=replace(last_exit, budget_used_up=True), messages=(message,))

    def _write(self, finding: Finding, failed: list[DependencyError]) -> WriteResult:
        try:
            result = self.findings.write(finding)
        except StoreRejected as error:
            failed.append(error)
            return WriteResult.KNOWN
        if result is WriteResult.WRITTEN:
            fields = {"game_id": finding.game_id, "why": finding.why}
            if finding.restart_at is not None:
                fields["restart_at"] = finding.restart_at.isoformat()
            self.logger.warning("record follows its container" if finding.new else "container in trouble", extra=fields)
            self.written(finding)
        return result

    def _note_exit(self, finding: Finding, hint: ReconcileHint, result: WriteResult) -> None:
        last_exit = finding.last_exit
        if last_exit is not None and result is WriteResult.WRITTEN and hint.source is HealthSource.INSPECT:
            self.exit_found(last_exit.container_id, (self.clock() - last_exit.exited_at).total_seconds())

    def _report(self, stray: Stray) -> None:
        if not self.findings.busy(stray.game_id):
            self.strays.report(stray)


def _own(record: RuntimeRecord | None, views: Sequence[ContainerView]) -> ContainerView | None:
    """The recorded container of a game that is recorded as running; None when it is not among `views`."""
    if record is None or record.status is not Status.RUNNING:
        return None
    return next((view for view in views if view.container_id == record.current_container_id), None)


def _may_be_memory(own: ContainerView, hint: ReconcileHint) -> bool:
    """Whether the container was killed, and neither Docker nor an event has reported a lack of memory yet."""
    killed = own.state is ContainerState.EXITED and own.exit_code == KILLED
    return killed and not own.oom_killed and own.container_id not in hint.oom


def _may_be_overtaken(own: ContainerView, hint: ReconcileHint) -> bool:
    """Whether the container ended and its event, which shows whether the end was requested, may still come."""
    explained_by_event = hint.died | hint.signalled | hint.waited_for
    return own.state is ContainerState.EXITED and own.container_id not in explained_by_event


def _of_its_own_accord(finding: Finding) -> bool:
    """Whether the finding is an exit with code 0, which by contract only a reconcile pass reports."""
    return finding.last_exit is not None and finding.last_exit.exit_code == 0
