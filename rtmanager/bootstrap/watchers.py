"""Connects the watching workers: what they inspect, what triggers them, and the order of their start.

The event subscription begins before the first reconcile, which ends before anything else works. What happened while no
instance ran is thus known first, and no event is missed in between. The watch has a Docker client of its own, so that
closing it ends every inspection under way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

from rtmanager.adapters.docker.probe_route import ProbeRoute
from rtmanager.adapters.free_space import FreeSpace
from rtmanager.adapters.postgres.findings import PostgresFindings
from rtmanager.adapters.postgres.images import PostgresImages
from rtmanager.adapters.postgres.purge import PostgresPurge
from rtmanager.adapters.postgres.records import PostgresRecords
from rtmanager.bootstrap.dependencies import Dependencies
from rtmanager.config.settings import Config
from rtmanager.domain.crash import RestartPolicy
from rtmanager.domain.drift import Placement
from rtmanager.domain.errors import DependencyError, Unavailable
from rtmanager.domain.findings import Finding, RestartCause
from rtmanager.domain.health import HealthSource
from rtmanager.metrics import Metrics
from rtmanager.operations.troubles import StoreWaits
from rtmanager.operations.wake import Wake
from rtmanager.ports.clock import Clock
from rtmanager.ports.store import OperationQueue
from rtmanager.workers.clock import SteadyClock
from rtmanager.workers.crash_restarts import CrashRestarts
from rtmanager.workers.failures import GameFailures
from rtmanager.workers.free_space import FreeSpaceMeter
from rtmanager.workers.image_retention import ImageRetention
from rtmanager.workers.inspector import Inspector
from rtmanager.workers.loop import Loop
from rtmanager.workers.prober import Prober
from rtmanager.workers.purge import Purge, Retentions
from rtmanager.workers.reconcile.game import GameReconciler
from rtmanager.workers.reconcile.listener import EventListener
from rtmanager.workers.reconcile.queue import WORK as ATTENTION
from rtmanager.workers.reconcile.queue import ReconcileHint, ReconcileQueue
from rtmanager.workers.reconcile.scan import DriftScan
from rtmanager.workers.reconcile.sightings import RunSightings
from rtmanager.workers.reconcile.signals import SignalMemory
from rtmanager.workers.reconcile.strays import StrayRegistry
from rtmanager.workers.retention import Retention
from rtmanager.workers.status import Workers

#: Period of the query for restarts that are due.
RESTART_POLL_S = 1.0
#: Period of the measurement of free space.
FREE_SPACE_PERIOD_S = 60.0
#: A longer step counts as hanging. It waits for many containers, each with a deadline of its own.
STUCK_S = 600.0
STUCK_PERIODS = 10.0
#: One reconcile of a game waits for a few answers of Docker and PostgreSQL.
ATTEMPT_STUCK_S = 300.0
#: One step listens for fifteen seconds, and every wait before it has a deadline.
EVENTS_STUCK_S = 120.0
#: Longest time for the first attempts at games whose end was just requested, when the process ends.
LAST_ENDS_S = 2.0


class _WatchMetrics:
    """The metrics of the watch."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.findings = metrics.counter(
            "rtmanager_findings_total", "What was found out about games, by event.", "event"
        )
        self.game_failures = metrics.counter(
            "rtmanager_game_failures_total", "Work on a single game that failed while the others went on.", "work"
        )
        self._failing = metrics.gauge(
            "rtmanager_failing_games",
            "Games on which work fails repeatedly: failures in a row.",
            "work",
            "game_id",
        )
        self._strays = metrics.gauge(
            "rtmanager_stray_containers",
            "Containers that disagree with the records and are left alone.",
            "game_id",
            "container_id",
            "reason",
        )
        self.deleted = metrics.counter(
            "rtmanager_deleted_total", "What this instance deleted after its retention: rows and entries.", "what"
        )
        self.free_bytes = metrics.gauge(
            "rtmanager_free_bytes", "Free bytes of the file system of a place, where it is visible.", "place"
        )
        self.free_inodes = metrics.gauge(
            "rtmanager_free_inodes", "Free inodes of the file system of a place, where they are counted.", "place"
        )

    def render(self, strays: StrayRegistry, failures: GameFailures) -> str:
        """Render all metrics of the manager as text, the gauges of the watch with their present values."""
        self._strays.replace(
            {(stray.game_id, stray.container_id[:12], stray.reason): 1 for stray in strays.known.values()}
        )
        self._failing.replace(failures.failing())
        return self._metrics.render()


