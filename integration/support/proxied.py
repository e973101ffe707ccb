"""A manager with a fault proxy in front of its PostgreSQL, Redis and Docker, so that a test can disconnect them.

The servers keep running for the test and for others. The manager soon times out on a server that does not answer, since
`SILENCE_TIMEOUT` is small.
"""

import logging

from harness import daemon
from harness.rtm import RuntimeTestCase
from harness.rtm.lines import Lines

#: Above the configuration's minimum, which is too short for a connection on a busy machine.
SILENCE = "3s"


class ProxiedTestCase(RuntimeTestCase):
    """`self.postgres_proxy`, `self.redis_proxy` and `self.docker_proxy` apply to every manager of the test."""

    def setUp(self) -> None:
        super().setUp()
        self.lines = Lines(self.services.database, self.services.redis, daemon.host())
        self.addCleanup(self.lines.close)
        self.postgres_proxy, self.redis_proxy = self.lines["postgres"], self.lines["redis"]
        self.docker_proxy = self.lines["docker"]
        keep_pool_quiet(self)

    def wait_until_let_go(self, since: int) -> None:
        """Wait until a thawed manager has given up its operation, by the log after `since` characters.

        Either it detects that it lost the claim, or the answer comes too late: it was frozen for longer than its
        timeout.
        """

        def is_done() -> bool:
            lines = self.log.read_text()[since:]
            return "it ends here" in lines or "operation waits for a dependency" in lines

        self.wait_until("the frozen one to be done", is_done)

    def environment(self, **changes: str) -> dict[str, str]:
        behind = {name.removeprefix("RTMANAGER_"): value for name, value in self.lines.environment.items()}
        return super().environment(**{**behind, "SILENCE_TIMEOUT": SILENCE, **changes})


def keep_pool_quiet(test: RuntimeTestCase) -> None:
    """Send the log records of psycopg about lost connections to the manager's log, not to the terminal."""
    library, handler = logging.getLogger("psycopg"), logging.FileHandler(test.log)
    library.addHandler(handler)
    test.addCleanup(handler.close)
    test.addCleanup(library.removeHandler, handler)
