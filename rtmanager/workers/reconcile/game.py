"""One look at one game: its record first, then its containers, then what follows, written if it still holds.

Record before containers: a container that is seen to live after its record said "stopped" was started by somebody
since, whereas the other way round an operation may just have stopped it. What was decided is written only while
the record is the same and no operation is under way; so an intended stop is never taken for a crash, whichever
instance does it and whenever its events arrive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from rtmanager.domain.container import ContainerState, ContainerView
from rtmanager.domain.crash import RestartPolicy, is_crash
from rtmanager.domain.drift import Observation, Placement, decide, explained
from rtmanager.domain.errors import DependencyError, FinalAnswer, TemporaryAnswer
from rtmanager.domain.findings import Alarm, AlarmKind, Finding, RestartCause, Stray
from rtmanager.domain.game import container_name, is_game_id
from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.outage import KILLED, OUTAGES, LastExit, requested_by
from rtmanager.domain.record import RuntimeRecord, Status, has_no_name
from rtmanager.operations.tools import end_of_log
from rtmanager.ports.clock import Clock
from rtmanager.ports.runtime import ContainerNotFound, ContainerRuntime, StillRunning
from rtmanager.ports.store import Records, StoreRejected
from rtmanager.ports.watching import Findings, WriteResult
from rtmanager.workers.crash_restarts import notification, planned
from rtmanager.workers.reconcile.queue import ReconcileHint
from rtmanager.workers.reconcile.strays import StrayRegistry

#: A death by SIGKILL that no event explains may be the kernel's for want of memory: Docker tells that through another
#: channel, which may be a moment behind.
OOM_GRACE_S = 0.2
#: The event of an end may come after the list that shows it: so long it is waited for where it decides on a restart.
EVENT_GRACE_S = 1.0

#: Decisions in a row about one game (a container gone, another one adopted); more come with the next look.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class GameReconciler:
    """`settle` is what `ReconcileQueue` does with a game."""

    records: Records
    findings: Findings
    runtime: ContainerRuntime
    placement: Placement
    strays: StrayRegistry
    clock: Clock
    #: Called when a finding was written: its messages are due.
    written: Callable[[Finding], None]
    #: Lets a game be looked at again after so many seconds.
    later: Callable[[str, ReconcileHint, float], None]
    logger: logging.Logger
    #: How crashed games are started again; None: not at all.
    restarts: RestartPolicy | None = None
    #: Whether a game that ended with the runtime or the host is started again.
    after_outages: bool = False
    #: Whether this instance has an operation of that game under way.
    works_on: Callable[[str], bool] = lambda _: False
    #: Called when a pass alone found an exit: the container, and how many seconds ago it ended.
    exit_found: Callable[[str, float], None] = lambda *_: None

    def settle(self, game_id: str, hint: ReconcileHint) -> bool:
        """Whether the game is settled; otherwise it has to be looked at again.

        Raises `Unavailable`, and `FinalAnswer` for what the store will never take, or Docker never say.
        """
        settled = self._settle_record(game_id, hint)
        if hint.unstarted:
            self._remove_unstarted(game_id, hint.unstarted)
        return settled

    def _remove_unstarted(self, game_id: str, containers: frozenset[str]) -> None:
        """Remove what a restart or a patch created and left, unless an operation is under way, whose it may be.

        They were listed before, so no operation that begins now has made them. A game without a record is not ours.
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
        """Write what follows from the game's containers, as `settle` says."""
        if self.works_on(game_id):
            # Nothing could be written before its end, and a look would stand in Docker's way, and in that end's.
            return False
        for _ in range(ROUNDS):
            record = self.records.get(game_id)
            if not hint.listed and (record is None or record.status is not Status.RUNNING):
                # What happens to the containers of another deployment on this host ends here, too.
                return not self._may_come_true(game_id, hint)
            if (record is None or record.status is not Status.RUNNING) and self.findings.busy(game_id):
                # A start under way has a container that nobody may adopt, also when it fails before this look is over.
                return False
            failed: list[DependencyError] = []
            views = self._look(game_id, record, hint, failed)
            own = _own(record, views)
            if own is not None and own.state is ContainerState.REMOVING:
                return False
            if own is not None and own.container_id in hint.unexplained and _may_be_memory(own, hint):
                self.later(game_id, replace(hint, unexplained=frozenset()), OOM_GRACE_S)
                return True
            if own is not None and self.restarts and _may_be_overtaken(own, hint):
                self.later(game_id, replace(hint, waited_for=hint.waited_for | {own.container_id}), EVENT_GRACE_S)
                return True
            results = [self._write(finding, failed) for finding in self._out_of_memory(record, own, hint)]
            looked, namesakes = Observation(self.clock(), hint.source), self._namesakes(game_id, record, views)
            for decision in decide([record] if record else [], views, looked, self.placement, namesakes):
                if isinstance(decision, Stray):
                    self._report(decision)
                elif hint.listed or not _of_its_own_accord(decision):
                    results.append(self._write(self._enriched(decision, own, hint), failed))
                    self._note_exit(decision, hint, results[-1])
            if failed:
                raise failed[0]  # what else was found is written; the next pass tries again
            if WriteResult.BUSY in results:
                return False
            if WriteResult.WRITTEN not in results and WriteResult.CHANGED not in results:
                return not self._may_come_true(game_id, hint)
        return False

    def _may_come_true(self, game_id: str, hint: ReconcileHint) -> bool:
        """Whether an event that says nothing of the record as it is may do so when an operation has written its end."""
        return hint.source is HealthSource.DOCKER_EVENT and self.findings.busy(game_id)

    def _look(
        self, game_id: str, record: RuntimeRecord | None, hint: ReconcileHint, failed: list[DependencyError]
    ) -> Sequence[ContainerView]:
        """The containers that may be the game's: the recorded one, those that were named, the one with its name.

        `failed` takes what is said of others than the recorded one and is no answer: they hide nothing of that one.
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
        """Who has the game's name, where that keeps a container from being adopted."""
        if has_no_name(record) and not all(view.ended for view in views):
            return self.findings.namesakes([game_id])
        return {}

    def _out_of_memory(
        self, record: RuntimeRecord | None, own: ContainerView | None, hint: ReconcileHint
    ) -> list[Finding]:
        """What an out-of-memory event says, when it is about the container of a running game."""
        container_id = record.current_container_id if record and record.status is Status.RUNNING else None
        time_ns = hint.oom.get(container_id or "")
        if record is None or container_id is None or time_ns is None:
            return []
        now = self.clock()
        at = min(now, datetime.fromtimestamp(time_ns / 1e9, UTC)) if time_ns else now  # its clock may be ahead
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
        """An exit with its reason: who requested it, memory, the end of its log, and when the game is started again.

        Raises `Unavailable` while the runtime shuts down: whether its end took the game along shows when it is back.
        """
        if finding.last_exit is None or own is None:
            return finding
        container_id = own.container_id
        signalled, by_person = container_id in hint.asked, container_id in hint.by_person
        by = requested_by(own, self.runtime.present_run(), signalled=signalled, by_person=by_person)
        log = end_of_log(self.runtime, container_id)
        finding = explained(finding, by, log, memory_ran_out=container_id in hint.oom)
        return self._with_restart(finding, hint)

    def _with_restart(self, finding: Finding, hint: ReconcileHint) -> Finding:
        """The finding with the restart that follows from it, if any does."""
        last_exit = finding.last_exit
        if last_exit is None:
            return finding
        if last_exit.requested_by in OUTAGES:
            at = self.findings.now() if self.after_outages else None
            return replace(finding, restart_at=at, restart_cause=RestartCause.OUTAGE)
        policy = self.restarts
        if policy is None or not is_crash(last_exit, events_heard=last_exit.container_id in hint.died):
            return finding
        given_up = partial(self._given_up, finding, last_exit, policy)
        return planned(finding, RestartCause.CRASH, policy, self.findings, given_up)

    def _given_up(self, finding: Finding, last_exit: LastExit, policy: RestartPolicy, done: int) -> Finding:
        """The exit after which the game stays stopped: an administrator is notified, and its health shows it."""
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
            told = {"game_id": finding.game_id, "why": finding.why}
            if finding.restart_at is not None:
                told["restart_at"] = finding.restart_at.isoformat()
            self.logger.warning("record follows its container" if finding.new else "container in trouble", extra=told)
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
    """The container of a game that is recorded as running."""
    if record is None or record.status is not Status.RUNNING:
        return None
    return next((view for view in views if view.container_id == record.current_container_id), None)


def _may_be_memory(own: ContainerView, hint: ReconcileHint) -> bool:
    """Whether it was killed, and nobody has said why yet."""
    killed = own.state is ContainerState.EXITED and own.exit_code == KILLED
    return killed and not own.oom_killed and own.container_id not in hint.oom


def _may_be_overtaken(own: ContainerView, hint: ReconcileHint) -> bool:
    """Whether it ended, and the event that tells whether somebody requested that may be on its way."""
    heard = hint.died | hint.asked | hint.waited_for
    return own.state is ContainerState.EXITED and own.container_id not in heard


def _of_its_own_accord(finding: Finding) -> bool:
    """An end with code 0, which by contract is the reconciler's to tell."""
    return finding.last_exit is not None and finding.last_exit.exit_code == 0
