"""A manager with a gate in front of its PostgreSQL, Redis and Docker, so that a test can disconnect them.

The servers keep running for the test and for others. The manager soon times out on a server behind a shut gate, since
`SILENCE_TIMEOUT` is small.
"""

import logging

from harness.rtm import RuntimeTestCase
from integration.support import gate
from integration.support.gate import LOOPBACK, Gate

#: Above the configuration's minimum, which is too short for a connection on a busy machine.
SILENCE = "3s"


class GatedTestCase(RuntimeTestCase):
    """`self.postgres_gate`, `self.redis_gate` and `self.docker_gate` apply to every manager of the test."""

    def setUp(self) -> None:
        super().setUp()
        postgres, redis = self.services.postgres, self.services.redis
        self.postgres_gate = self.closed_at_end(gate.before(postgres.host, postgres.port))
        self.redis_gate = self.closed_at_end(gate.before(redis.host, redis.port))
        self.docker_gate = gate.before_docker()
        self.addCleanup(self.docker_gate.close)
        keep_pool_quiet(self)

    def closed_at_end(self, made: Gate) -> Gate:
        self.addCleanup(made.close)
        return made

    def wait_until_let_go(self, since: int) -> None:
        """Wait until a thawed manager has given up its operation, by the log after `since` characters.

        Either it detects that it lost the claim, or the answer comes too late: it was frozen for longer than its
        timeout.
        """

        def is_done() -> bool:
            said = self.log.read_text()[since:]
            return "it ends here" in said or "operation waits for a dependency" in said

        self.wait_until("the frozen one to be done", is_done)

    def environment(self, **changes: str) -> dict[str, str]:
        behind = {
            "POSTGRES_PRIMARY_DSN": self.services.database.dsn_by_way_of(LOOPBACK, self.postgres_gate.port),
            "REDIS_MASTER_ADDR": f"{LOOPBACK}:{self.redis_gate.port}",
            "DOCKER_HOST": self.docker_gate.url,
            "SILENCE_TIMEOUT": SILENCE,
        }
        return super().environment(**{**behind, **changes})


def keep_pool_quiet(test: RuntimeTestCase) -> None:
    """Send the log records of psycopg about lost connections to the manager's log, not to the terminal."""
    library, handler = logging.getLogger("psycopg"), logging.FileHandler(test.log)
    library.addHandler(handler)
    test.addCleanup(handler.close)
    test.addCleanup(library.removeHandler, handler)
