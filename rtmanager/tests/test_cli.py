"""The command line: what `check` prints for each dependency, and what a signal makes of a command."""

from __future__ import annotations

import io
import logging
import tempfile
import unittest
from contextlib import redirect_stdout

from rtmanager import cli
from rtmanager.config import Config
from rtmanager.tests.fake_daemon import FakeDaemon

#: Nothing listens at port 1.
ENVIRONMENT = {
    "RTMANAGER_POSTGRES_PRIMARY_DSN": "postgresql://nobody@127.0.0.1:1/x",
    "RTMANAGER_REDIS_MASTER_ADDR": "127.0.0.1:1",
    "RTMANAGER_GAME_STATE_ROOT": tempfile.gettempdir(),
    "RTMANAGER_LOBBY_INTERNAL_BASE_URL": "http://lobby",
}
AWAY = "check that Docker runs there, and that RTMANAGER_DOCKER_HOST is right"


class CheckOfDockerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)

    def lines(self, host: str = "") -> dict[str, str]:
        """What `check` prints of Docker, by the name of the line, a remedy included."""
        said = io.StringIO()
        config = Config.from_environment({**ENVIRONMENT, "RTMANAGER_DOCKER_HOST": host or self.daemon.host})
        with redirect_stdout(said):
            self.assertEqual(cli.check(config, logging.getLogger("test")), cli.FAILED)
        text = said.getvalue().replace("\n" + " " * 20, " ")
        lines = dict(line.split(None, 2)[1:] for line in text.splitlines())
        return {name: lines[name] for name in ("docker", "network")}

    def test_a_message_with_a_remedy_has_no_other(self) -> None:
        lines = self.lines()
        self.assertRegex(lines["docker"], f"does not answer: No such file or directory; {AWAY}$")

    def test_the_network_is_unknown_while_docker_is_away(self) -> None:
        lines = self.lines()
        self.assertRegex(lines["network"], f"^whether the Docker network 'galaxy-net' exists is unknown: .*{AWAY}$")
        self.assertNotIn("create", lines["network"])

    def test_a_network_that_is_missing_has_its_remedy(self) -> None:
        self.daemon.start()
        self.daemon.answers["GET /networks"] = lambda exchange: exchange.reply(200, [])
        lines = self.lines()
        self.assertEqual(lines["docker"], "Docker 0 (API 1.41)")
        self.assertRegex(lines["network"], "does not exist.* remedy: docker network create galaxy-net$")

    def test_an_answer_without_a_remedy_gets_one_of_docker(self) -> None:
        self.daemon.start()
        self.daemon.answers["GET /version"] = lambda exchange: exchange.refuse(500, "no space left on device")
        for line in self.lines().values():
            self.assertRegex(
                line, "answered 500 to `GET /version`: no space.* remedy: read the log of the Docker daemon"
            )


if __name__ == "__main__":
    unittest.main()
