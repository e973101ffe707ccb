"""`Runtime`: the whole manager as one object; the only place that connects its parts.

Any process may start and stop a `Runtime` any number of times. A stop leaves no thread, socket or connection behind,
and every game's container running.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from time import monotonic
from types import TracebackType

import psycopg

from rtmanager import resources
from rtmanager.adapters.lobby import LobbyDiagnostics
from rtmanager.adapters.postgres.database import Database, new_owner
from rtmanager.adapters.postgres.findings import PostgresFindings
from rtmanager.adapters.postgres.histories import PostgresHistories
from rtmanager.adapters.postgres.images import PostgresImages
from rtmanager.adapters.postgres.inbox import PostgresInbox
from rtmanager.adapters.postgres.migrate import migrate
from rtmanager.adapters.postgres.outbox import PostgresOutbox
from rtmanager.adapters.postgres.queue import PostgresQueue
from rtmanager.adapters.postgres.records import PostgresRecords
from rtmanager.adapters.postgres.session_lock import PostgresSessionLock
from rtmanager.bootstrap.dependencies import Dependencies, is_loopback
from rtmanager.bootstrap.readiness import Readiness
from rtmanager.bootstrap.startup import Startup, StartupFailed
from rtmanager.bootstrap.watchers import Watch
from rtmanager.config.settings import Config
from rtmanager.domain.errors import DependencyError, RuntimeManagerError, with_remedy
from rtmanager.domain.image_policy import ImagePolicy
from rtmanager.http.access import Access
from rtmanager.http.api import LANES, Api
from rtmanager.http.refusals import StoreRefusals
from rtmanager.http.server import HttpServer
from rtmanager.logs import dropped
from rtmanager.metrics import Metrics
from rtmanager.operations.completions import CompletionNotifier
from rtmanager.operations.executor import Executor
from rtmanager.operations.runner import OperationRunner
from rtmanager.operations.sync_requests import SyncRequests
from rtmanager.operations.tools import EngineSettings, Tools
from rtmanager.operations.troubles import Kind
from rtmanager.operations.wake import Wake
from rtmanager.ports.store import StoreRejected
from rtmanager.workers import clock, lease, state_root
from rtmanager.workers.clock import ClockWatch, StoreClock
from rtmanager.workers.image_retention import PullNotes
from rtmanager.workers.ingest import Ingest
from rtmanager.workers.loop import Loop
from rtmanager.workers.outbox import Relay
from rtmanager.workers.peers import PERIOD_S as PEERS_PERIOD_S
from rtmanager.workers.peers import PeerWatch
from rtmanager.workers.state_root import StateRootWatch
from rtmanager.workers.status import Workers, WorkerStatus

#: Period of each queue's poll without a wake-up: for what another instance left, and for what was deferred.
POLL_S = 1.0
#: Longest time to publish the last messages at a stop.
LAST_MESSAGES_S = 5.0
#: Longest time for HTTP exchanges to end after all operations have.
HTTP_DRAIN_S = 2.0


#: A longer step of these loops counts as hanging. Each of its few waits ends within the silence timeout.
STUCK_S = 60.0
STUCK_SILENCES = 8.0


#: The dependencies without which the manager is not ready.
READY = frozenset({"postgres", "redis", "docker", "network", "daemon", "state root"})


class Runtime:
    """The Runtime Manager; `start` returns when it serves, `stop` when it has ended completely."""

    def __init__(self, config: Config, logger: logging.Logger) -> None:
        self._config = config
        self._logger = logger
        self._stack: ExitStack | None = None
        self._http: HttpServer | None = None
        self._workers: Workers | None = None

    def thread_failed(self, name: str, _error: BaseException) -> None:
        """Count a thread of this process that an uncaught error ended."""
        if self._workers is not None:
            self._workers.thread_failed(name)

    @property
    def http_address(self) -> tuple[str, int]:
        """The address of the REST API, with the real port when the configured one is 0."""
        if self._http is None:
            raise RuntimeError("the runtime is not started")
        return self._http.address

    def start(self, begins: Callable[[], object] = lambda: None) -> None:
        """Check the dependencies, migrate, then serve. Raises `StartupFailed`; then nothing is left running.

        `begins` is called after the migration and before any worker starts.
        """
        if self._stack is not None:
            raise RuntimeError("the runtime is started already")
        began = monotonic()
        with ExitStack() as stack:
            try:
                config = self._config
                resources.require(resources.files_needed(config.postgres_pool_size, config.max_parallel_operations))
                self._http = self._wire(stack, begins)
            except (RuntimeManagerError, OSError, psycopg.Error, MemoryError, RuntimeError) as error:
                lack = resources.lacking(error)
                if isinstance(error, RuntimeError) and lack is None:
                    raise
                raise StartupFailed(with_remedy(lack or error)) from error
            self._stack = stack.pop_all()
        host, port = self.http_address
        self._logger.info(
            "serving", extra={"address": f"{host or '*'}:{port}", "start_ms": round((monotonic() - began) * 1000)}
        )

    def stop(self) -> None:
        """Stop reading, finish or hand back operations, leave the containers running. Does nothing when stopped."""
        stack, self._stack, self._http = self._stack, None, None
        if stack is not None:
            self._logger.info("stopping")
            stack.close()
            self._logger.info("stopped")

    def __enter__(self) -> Runtime:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wire(self, stack: ExitStack, begins: Callable[[], object]) -> HttpServer:
        """Build the parts; the stack closes them in the opposite order."""
        parts = Dependencies.of(self._config, self._logger)
        stack.callback(parts.close)
        Startup(self._config.startup_wait_s, self._logger).run(parts.checks())
        parts.database.open()  # its connections are made while migrations are checked
        applied = migrate(parts.database, self._logger)
        if applied:
            self._logger.info("migrated", extra={"migrations": applied})
        parts.one_daemon.establish(parts.docker)
        begins()
        metrics = Metrics()
        self._workers = _workers(metrics, self._logger)
        return _Service(self._config, self._logger, parts, metrics, self._workers).start(stack)


def _workers(metrics: Metrics, logger: logging.Logger) -> Workers:
    """Build the workers with the counters of their failures and of lost log lines."""
    metrics.read_counter(
        "rtmanager_log_lines_dropped_total",
        "Log lines that were lost: they were not read in time, or could not be written.",
        lambda: dropped(logger),
    )
    failures = metrics.counter(
        "rtmanager_worker_failures_total", "Failures of a worker: defects and final answers, not silence.", "worker"
    )
    return Workers(logger, lambda worker, by: failures.inc(worker, by=by))


class _Store:
    """The adapters of PostgreSQL, which share one database."""

    def __init__(self, config: Config, database: Database, refused: Callable[[str, StoreRejected], object]) -> None:
        self.owner = new_owner()
        self.session_lock = PostgresSessionLock(database, self.owner)
        self.queue = PostgresQueue(database, owner=self.owner, lease_s=config.game_lease_ttl_s, refused=refused)
        self.records = PostgresRecords(database)
        self.histories = PostgresHistories(database)
        self.outbox = PostgresOutbox(database)
        self.inbox = PostgresInbox(database, config.streams)
        self.findings = PostgresFindings(database, self.owner)
        #: Source of stored times, because other instances compare them.
        self.clock = StoreClock(self.findings.now)
        self.images = PostgresImages(database)


class _Service:
    """The parts that work after every dependency has answered."""

    def __init__(
        self, config: Config, logger: logging.Logger, parts: Dependencies, metrics: Metrics, workers: Workers
    ) -> None:
        self._config = config
        self._logger = logger
        self._workers = workers
        for name, warnings in parts.warnings.items():
            for warning in warnings:
                logger.warning(f"{name} can be used, but not as it should be", extra={"warning": warning})
        self._streams = parts.streams
        self._docker = parts.guarded_docker
        self._one_daemon = parts.one_daemon
        self._tokens = parts.tokens
        # No container reaches a listener on loopback.
        is_reached = not is_loopback(config.http_addr.host)
        self._peers = PeerWatch(parts.docker, config.docker_network) if is_reached else None
        self._state_directories = parts.state_directories
        self._store = _Store(config, parts.database, self._operation_refused)
        self._relay = Relay(
            self._store.outbox,
            self._streams,
            logger,
            intents_per_minute=config.intents_per_minute,
            refused=lambda _: workers.count("outbox"),
        )
        self._due = Wake()
        self._messages_due = Wake()
        self._ingest = Ingest(self._streams, self._store.inbox, config.streams, accepted=self._due.set, logger=logger)
        self._lobby = LobbyDiagnostics(config.lobby_base_url, config.lobby_timeout_s, logger)
        self._completions = CompletionNotifier()
        self._lost_directories = metrics.counter(
            "rtmanager_lost_state_directories_total",
            "Starts, restarts and patches of games that ran before and whose state directory was missing.",
        )
        self._executor = self._make_executor()
        self._calls = SyncRequests(self._store.queue, self._completions, wake=self._due, require=parts.streams.require)
        self._stuck = metrics.gauge(
            "rtmanager_stuck_operations",
            "Operations that are retried, get no further, and need a person.",
            "game_id",
            "op_kind",
            "trouble",
        )
        offset = metrics.gauge(
            "rtmanager_clock_offset_seconds", "By how much this host's clock is ahead of PostgreSQL's."
        )
        self._clock_watch = ClockWatch(self._store.clock, measured=offset.set, logger=logger)
        self._frozen = metrics.gauge(
            "rtmanager_other_daemon", "Whether another Docker daemon answers than the one on record: passes are frozen."
        )
        self._watch = Watch(
            config,
            parts,
            self._store.queue,
            findings=self._store.findings,
            clock=self._store.clock,
            works_on=self._executor.works_on,
            queued=self._due.set,
            written=self._messages_due.set,
            metrics=metrics,
            workers=workers,
            logger=logger,
        )
        # Not among the workers: readiness itself checks whether the store rejects the requests of more than one game.
        of_kind = cache(lambda _kind: WorkerStatus("http", logger, counted=workers.count))
        self._refusals = StoreRefusals(
            lambda kind, error: of_kind(kind).failed(error, message=f"the store refuses a request: {kind}"), logger
        )
        self._state_root = StateRootWatch(self._state_directories.check_root, logger)
        self._state_root_usable = metrics.gauge(
            "rtmanager_state_root_usable", "Whether games can be started under the state root: 1 or 0."
        )
        self._loops: list[Loop] = []
        workers.watch("postgres-watch", lambda: parts.database.lost_its_watch)
        self._readiness = self._make_readiness(parts)

    def start(self, stack: ExitStack) -> HttpServer:
        """Start every part; each adds its stop to `stack`."""
        self._store.clock.read()
        self._streams.use_deployment(self._one_daemon.deployment)
        self._lobby.start()
        stack.callback(self._lobby.close)
        stack.callback(self._readiness.close)
        stack.callback(self._executor.join)
        if (peers := self._peers) is not None:
            period_s = PEERS_PERIOD_S
            loop = self._loop("peers", peers.step, period_s=period_s, wake=peers.wake, interrupt=peers.interrupt)
            self._start_loop(stack, loop)
        # From here on nothing needs Docker: this ends calls that still wait for it, and so their threads.
        stack.callback(self._docker.close)
        stack.callback(self._store.session_lock.close)
        self._start_loop(stack, self._loop("clock", self._clock_watch.step, period_s=clock.PERIOD_S))
        self._start_loop(stack, self._lease_loop())
        stack.callback(self._last_messages)
        self._start_loop(stack, self._loop("outbox", self._relay.step, wake=self._messages_due))
        http = self._http_server()
        http.start()  # before any claim: an address in use is found first
        stack.callback(http.stop, HTTP_DRAIN_S)
        stack.callback(self._calls.close)
        self._watch.begin(stack)
        stack.callback(self._executor.stop, self._config.shutdown_timeout_s)
        # Nothing is claimed any more: callers of operations that are not live here need not wait for the rest.
        stack.callback(self._calls.wait_only_for, self._executor.live_ids)
        self._start_loop(stack, self._loop("executor", self._executor.step, wake=self._due))
        self._start_loop(stack, self._loop("ingest", self._ingest.step, interrupt=self._streams.interrupt))
        self._watch.work(stack)
        self._start_loop(stack, self._loop("state-root", self._state_root.step, period_s=state_root.PERIOD_S))
        stack.callback(self._calls.refuse)
        return http

    def _make_executor(self) -> Executor:
        ends = self._workers.of_games("executor")
        return Executor(
            self._store.queue,
            OperationRunner(self._store.records, self._tools()),
            self._completions,
            slots=self._config.max_parallel_operations,
            wake=self._due,
            messages_due=self._messages_due,
            logger=self._logger,
            defect=lambda _: self._workers.count("operation"),
            refused=lambda game_id, error: ends.noted(error, item=game_id),
            taken=ends.succeeded,
            deferral_limit_s=self._config.deferral_limit_s,
            silence_s=self._config.silence_timeout_s,
        )

    def _make_readiness(self, parts: Dependencies) -> Readiness:
        checks: dict[str, Callable[[], object]] = {
            check.name: check.still or check.run
            for check in (*parts.checks(), parts.daemon_check())
            if check.name in READY
        }
        # Not among the workers: a failed check is itself a reason not to be ready, for as long as it fails.
        status = WorkerStatus("readiness", self._logger, counted=self._workers.count)
        return Readiness(
            {**checks, "reconcile": self._watch.drift_scan.check_finished, "requests": self._refusals.check},
            self._met,
            defect=lambda error: status.failed(error, message="readiness check failed by a defect"),
        )

    def _tools(self) -> Tools:
        config = self._config
        settings = EngineSettings(
            network=config.docker_network,
            default_limits=config.default_limits,
            pull_policy=config.image_pull_policy,
            image_policy=ImagePolicy(config.image_allow, config.image_require_digest),
            stop_grace_s=config.stop_grace_s,
            mount_path=config.engine_state_mount_path,
            state_env_name=config.engine_state_env_name,
            log_driver=config.docker_log_driver,
            log_options=config.docker_log_options,
            deployment=self._one_daemon.deployment,
        )
        return Tools(
            runtime=self._docker,
            state_directories=self._state_directories,
            settings=settings,
            clock=self._store.clock,
            owns=lambda operation: bool(self._store.queue.heartbeat([operation])),
            claim_name=self._store.queue.claim_name,
            note_end=self._store.queue.note_end,
            noted_end=self._store.queue.noted_end,
            query_lobby=self._lobby.query,
            logger=self._logger,
            count_lost_directory=self._lost_directories.inc,
            pulled=PullNotes(self._store.images, self._docker, self._logger).note,
            launches=self._peers.changed if self._peers else lambda: None,
        )

    def _http_server(self) -> HttpServer:
        api = Api(
            calls=self._calls,
            records=self._store.records,
            histories=self._store.histories,
            readiness=self._readiness,
            metrics=self._metrics,
            defect=lambda: self._workers.count("http"),
            refusals=self._refusals,
            logger=self._logger,
            hosts=self._config.http_hosts,
            access=Access(self._tokens.current if self._tokens else None, self._peers),
        )
        server = HttpServer(self._config.http_addr, api.handle, logger=self._logger, lanes=LANES, lane_of=api.lane)
        self._workers.watch("http", lambda: server.is_deaf)
        return server

    def _lease_loop(self) -> Loop:
        keeper = lease.LeaseKeeper(
            self._store.queue,
            self._store.session_lock,
            live=self._executor.live,
            waiting=self._executor.waiting,
            lease_s=self._config.game_lease_ttl_s,
            found=self._due.set,
            logger=self._logger,
        )
        return self._loop("lease", keeper.step, period_s=lease.PERIOD_S)

    def _loop(
        self,
        name: str,
        step: Callable[[], bool],
        *,
        period_s: float = POLL_S,
        wake: Wake | None = None,
        interrupt: Callable[[], None] | None = None,
    ) -> Loop:
        stuck_s = max(STUCK_S, STUCK_SILENCES * self._config.silence_timeout_s)
        status = self._workers.status(name, stuck_s=stuck_s)
        return Loop(name, step, period_s=period_s, logger=self._logger, wake=wake, interrupt=interrupt, status=status)

    def _operation_refused(self, call: str, error: StoreRejected) -> None:
        """Count and log that the store rejects one operation; the step continues with the others."""
        worker = "executor" if call == "claim" else "lease"
        self._workers.status(worker).failed(error, message="the store refuses an operation, the others go on")

    def _met(self) -> dict[str, str]:
        """Return what blocks workers now: by dependency, and each failing worker by its name."""
        met = [*self._watch.away(), *(loop.away for loop in self._loops if loop.away is not None)]
        away = {error.dependency: with_remedy(error) if error.dependency == "postgres" else str(error) for error in met}
        refused = [each for each in self._executor.troubles.now().values() if each.kind is Kind.STORE_REFUSES]
        for error in self._store.queue.refused.copy().values():
            away.setdefault("postgres", str(error))
        for stream, why in self._relay.refused.items():
            away.setdefault("redis", f"it refuses the output stream {stream}: {why}")
        for message_id, to in self._relay.unreadable.items():
            away.setdefault(
                "postgres",
                f"row {message_id} of outbox, for {to}, is no JSON object of texts and is left out; remedy: mend its "
                f"fields, or DELETE FROM outbox WHERE id = {message_id}",
            )
        if held := self._ingest.held.problem():
            away.setdefault("postgres", held)
        if refused:
            away.setdefault("postgres", f"operation {refused[0].operation_id} cannot be ended: {refused[0].why}")
        if problem := self._state_directories.problem():
            away.setdefault("state root", problem)
        for waits in (self._executor.store_waits, self._watch.store_waits):
            if problem := waits.problem():
                away.setdefault("postgres", problem)
        if "postgres" not in away and (problem := self._watch.problem()):
            away.setdefault("docker", problem)
        return {**self._workers.problems(), **away}

    def _metrics(self) -> str:
        troubles = self._executor.troubles.now().values()
        self._state_root_usable.set(self._state_root.usable)
        self._stuck.replace({(each.game_id, each.op_kind, each.kind.value): 1 for each in troubles})
        self._frozen.set(int(self._one_daemon.is_frozen))
        return self._watch.metrics()

    def _start_loop(self, stack: ExitStack, loop: Loop) -> None:
        self._loops.append(loop)
        loop.start()
        stack.callback(loop.close)

    def _last_messages(self) -> None:
        """Publish the messages of the last operations with this instance, not with the next."""
        until = monotonic() + LAST_MESSAGES_S
        try:
            while self._relay.step() and monotonic() < until:
                pass
        except DependencyError as error:
            self._logger.warning("messages stay in the outbox", extra={"error": str(error)})
        except Exception:  # a defect of the relay, which its worker has reported: no reason for another exit code
            self._logger.exception("messages stay in the outbox by a defect")