class Watch:
    """The watching workers; call `begin`, then `work`. Each adds its stop to the stack."""

    def __init__(
        self,
        config: Config,
        parts: Dependencies,
        queue: OperationQueue,
        *,
        findings: PostgresFindings,
        clock: Clock,
        works_on: Callable[[str], bool],
        queued: Callable[[], None],
        written: Callable[[], None],
        metrics: Metrics,
        workers: Workers,
        logger: logging.Logger,
    ) -> None:
        self._workers = workers
        self._loops: list[Loop] = []
        self._config = config
        self._logger = logger
        self._queue = queue
        self._queued = queued
        self._messages_due = written
        self._runtime = parts.watched_docker
        self._docker_root = parts.docker.local_root
        self._feed = parts.docker_events
        self._probes = parts.probes
        self._streams = parts.streams
        self._state_root = parts.state_root
        self._images = PostgresImages(parts.database)
        self._purge_store = PostgresPurge(parts.database, config.streams)
        self._records = PostgresRecords(parts.database)
        self._findings = findings
        self._clock = clock
        self._steady = SteadyClock(findings.now, logger)
        self._missed = Wake()
        self._strays = StrayRegistry(logger)
        self._signals = SignalMemory()
        self._sightings = RunSightings()
        self._metrics = _WatchMetrics(metrics)
        # The reconcile queue has no pass of its own: it only works on games.
        self._failures = GameFailures(
            logger,
            self._metrics.game_failures.inc,
            lambda work: workers.status(work) if work == ATTENTION else workers.of_games(work),
        )
        placement = Placement(config.docker_network, parts.state_directories.path_of)
        self._reconcile_queue = ReconcileQueue(
            self._game_reconciler(placement, works_on).settle,
            logger=logger,
            failures=self._failures,
            status=workers.status(ATTENTION, stuck_s=ATTEMPT_STUCK_S),
            room=self._missed.set,
        )
        self._listener = EventListener(
            self._feed,
            self._reconcile_queue,
            missed=self._missed.set,
            logger=logger,
            present_run=self._runtime.present_run_of_any,
            signals=self._signals,
            deployment=lambda: self._runtime.deployment,
        )
        self.drift_scan = DriftScan(
            findings=self._findings,
            runtime=self._runtime,
            reconcile_queue=self._reconcile_queue,
            strays=self._strays,
            sightings=self._sightings,
            placement=placement,
            clock=self._clock,
            logger=logger,
            failures=self._failures,
        )

    def begin(self, stack: ExitStack) -> None:
        """Subscribe to events, and make the first pass.

        A dependency that does not answer does not prevent the start.
        """
        self._reconcile_queue.start()
        stack.callback(self._reconcile_queue.close)
        self._events = events = Loop(
            "events",
            self._listener.step,
            period_s=1.0,
            logger=self._logger,
            interrupt=self._feed.interrupt,
            status=self._workers.status("events", stuck_s=EVENTS_STUCK_S),
        )
        self._start(stack, events)
        stack.callback(self._runtime.close)
        if not self.drift_scan.first_pass():
            self._missed.set()

    def work(self, stack: ExitStack) -> None:
        """Start the periodic workers."""
        config = self._config
        reconcile = self._loop(
            "reconcile", self.drift_scan.step, config.reconcile_interval_s, wake=self._missed, delayed=True
        )
        self._start(stack, reconcile)
        self._start(stack, self._loop("inspect", self._inspector().step, config.inspect_interval_s))
        probe = self._loop("probe", self._probing(), config.probe_interval_s, interrupt=self._probes.interrupt)
        self._start(stack, probe)
        self._start(stack, self._loop("retention", self._retention().step, config.cleanup_interval_s))
        purge = self._purge()
        self._start(stack, self._loop("purge", purge.step, config.cleanup_interval_s, interrupt=purge.interrupt))
        self._start(stack, self._loop("free-space", self._free_space().step, FREE_SPACE_PERIOD_S))
        restarts = CrashRestarts(
            self._findings,
            queued=self._queued,
            logger=self._logger,
            longest_pause_s=config.crash_restart_longest_pause_s,
            failures=self._failures,
            outages_at_once=config.outage_restarts_at_once if config.outage_restart else 0,
            causes=_causes(config),
            runtime_away=lambda: self._events.away,
        )
        self._start(stack, self._loop("crash-restarts", restarts.step, RESTART_POLL_S))
        # This ends every wait for Docker.
        stack.callback(self._runtime.close)
        # The first to stop, while Docker can still be inspected.
        stack.callback(self._decide_on_last_ends)

    def _decide_on_last_ends(self) -> None:
        """Reconcile what a person just stopped as a pass would: nothing else remembers that until the next pass."""
        hints = {
            game_id: ReconcileHint(
                HealthSource.DOCKER_EVENT, frozenset({container_id}), signalled=frozenset({container_id}), listed=True
            )
            for game_id, container_id in self._signals.undecided(2 * self._config.reconcile_interval_s).items()
        }
        self._reconcile_queue.attempt_now(hints, LAST_ENDS_S)

    def metrics(self) -> str:
        """Render all metrics as text, with their present values."""
        return self._metrics.render(self._strays, self._failures)

    def _written(self, finding: Finding) -> None:
        for event in finding.health:
            self._metrics.findings.inc(event.event_type.value)
        self._messages_due()

    def _game_reconciler(self, placement: Placement, works_on: Callable[[str], bool]) -> GameReconciler:
        return GameReconciler(
            records=self._records,
            findings=self._findings,
            runtime=self._runtime,
            placement=placement,
            strays=self._strays,
            clock=self._clock,
            written=self._written,
            later=self._add_later,
            logger=self._logger,
            restarts=_restart_policy(self._config) if self._config.crash_restart else None,
            after_outages=self._config.outage_restart,
            works_on=works_on,
            exit_found=lambda container_id, ended_ago_s: self._listener.exit_found(container_id, ended_ago_s),
            sender=self._signals.sender,
            sightings=self._sightings,
        )

    def _add_later(self, game_id: str, hint: ReconcileHint, delay_s: float) -> None:
        self._reconcile_queue.add(game_id, hint, delay_s=delay_s)

    def _inspector(self) -> Inspector:
        return Inspector(
            records=self._records,
            findings=self._findings,
            leases=self._findings,
            runtime=self._runtime,
            clock=self._clock,
            written=self._written,
            period_s=self._config.inspect_interval_s,
            logger=self._logger,
            failures=self._failures,
        )

    def _prober(self) -> Prober:
        config = self._config
        return Prober(
            records=self._records,
            findings=self._findings,
            leases=self._findings,
            runtime=self._runtime,
            probes=self._probes,
            by=ProbeRoute(config.probe_target, config.docker_network, self._runtime),
            clock=self._clock,
            written=self._written,
            period_s=config.probe_interval_s,
            timeout_s=config.probe_timeout_s,
            threshold=config.probe_failures_threshold,
            restarts=_restart_policy(config) if config.probe_restart else None,
            logger=self._logger,
            failures=self._failures,
        )

    def _probing(self) -> Callable[[], bool]:
        """Return the prober's step, which stops with the passes although probes by name need no Docker."""
        prober = self._prober()

        def step() -> bool:
            self._runtime.require_daemon()
            return prober.step()

        return step

    def _retention(self) -> Retention:
        return Retention(
            findings=self._findings,
            leases=self._findings,
            queue=self._queue,
            queued=self._queued,
            keep=timedelta(days=self._config.container_retention_days),
            period_s=self._config.cleanup_interval_s,
            logger=self._logger,
            steady=self._steady,
            failures=self._failures,
        )

    def _purge(self) -> Purge:
        config = self._config
        return Purge(
            streams=self._streams,
            store=self._purge_store,
            leases=self._findings,
            keep=_retentions(config),
            period_s=config.cleanup_interval_s,
            deleted=lambda what, rows: self._metrics.deleted.inc(what, by=rows),
            logger=self._logger,
            steady=self._steady,
            images=self._image_retention().whole_pass,
        )

    def _image_retention(self) -> ImageRetention:
        return ImageRetention(
            self._images,
            self._runtime,
            keep_s=self._config.image_retention_s,
            removed=lambda: self._metrics.deleted.inc("images"),
            logger=self._logger,
        )

    def _free_space(self) -> FreeSpaceMeter:
        return FreeSpaceMeter(
            {
                "state_root": FreeSpace(lambda: self._state_root).measure,
                "docker_root": FreeSpace(self._docker_root).measure,
            },
            free_bytes=self._metrics.free_bytes,
            free_inodes=self._metrics.free_inodes,
        )

    def _loop(
        self,
        name: str,
        step: Callable[[], bool],
        period_s: float,
        *,
        wake: Wake | None = None,
        interrupt: Callable[[], None] | None = None,
        delayed: bool = False,
    ) -> Loop:
        return Loop(
            name,
            step,
            period_s=period_s,
            logger=self._logger,
            wake=wake,
            interrupt=interrupt,
            steady=True,
            delayed=delayed,
            status=self._workers.status(name, stuck_s=max(STUCK_S, STUCK_PERIODS * period_s)),
        )

    @property
    def store_waits(self) -> StoreWaits:
        """The games whose reconcile waits for PostgreSQL."""
        return self._reconcile_queue.store_waits

    def problem(self) -> str:
        """Return which container delays other games, or that no events arrive; empty when neither is so."""
        return self._reconcile_queue.problem() or self._listener.problem()

    def away(self) -> list[DependencyError]:
        """Return the dependency errors of the workers' last steps; Docker's silence only when it lasts.

        Docker's own check makes other calls than the watch.
        """
        met = [(loop, loop.away) for loop in self._loops]
        return [error for loop, error in met if error is not None and (_is_reported(error) or loop.is_away_for_long())]

    def _start(self, stack: ExitStack, loop: Loop) -> None:
        self._loops.append(loop)
        loop.start()
        stack.callback(loop.close)


def _is_reported(error: DependencyError) -> bool:
    return error.dependency != "docker" or type(error) is not Unavailable


def _retentions(config: Config) -> Retentions:
    """Return the retentions; operations are kept at least as long as restarts are counted from them."""
    operations_s = config.operations_retention_s
    if operations_s and (config.crash_restart or config.probe_restart):
        operations_s = max(operations_s, 2 * config.crash_restart_window_s)
    return Retentions(
        operations_s=operations_s,
        dead_letters_s=config.dead_letters_retention_s,
        input_streams_s=config.input_streams_retention_s,
        operation_log_s=config.operation_log_retention_s,
    )


def _causes(config: Config) -> list[RestartCause]:
    """Return the causes of restarts within the budget."""
    wanted = {RestartCause.CRASH: config.crash_restart, RestartCause.PROBE: config.probe_restart}
    return [cause for cause, is_on in wanted.items() if is_on]


def _restart_policy(config: Config) -> RestartPolicy:
    return RestartPolicy(
        budget=config.crash_restart_budget,
        window_s=config.crash_restart_window_s,
        first_pause_s=config.crash_restart_first_pause_s,
        longest_pause_s=config.crash_restart_longest_pause_s,
    )
