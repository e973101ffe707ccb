"""The lines between a manager and its servers, with a fault proxy in each."""

from contextlib import ExitStack

from harness import daemon
from harness.fixtures import faults
from harness.fixtures.closing import Closing
from harness.fixtures.faults import Proxy
from harness.fixtures.postgres import Database
from harness.fixtures.redis import Redis


class Lines(Closing):
    """Fault proxies, from construction until `close`: `lines["postgres"]`, `lines["redis"]` and `lines["docker"]`.

    A manager with the settings `environment` uses them.
    """

    def __init__(self, database: Database, redis: Redis, docker_host: str) -> None:
        with ExitStack() as stack:
            postgres = stack.enter_context(faults.before((database.server.host, database.server.port)))
            store = stack.enter_context(faults.before((redis.host, redis.port)))
            docker = stack.enter_context(faults.before(daemon.socket_address(docker_host)))
            self._stack = stack.pop_all()
        self._proxies: dict[str, Proxy] = {"postgres": postgres, "redis": store, "docker": docker}
        self.environment = {
            "RTMANAGER_POSTGRES_PRIMARY_DSN": database.dsn_by_way_of(*postgres.address),
            "RTMANAGER_REDIS_MASTER_ADDR": "{}:{}".format(*store.address),
            "RTMANAGER_DOCKER_HOST": docker.url,
        }

    def __getitem__(self, server: str) -> Proxy:
        return self._proxies[server]

    def pass_on(self) -> None:
        """End the fault of each."""
        for proxy in self._proxies.values():
            proxy.pass_on()

    def close(self) -> None:
        """Close the proxies."""
        self._stack.close()
