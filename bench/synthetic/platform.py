"""What a manager of many games needs: real PostgreSQL and Redis, and the played daemon and engines.

with platform.running(games=1000) as here, here.manager() as process:
    process.wait_until_ready()
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench import child
from bench.synthetic import engines, games
from bench.synthetic.engines import Engines
from harness.fixtures import services, stateroot
from harness.fixtures.postgres import Database
from harness.fixtures.redis import Redis
from harness.fixtures.stateroot import StateRoot
from harness.rtm import RUNTIME_MANAGER, manager
from harness.rtm.manager import ManagerProcess
from rtmanager.adapters.postgres.database import Database as Pool
from rtmanager.adapters.postgres.migrate import migrate

#: Long enough that what comes round does not come round while something is measured.
LONG = "1h"

#: What a manager does again and again by the clock, put off.
NOTHING_PERIODIC = {f"RTMANAGER_{name}_INTERVAL": LONG for name in ("PROBE", "INSPECT", "RECONCILE", "CLEANUP")}

#: What migrations may take: as the service's own defaults.
_SILENCE_S = 8.0


@dataclass(frozen=True)
class Platform:
    """What there is, and `environment`, which points a manager at it."""

    database: Database
    redis: Redis
    state_root: StateRoot
    docker_host: str
    engines: Engines
    environment: dict[str, str]

    @contextmanager
    def manager(self, settings: Mapping[str, str] | None = None) -> Iterator[ManagerProcess]:
        """A manager's process, with `settings` beside what it needs; it is killed afterwards."""
        address = {manager.ADDRESS_VARIABLE: manager.free_address()}
        environment = {**self.environment, **address, **(settings or {})}
        with manager.start(environment, self.state_root.logs / "manager.log") as process:
            yield process


@contextmanager
def running(count: int) -> Iterator[Platform]:
    """Start it all with so many games; taken away at the end."""
    with ExitStack() as cleanup:
        server, redis = cleanup.enter_context(services.running())
        database = server.create_database(RUNTIME_MANAGER)
        migrate(Pool(database.dsn, max_connections=2, silence_s=_SILENCE_S), logging.getLogger("bench"))
        listening = cleanup.enter_context(engines.running())
        with database.connect() as connection:
            games.fill(connection, games.records(count, listening.healthy_port))
        docker_host = cleanup.enter_context(child.running("bench.synthetic.daemon", str(count)))
        root = stateroot.create("bench")
        cleanup.callback(root.remove)
        for game_id in games.ids(count):
            (root.folder("games") / game_id).mkdir()
        environment = {
            "RTMANAGER_POSTGRES_PRIMARY_DSN": database.dsn,
            "RTMANAGER_REDIS_MASTER_ADDR": redis.address,
            "RTMANAGER_DOCKER_HOST": docker_host,
            "RTMANAGER_DOCKER_NETWORK": games.HOUSE.network,
            "RTMANAGER_GAME_STATE_ROOT": str(root.folder("games")),
            "RTMANAGER_LOBBY_INTERNAL_BASE_URL": "http://127.0.0.1:9",  # nothing asks it
            "RTMANAGER_PROBE_TARGET": "endpoint",
        }
        yield Platform(database, redis, root, docker_host, listening, environment)
