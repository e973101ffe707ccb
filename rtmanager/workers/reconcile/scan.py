"""The drift scan: lists all containers in one call, compares them with the records, and queues the games that differ.

A pass decides nothing for good: an operation may have changed everything since the list. So each suspect is reconciled
once more by itself (`GameReconciler`), by the same rules (`domain.drift`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from threading import Event

from rtmanager.domain.container import ContainerView
from rtmanager.domain.drift import Observation, Placement, decide, not_as_recorded
from rtmanager.domain.errors import DependencyError, FinalAnswer, RuntimeManagerError, TemporaryAnswer
from rtmanager.domain.findings import Finding, Stray
from rtmanager.domain.game import is_game_id
from rtmanager.domain.outage import RuntimeRun
from rtmanager.domain.record import RuntimeRecord, has_no_name
from rtmanager.ports.clock import Clock
from rtmanager.ports.runtime import ContainerRuntime
from rtmanager.ports.watching import Findings
from rtmanager.workers.failures import ALL_GAMES, GameFailures
from rtmanager.workers.reconcile.queue import ReconcileHint, ReconcileQueue
from rtmanager.workers.reconcile.sightings import RunSightings
from rtmanager.workers.reconcile.strays import StrayRegistry

#: Kinds of work under which failures are counted.
WORK, READING, REPORTING = "reconcile", "read_record", "report_stray"
#: Seconds that the first pass waits for the next of its suspects to be reconciled.
STUCK_S = 10.0


class NotReconciled(RuntimeManagerError):
    """The first pass has not finished, so the records may be out of date."""


class DriftScan:
    """One step is one pass."""

    def __init__(
        self,
        *,
        findings: Findings,
        runtime: ContainerRuntime,
        reconcile_queue: ReconcileQueue,
        strays: StrayRegistry,
        sightings: RunSightings,
        placement: Placement,
        clock: Clock,
        logger: logging.Logger,
        failures: GameFailures | None = None,
    ) -> None:
        """Each pass notes in `sightings` the containers that run."""
        self._findings = findings
        self._runtime = runtime
        self._reconcile_queue = reconcile_queue
        self._strays = strays
        self._sightings = sightings
        self._placement = placement
        self._clock = clock
        self._logger = logger
        self._failures = failures or GameFailures(logger)
        self._finished_one = Event()

    def first_pass(self) -> bool:
        """Make the pass that precedes all other work; False when it fails, and a later pass becomes the first."""
        try:
            self.step()
        except DependencyError as error:
            self._logger.warning("first reconcile put off", extra={"error": str(error)})
            return False
        except Exception:  # a defect: jobs and calls are served all the same, and the next pass retries
            self._logger.exception("first reconcile failed")
            return False
        if not self._reconcile_queue.wait_until_attempted(STUCK_S):
            self._logger.warning("some games of the first reconcile are stuck; their reconciliation is retried")
        return True

    def step(self) -> bool:
        """Return False: once a period is enough. Raises `Unavailable`."""
        suspects = self._suspects()
        for game_id, hint in suspects.items():
            self._reconcile_queue.add(game_id, hint)
        self._logger.debug("reconcile pass", extra={"suspects": len(suspects)})
        self._finished_one.set()
        return False

    def check_finished(self) -> None:
        """Raise `NotReconciled` before the first pass is over."""
        if not self._finished_one.is_set():
            raise NotReconciled("the first reconcile has not finished")

    def _suspects(self) -> dict[str, ReconcileHint]:
        """The games that differ from their records, each with a hint of its containers."""
        running = self._findings.running()
        listed, unstarted = _without_unstarted(self._list())
        differing = not_as_recorded(running, listed)
        known, unread = self._records_of([game_id for game_id in differing if is_game_id(game_id)])
        views = [view for view in listed if view.game_id in differing and view.game_id not in unread]
        decisions = self._decisions(known, views)
        strays = {each.container_id: each for each in decisions if isinstance(each, Stray)}
        self._strays.keep_only(strays)
        alive: defaultdict[str, set[str]] = defaultdict(set)
        for view in views:
            if not view.ended:
                alive[view.game_id].add(view.container_id)
        suspects: set[str] = set()
        for decision in decisions:
            if isinstance(decision, Stray) and decision.game_id not in known:
                self._failures.guarded(REPORTING, decision.game_id, partial(self._report, decision))
            else:
                suspects.add(decision.game_id)
        return {
            game_id: ReconcileHint(
                containers=frozenset(alive[game_id]), unstarted=frozenset(unstarted.get(game_id, ())), listed=True
            )
            for game_id in suspects | unstarted.keys()
        }

    def _list(self) -> Sequence[ContainerView]:
        """The containers; those that run are noted as seen in the runtime's present run, if that can be read."""
        run = RuntimeRun()
        try:
            run = self._runtime.present_run()
        except (FinalAnswer, TemporaryAnswer) as error:
            self._logger.debug("the run of the runtime cannot be read", extra={"error": str(error)})
        listed = self._runtime.list_games()
        self._sightings.saw(run, listed)
        return listed

    def _records_of(self, game_ids: Sequence[str]) -> tuple[dict[str, RuntimeRecord], set[str]]:
        """The records by game, and the games whose record cannot be read; one such game does not hide the others."""
        found = self._failures.guarded(READING, ALL_GAMES, lambda: self._findings.records_of(game_ids))
        if found is not None:
            return {record.game_id: record for record in found}, set()
        known: dict[str, RuntimeRecord] = {}
        unread = set()
        for game_id in game_ids:
            one = self._failures.guarded(READING, game_id, partial(self._findings.records_of, [game_id]))
            if one is None:
                unread.add(game_id)
            else:
                known |= {record.game_id: record for record in one}
        return known, unread

    def _decisions(self, known: Mapping[str, RuntimeRecord], views: Sequence[ContainerView]) -> list[Finding | Stray]:
        """The decisions about each game; an error about one game does not hide the others."""
        recorded = {record.current_container_id: record.game_id for record in known.values()}
        by_game: dict[str, list[ContainerView]] = {game_id: [] for game_id in known}
        for view in views:
            by_game.setdefault(recorded.get(view.container_id, view.game_id), []).append(view)
        without_name = [game_id for game_id in by_game if has_no_name(known.get(game_id)) and is_game_id(game_id)]
        # A failure here is harmless: the name is looked up again when an adoption is written.
        read_namesakes = partial(self._findings.namesakes, without_name)
        namesakes = (self._failures.guarded(READING, ALL_GAMES, read_namesakes) if without_name else None) or {}
        observation, found = Observation(self._clock()), list[Finding | Stray]()
        for game_id, of_game in sorted(by_game.items()):
            records = [known[game_id]] if game_id in known else []
            what_follows = partial(decide, records, of_game, observation, self._placement, namesakes)
            found.extend(self._failures.guarded(WORK, game_id, what_follows) or ())
        return found

    def _report(self, stray: Stray) -> None:
        """Report a stray of a game without a record; it needs no second check, since no operation makes one."""
        if self._strays.known.get(stray.container_id) != stray and not self._findings.busy(stray.game_id):
            self._strays.report(stray)


def _without_unstarted(listed: Sequence[ContainerView]) -> tuple[Sequence[ContainerView], Mapping[str, set[str]]]:
    """The containers without unstarted replacements, and the unstarted replacements by game."""
    unstarted: defaultdict[str, set[str]] = defaultdict(set)
    for view in listed:
        if view.is_unstarted_next:
            unstarted[view.game_id].add(view.container_id)
    if not unstarted:
        return listed, unstarted
    return [view for view in listed if not view.is_unstarted_next], unstarted
