"""One pass of the reconciler over many running games, against the list call that it makes.

The references are floors: the same call by the SDK, which only decodes the JSON, and by our adapter, which also
decodes every container. Beyond the second, the pass reads the records from a real PostgreSQL and compares.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from docker import APIClient

from bench import child
from bench.comparison import Contest, Goal, Sample, Side
from bench.errors import BenchError
from bench.synthetic import games
from bench.watch.clocks import on_both_clocks
from harness.fixtures import services
from harness.rtm import RUNTIME_MANAGER
from rtmanager.adapters.docker.runtime import DockerRuntime
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.findings import PostgresFindings
from rtmanager.adapters.postgres.migrate import migrate
from rtmanager.domain.record import RuntimeRecord
from rtmanager.ports.runtime import ContainerRuntime
from rtmanager.ports.watching import Findings
from rtmanager.workers.reconcile.queue import ReconcileHint, ReconcileQueue
from rtmanager.workers.reconcile.scan import DriftScan
from rtmanager.workers.reconcile.sightings import RunSightings
from rtmanager.workers.reconcile.strays import StrayRegistry

GAMES = 10_000
ROUNDS = 6

GOAL = Goal(median=2.0)

#: The service's defaults.
SILENCE_S, CONNECTIONS = 8.0, 16


def contests() -> Iterator[Contest]:
    """Compare a pass in which everything agrees, as in nearly every pass."""
    with child.running("bench.synthetic.daemon", str(GAMES)) as host, Pass.over(games.records(GAMES), host) as made:
        title = f"one pass over {GAMES:,} records and containers"
        yield made.contest(title, GAMES, lambda: int(made.sdk.info()["Lists"]))


@dataclass(frozen=True)
class Pass:
    """A pass, and its references."""

    drift_scan: DriftScan
    runtime: DockerRuntime
    sdk: APIClient

    @classmethod
    @contextmanager
    def over(cls, records: Iterable[RuntimeRecord], docker_host: str) -> Iterator["Pass"]:
        """Create the pass over these records in their own PostgreSQL database, and the containers of that Docker."""
        with ExitStack() as cleanup:
            database = cleanup.enter_context(stored(records))
            runtime = cleanup.enter_context(closing(DockerRuntime(docker_host)))
            sdk = cleanup.enter_context(closing(APIClient(base_url=docker_host, version="auto")))
            made = drift_scan(PostgresFindings(database, 1), runtime)
            yield cls(made, runtime, sdk)

    def contest(self, title: str, containers: int, lists: Callable[[], int] | None = None) -> Contest:
        """Compare the pass with the list call alone; `lists` returns the number of lists that Docker has served."""
        one_pass = self.drift_scan.step
        return Contest(
            title,
            Side("the reconciler", counted(one_pass, lists) if lists else lambda: on_both_clocks(one_pass)[0]),
            [
                Side("the list call by the SDK", _listing(lambda: self.sdk.containers(all=True), containers)),
                Side("the list call by our adapter", _listing(self.runtime.list_games, containers)),
            ],
            rounds=ROUNDS,
            goals={"wall": GOAL},
        )


def counted(one_pass: Callable[[], object], lists: Callable[[], int]) -> Callable[[], Sample]:
    """The `run` of the pass; raises BenchError unless it requests the list exactly once."""

    def run() -> Sample:
        before = lists()
        sample, _ = on_both_clocks(one_pass)
        requests = lists() - before
        if requests != 1:
            raise BenchError(f"one pass requested the list of Docker {requests} times")
        return sample

    return run


def drift_scan(findings: Findings, runtime: ContainerRuntime) -> DriftScan:
    """A scan whose queue rejects every game; it logs nothing about strays of a real Docker."""
    logger = logging.getLogger("bench")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return DriftScan(
        findings=findings,
        runtime=runtime,
        reconcile_queue=_Nobody(logger),
        strays=StrayRegistry(logger),
        sightings=RunSightings(),
        placement=games.HOUSE,
        clock=lambda: datetime.now(UTC),
        logger=logger,
    )


@contextmanager
def stored(records: Iterable[RuntimeRecord]) -> Iterator[Database]:
    """A database of the service with these records."""
    server, _ = services.servers()
    made = server.create_database(RUNTIME_MANAGER)
    with closing(Database(made.dsn, max_connections=CONNECTIONS, silence_s=SILENCE_S)) as database:
        migrate(database, logging.getLogger("bench"))
        with made.connect() as connection:
            games.fill(connection, records)
        database.open()
        yield database
    made.drop()


class _Nobody(ReconcileQueue):
    """Raises BenchError for a queued game: a game that differs would change the measured work."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(lambda *_: True, logger=logger)

    def add(self, game_id: str, hint: ReconcileHint | None = None, *, delay_s: float = 0.0) -> None:
        raise BenchError(f"game {game_id} differs from its record")


def _listing(fetch: Callable[[], Sized], containers: int) -> Callable[[], Sample]:
    """The `run` of a list call; it drops the list within the measured time, as the pass does."""

    def run() -> Sample:
        sample, found = on_both_clocks(lambda: len(fetch()))
        if found < containers:
            raise BenchError(f"{found} containers are in the list, but there are {containers}")
        return sample

    return run
