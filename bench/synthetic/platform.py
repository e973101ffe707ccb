"""The dependencies of a manager of many games: real PostgreSQL and Redis, simulated daemon and engines.

with platform.running(1000) as here, here.manager() as process:
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
from harness.rtm import RUNTIME_MANAGER, manager, stack
from harness.rtm.manager import ManagerProcess
from rtmanager.adapters.postgres.database import Database as Pool
from rtmanager.adapters.postgres.migrate import migrate

#: Longer than any measurement, so that no periodic work starts within one.
LONG = "1h"

#: Settings that put off a manager's periodic work.
NOTHING_PERIODIC = {f"RTMANAGER_{name}_INTERVAL": LONG for name in ("PROBE", "INSPECT", "RECONCILE", "CLEANUP")}

#: Timeout of the migrations in seconds: the service's default.
_SILENCE_S = 8.0


@dataclass(frozen=True)
class Platform:
    """The dependencies, and the `environment` that points a manager at them."""

    database: Database
    redis: Redis
    state_root: StateRoot
    docker_host: str
    engines: Engines
    environment: dict[str, str]

    @contextmanager
    def manager(self, settings: Mapping[str, str] | None = None) -> Iterator[ManagerProcess]:
        """Start a manager with `settings` besides the environment; kills it at the end."""
        address = {manager.ADDRESS_VARIABLE: manager.free_address()}
        environment = {**self.environment, **address, **(settings or {})}
        with manager.start(environment, self.state_root.logs / "manager.log") as process:
            yield process


@contextmanager
def running(count: int) -> Iterator[Platform]:
    """Start everything with so many games; removes it at the end."""
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
        lobby_url = "http://127.0.0.1:9"  # no job here notifies the Lobby
        environment = {
            **stack.environment(database, redis, docker_host, games.HOUSE.network, root, lobby_url),
            "RTMANAGER_PROBE_TARGET": "endpoint",
        }
        yield Platform(database, redis, root, docker_host, listening, environment)
