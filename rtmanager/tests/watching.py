"""An in-memory world for the tests of the watching workers, without threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rtmanager.domain.crash import RestartPolicy
from rtmanager.domain.drift import Placement
from rtmanager.domain.errors import FinalAnswer, TemporaryAnswer
from rtmanager.domain.findings import Finding
from rtmanager.fakes.findings import MemoryFindings
from rtmanager.ports.watching import ProbeResult, ProbeTarget
from rtmanager.tests.making import NETWORK
from rtmanager.tests.operating import World
from rtmanager.workers.reconcile.game import GameReconciler
from rtmanager.workers.reconcile.queue import ReconcileHint
from rtmanager.workers.reconcile.scan import DriftScan
from rtmanager.workers.reconcile.sightings import RunSightings
from rtmanager.workers.reconcile.strays import StrayRegistry


class UnthreadedQueue:
    """`ReconcileQueue` without threads: `run` reconciles the queued games, in the order in which they were queued."""

    def __init__(self, settle: Callable[[str, ReconcileHint], bool]) -> None:
        self._settle = settle
        self.named: dict[str, tuple[ReconcileHint, float]] = {}

    def add(self, game_id: str, hint: ReconcileHint | None = None, *, delay_s: float = 0.0) -> None:
        hint = hint or ReconcileHint()
        if game_id in self.named:
            before, delay_before = self.named[game_id]
            hint, delay_s = before.merged(hint), min(delay_s, delay_before)
        self.named[game_id] = hint, delay_s

    def wait_until_attempted(self, timeout_s: float) -> bool:
        self.run()
        return True

    def run(self) -> list[str]:
        """Reconcile all queued games; return those that are not settled, which stay queued."""
        named, self.named = self.named, {}
        again = []
        for game_id, (hint, _) in named.items():
            try:
                settled = self._settle(game_id, hint)
            except (FinalAnswer, TemporaryAnswer):
                settled = False
            if not settled:
                again.append(game_id)
                self.add(game_id, hint)
        return again


@dataclass
class WatchedWorld(World):
    """A world with one watching instance; `written` has the findings that it wrote."""

    restarts: RestartPolicy | None = None
    owner: int = 1
    after_outages: bool = False
    written: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.watch()

    def watch(self) -> None:
        """Create the watching objects anew, over the present state of the world."""
        self.placement = Placement(NETWORK, self.directories.path_of)
        self.strays = StrayRegistry(self.captured.logger)
        self.sightings = RunSightings()
        self.findings = MemoryFindings(self.store, self.owner)
        self.game_reconciler = GameReconciler(
            records=self.store.records,
            findings=self.findings,
            runtime=self.runtime.port,
            placement=self.placement,
            strays=self.strays,
            clock=self.clock,
            written=self.written.append,
            later=lambda game_id, hint, delay_s: self.reconcile_queue.add(game_id, hint, delay_s=delay_s),
            logger=self.captured.logger,
            restarts=self.restarts,
            after_outages=self.after_outages,
            sightings=self.sightings,
        )
        self.reconcile_queue = UnthreadedQueue(self.game_reconciler.settle)
        self.drift_scan = DriftScan(
            findings=self.findings,
            runtime=self.runtime.port,
            reconcile_queue=self.reconcile_queue,  # type: ignore[arg-type]  # the same, without threads
            strays=self.strays,
            sightings=self.sightings,
            placement=self.placement,
            clock=self.clock,
            logger=self.captured.logger,
        )

    def reconcile(self) -> None:
        """Make one pass of the drift scan, and reconcile its suspects."""
        self.drift_scan.step()
        self.reconcile_queue.run()

    def container(self, game_id: str = "g1") -> str:
        """The container of a game's record."""
        return self.known(game_id).current_container_id or ""


@dataclass
class FakeResult:
    """The result of a probe."""

    status: int | None = 200
    error: str = ""

    @property
    def good(self) -> bool:
        return self.status == 200


class FakeProbes:
    """Probes with results set by the test, by game; None: the game has no result."""

    def __init__(self) -> None:
        self.results: dict[str, FakeResult | None] = {}
        self.targets: list[ProbeTarget] = []

    def probe(self, targets: Sequence[ProbeTarget], timeout_s: float) -> Mapping[str, ProbeResult]:
        self.targets = list(targets)
        answers = {target.key: self.results.get(target.key, FakeResult()) for target in targets}
        return {key: answer for key, answer in answers.items() if answer is not None}
