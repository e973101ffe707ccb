"""`TestCase` base classes for any project: containers, networks and a directory; PostgreSQL and Redis.

    def setUpModule() -> None:
        start_services()

    class Turns(ServicesTestCase):
        def test_a_turn_is_kept(self) -> None:
            with self.database.connect() as connection:
                ...

What a test makes through these classes is taken away at its end, whatever the end is. A failed test leaves its
artefacts in its directory and says where that is; with RTM_IT_KEEP=1 every test does, and nothing is taken away.
"""

import re
import sys
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, ClassVar

from harness import daemon
from harness.cases.artefacts import Artefacts
from harness.fixtures import container, network, postgres, services, stateroot
from harness.fixtures.container import Container
from harness.fixtures.network import Network
from harness.fixtures.postgres import Database, Layout
from harness.fixtures.services import Services
from harness.runs import ending, flag, runner
from harness.runs.sweep import sweep


def start_services() -> None:
    """For `setUpModule`: skips the module, or starts PostgreSQL and Redis, which all tests of the process share.

    What killed runs left is swept meanwhile. See `harness.runs.flag` for the skip.
    """
    flag.check()
    with ThreadPoolExecutor(1) as threads:
        sweeping = threads.submit(_sweep_once)
        services.servers()
        sweeping.result()


@cache
def _sweep_once() -> None:
    sweep()


class DockerTestCase(unittest.TestCase):
    """A test with containers and networks of its own, and a directory for what it writes."""

    _result: unittest.TestResult | None = None
    _troubles_before = 0

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        flag.check()

    def setUp(self) -> None:
        super().setUp()
        self.docker = daemon.client()
        self._containers: list[Container] = []
        self._networks: list[Network] = []
        self.state_root = stateroot.create(short_name(self.id()))
        self.at_end(self._end_state_root)

    def start_container(self, image: str, **how: Any) -> Container:
        """As `container.start`; taken away at the end of the test."""
        started = container.start(image, **how)
        self._containers.append(started)
        self.at_end(started.remove)
        return started

    def create_network(self) -> Network:
        """A network of the test's own; taken away at its end, with the containers on it."""
        made = network.create()
        self._networks.append(made)
        self.at_end(made.remove)
        return made

    def at_end(self, action: Callable[[], object]) -> None:
        """As `addCleanup`, for what RTM_IT_KEEP=1 keeps."""
        if not runner.keeps():
            self.addCleanup(action)

    def failed(self) -> bool:
        """Whether this test has failed so far."""
        return _troubles(self._result) > self._troubles_before

    def leave(self, artefacts: Artefacts) -> None:
        """Write what tells how the test ended; a class that has more to tell adds it."""
        ids = {each.container_id for each in self._containers}
        for made in self._networks:
            ids.update(made.containers())
        artefacts.containers(self.docker, sorted(ids))

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        self._result, self._troubles_before = result, _troubles(result)
        ending.end_if_told()
        try:
            return super().run(result)
        except KeyboardInterrupt:
            self.doCleanups()  # unittest itself would leave them
            raise

    def doCleanups(self) -> None:
        if self.failed() or runner.keeps():
            self._leave_artefacts()
        super().doCleanups()

    def _leave_artefacts(self) -> None:
        if not hasattr(self, "state_root"):
            return  # skipped, or failed before there was anything
        artefacts = Artefacts(self.state_root.directory)
        artefacts.attempt("artefacts", lambda: self.leave(artefacts))
        files = "".join(f"\n  {name}" for name in artefacts.files())
        sys.stderr.write(f"\n{self.id()}: see {self.state_root.directory}{files}\n")

    def _end_state_root(self) -> None:
        if self.failed():
            self.state_root.keep()
        else:
            self.state_root.remove()


class ServicesTestCase(DockerTestCase):
    """A test that finds PostgreSQL and Redis empty. `layout` says what the database is like."""

    layout: ClassVar[Layout] = postgres.PLAIN

    services: Services
    database: Database

    def setUp(self) -> None:
        super().setUp()
        self.services = services.shared(self.layout)
        self.services.empty()
        self.database = self.services.database
        # `Any`: redis-py annotates replies as unions of everything, differently in each release.
        self.redis: Any = self.services.redis.client()
        self.addCleanup(self.redis.close)

    def fresh_database(self) -> Database:
        """One more database, which no test has used; dropped at the end of the test."""
        made = self.services.postgres.create_database(self.layout)
        self.at_end(made.drop)
        return made

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """The rows of a query on the test's database, as dictionaries."""
        from psycopg.rows import dict_row

        with self.database.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), values).fetchall()

    def entries(self, stream: str) -> list[dict[str, str]]:
        """The entries of a stream, oldest first, without their ids."""
        return [fields for _, fields in self.redis.xrange(stream)]

    def leave(self, artefacts: Artefacts) -> None:
        super().leave(artefacts)
        servers = (self.services.postgres.container, self.services.redis.container)
        artefacts.containers(self.docker, [each.container_id for each in servers])
        artefacts.tables(self.database)
        artefacts.streams(self.services.redis)


def _troubles(result: unittest.TestResult | None) -> int:
    return 0 if result is None else len(result.failures) + len(result.errors)


def short_name(test_id: str) -> str:
    """The name of a test as a part of a name of something else."""
    return re.sub(r"[^A-Za-z0-9]+", "-", test_id.rpartition(".")[2].removeprefix("test_"))[:34].strip("-")
