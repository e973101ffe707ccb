"""A manager whose PostgreSQL, Redis and Docker each stand behind a gate, so that a test can take them away.

The servers themselves go on, for the test and for everybody else. A server behind a shut gate is given up quickly,
since `SILENCE_TIMEOUT` is small.
"""

import logging

from harness.rtm import RuntimeTestCase
from integration.support import gate
from integration.support.gate import LOOPBACK, Gate

#: Above the least that the configuration takes: on a busy machine a connection is not made in that.
SILENCE = "3s"


class GatedTestCase(RuntimeTestCase):
    """`self.postgres_gate`, `self.redis_gate` and `self.docker_gate` stand before every manager of the test."""

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
        """Wait until a manager that was frozen is done with its operation, by the log after `since` characters.

        It notices that it has it no more; or it slept for longer than it waits for an answer, which comes too late.
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
    """Let the library's own words about lost connections stand in the manager's log, and not on the terminal."""
    library, handler = logging.getLogger("psycopg"), logging.FileHandler(test.log)
    library.addHandler(handler)
    test.addCleanup(handler.close)
    test.addCleanup(library.removeHandler, handler)
