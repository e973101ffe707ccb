"""`TestCase` base classes for any project: containers, networks and a directory; PostgreSQL and Redis.

    def setUpModule() -> None:
        start_services()

    class Turns(ServicesTestCase):
        def test_a_turn_is_kept(self) -> None:
            with self.database.connect() as connection:
                ...

Whatever a test makes through these classes is removed at its end, passed or failed. A failed test writes its artefacts
to its directory and prints the path. With RTM_IT_KEEP=1 every test does, and nothing is removed.
"""

import os
import re
import sys
import unittest
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Unpack

from harness import daemon
from harness.cases.artefacts import Artefacts
from harness.cases.watching import WatchedResult, watch_run
from harness.fixtures import container, network, postgres, reachable, services, stateroot, volume
from harness.fixtures.container import Container, Settings
from harness.fixtures.network import Network
from harness.fixtures.postgres import Database, Layout
from harness.fixtures.reachable import Reachable
from harness.fixtures.services import Services
from harness.fixtures.stateroot import StateRoot
from harness.fixtures.volume import Volume
from harness.runs import cleanup, flag, identity
from harness.runs.identity import PREFIX
from harness.runs.sweep import sweep
from harness.waiting import TIMEOUT_S, Watched, wait_until

T = TypeVar("T")

#: Bytes of a folder's name that identify the test, and the share of module and class.
_LONGEST_FOLDER, _LONGEST_OWNER = 150, 100


def start_services() -> None:
    """For `setUpModule`: skip the module, or start PostgreSQL and Redis, which all tests of the process share.

    Meanwhile it removes what killed runs left. `harness.runs.flag` decides on the skip.
    """
    check_flag()
    with ThreadPoolExecutor(1) as threads:
        sweeping = threads.submit(_sweep_once)
        services.servers()
        sweeping.result()


@cache
def _sweep_once() -> None:
    """Remove what ended runs left, at the first call of the process."""
    sweep()


def check_flag() -> None:
    """For `setUpModule`: skip the module where tests with real services do not run; see `harness.runs.flag`.

    From then on, failures outside of tests (`setUpClass` for example) write artefacts, too.
    """
    flag.check()
    watch_run(leave_of_run)


class DockerTestCase(unittest.TestCase):
    """A test with containers and networks of its own, and a directory for its files.

    A failure in `setUp`, the test, a subtest, `tearDown` or a clean-up writes artefacts, and so does an unexpected
    success. The artefacts of a failed subtest show the state at the end of the test. A failure in `setUpClass` or
    `setUpModule` writes the logs of all containers of the run, the tables and Redis. A `SystemExit` there ends unittest
    itself and writes none.

    A child process that a test forks ends where it leaves the test, with the exit code of its `sys.exit`, or 1 after an
    error. It runs neither `tearDown` nor the clean-ups, and removes only what it made itself.
    """

    state_root: StateRoot

    #: The attributes that `setUp` sets. Access to a missing one raises an error that names the cause.
    _made_in_set_up: ClassVar[frozenset[str]] = frozenset({"docker", "state_root", "_containers", "_networks"})
    _is_set_up_called = False
    _failed = False
    _is_cleaning_up = False
    _process: int | None = None
    _artefacts: Artefacts | None = None
    _artefacts_reported = False

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        check_flag()
        _sweep_once()

    def setUp(self) -> None:
        self._is_set_up_called = True
        super().setUp()
        self.docker = daemon.client()
        self._containers: list[Container] = []
        self._networks: list[Network] = []
        self.state_root = stateroot.create(folder_name(self.id()))

    if not TYPE_CHECKING:  # a type checker would accept every attribute

        def __getattr__(self, name: str) -> Any:
            """Name the cause when a class overrides `setUp` and does not call the one of this class."""
            overrides = [each.__name__ for each in type(self).__mro__ if "setUp" in vars(each) and not _is_ours(each)]
            if not overrides or name not in self._made_in_set_up or self._is_set_up_called:
                return super().__getattribute__(name)  # raises the usual error, or that of a property
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}:"
                f" setUp of {' or '.join(overrides)} does not call super().setUp() first",
                name=name,
                obj=self,
            )

    def start_container(self, image: str, **settings: Unpack[Settings]) -> Container:
        """Start a container as `container.start` does; removed at the end of the test."""
        containers = self._containers
        started = container.start(image, **settings)
        self.at_end(started.remove)
        containers.append(started)
        return started

    def create_network(self) -> Network:
        """Create a network for this test; removed at its end, with the containers on it."""
        networks = self._networks
        made = network.create()
        self.at_end(made.remove)
        networks.append(made)
        return made

    def create_volume(self) -> Volume:
        """Create a volume for this test; removed at its end, after the containers that start later."""
        made = volume.create()
        self.at_end(made.close)
        return made

    def wait_until(
        self,
        what: str,
        probe: Callable[[], T | None],
        timeout_s: float = TIMEOUT_S,
        *,
        watch: Sequence[Watched] = (),
        **how: Any,
    ) -> T:
        """Wait as `waiting.wait_until` does; the wait also ends as soon as a container of the test fails.

        The error shows the last log lines of the test's containers. A container that has already ended, or that ends
        with exit code 0, does not end the wait.
        """
        others = [each for each in self._containers if each not in watch]
        running = [_Failing(each) for each in others if each.why_ended() is None]
        seen: T = wait_until(what, probe, timeout_s=timeout_s, watch=[*watch, *running], **how)
        return seen

    def at_end(self, action: Callable[[], object]) -> None:
        """Register `action` as `addCleanup` does, unless RTM_IT_KEEP=1 keeps what it would remove."""
        if not identity.keeps():
            self.addCleanup(action)

    def failed(self) -> bool:
        """Whether this test has failed so far."""
        return self._failed

    def leave(self, artefacts: Artefacts) -> None:
        """Write the artefacts of this test; a subclass may add more."""
        # Includes the containers of its class and its module.
        of_run = {"label": f"{PREFIX}run={identity.current().run}"}
        ids = {each["Id"] for each in self.docker.containers(all=True, filters=of_run)}
        for made in self._networks:
            ids.update(made.containers())
        artefacts.containers(self.docker, sorted(ids))

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        cleanup.end_if_signalled()
        if result is None:
            result = self.defaultTestResult()
            result.startTestRun()
            try:
                return self.run(result)
            finally:
                result.stopTestRun()
        self._process = os.getpid()
        self._failed = self._artefacts_reported = self._is_set_up_called = False
        self._artefacts = None
        self.__dict__.pop("state_root", None)  # of an earlier run of the same test
        # `Any`: it has every method that unittest uses, without being a subclass.
        watched: Any = WatchedResult(result, self._on_trouble, self._where)
        try:
            super().run(watched)
        except KeyboardInterrupt as error:
            self._end_child(error)
            self.doCleanups()  # unittest itself would leave them
            raise
        finally:
            self._end_state_root()
        return result

    def debug(self) -> None:
        self._process = os.getpid()
        try:
            super().debug()
        except unittest.SkipTest:
            self.doCleanups()
            raise
        except BaseException as error:
            self._end_child(error)
            self._failed = True
            self.doCleanups()  # unittest itself would leave them
            raise
        finally:
            self._end_state_root()

    def _callTestMethod(self, method: Callable[[], object]) -> None:
        super()._callTestMethod(method)  # type: ignore[misc]  # typeshed lacks it
        self._end_child()  # before `tearDown`

    def doCleanups(self) -> None:
        self._end_child()
        if self.failed() or identity.keeps():
            self._report_artefacts()
        elif self._expects_failure():
            self._leave_artefacts()  # whether the expected failure occurred is known only after the clean-ups
        self._is_cleaning_up = True
        try:
            super().doCleanups()
        finally:
            self._is_cleaning_up = False

    def _end_child(self, error: BaseException | None = None) -> None:
        """End a forked child when it leaves the test: the resources belong to its parent."""
        if self._process not in (None, os.getpid()):
            cleanup.end_child(error)

    def _on_trouble(self) -> None:
        self._failed = True
        if self._is_cleaning_up or self._artefacts is not None:
            self._report_artefacts()

    def _where(self) -> str:
        return f"see {self.state_root.directory}" if hasattr(self, "state_root") else "it has no artefacts yet"

    def _expects_failure(self) -> bool:
        """Whether the test is marked with `unittest.expectedFailure`: then a success is a failure."""
        mark = "__unittest_expecting_failure__"
        return bool(getattr(self, mark, False) or getattr(getattr(self, self._testMethodName), mark, False))

    def _report_artefacts(self) -> None:
        """Write artefacts and print their path, once."""
        self._leave_artefacts()
        if self._artefacts is not None and not self._artefacts_reported:
            self._artefacts_reported = True
            sys.stderr.write(_see(self.id(), self._artefacts))

    def _leave_artefacts(self) -> None:
        if self._artefacts is not None:
            return
        if not hasattr(self, "state_root"):
            if not self.failed():
                return  # skipped
            self.state_root = stateroot.create(folder_name(self.id()))
        directory = self.state_root.directory
        if not os.access(directory, os.W_OK | os.X_OK):  # a container has changed its owner
            beside = stateroot.create(folder_name(self.id()))
            directory = beside.keep(self.id())
        artefacts = self._artefacts = Artefacts(directory)
        artefacts.attempt("artefacts", lambda: self.leave(artefacts))

    def _end_state_root(self) -> None:
        """Remove or keep the directory. Runs after every clean-up: a failure of one keeps the directory."""
        if not hasattr(self, "state_root"):
            return
        if self.failed():
            self.state_root.keep(self.id())
        self.state_root.leave()


class ServicesTestCase(DockerTestCase):
    """A test that finds PostgreSQL and Redis empty. `layout` defines the database.

    Empty means: as the template was made, so that a test may create its tables each time it runs. The reset drops what
    a test created, roles too, and restores the settings of roles and of Redis. Dropping does not restore changed
    objects and rows of the template, the schema `public`, large objects, publications and settings of the database. In
    these cases the harness copies the database again, which ends its sessions. It ends a session that still locks a
    table after 5 s and names it on stderr. It does not reset ALTER SYSTEM, other changes of existing roles, other
    databases and PostgreSQL's own objects; of Redis, only CLIENT PAUSE … ALL outlives the test.

    `keep_tables` names tables that the reset does not touch. `empty_tables` names tables that it keeps and empties,
    with sequences at their start. Names are `"games"`, `"shop.games"`, or `("*",)` for every table. The types,
    functions and defaults that such a table needs stay, too. With one of the two the database is never copied again.

    `redis` decodes replies to `str`.
    """

    layout: ClassVar[Layout] = postgres.PLAIN
    keep_tables: ClassVar[Collection[str]] = ()
    empty_tables: ClassVar[Collection[str]] = ()

    services: Services
    database: Database

    _made_in_set_up = DockerTestCase._made_in_set_up | {"services", "database", "redis", "_reachable"}

    def setUp(self) -> None:
        super().setUp()
        self.services = services.shared(self.layout)
        self.services.reset(self.keep_tables, self.empty_tables)
        self.database = self.services.database
        # `Any`: redis-py annotates replies as unions of everything, differently in each release.
        self.redis: Any = self.services.redis.client()
        self.addCleanup(self.redis.close)
        self._reachable: dict[str, Reachable] = {}

    def start_container(self, image: str, **settings: Unpack[Settings]) -> Container:
        """Start a container as `container.start` does; removed at the end of the test.

        On a network of this test it reaches PostgreSQL at `postgres.test:5432` and Redis at `redis.test:6379`.
        """
        chosen = {**(settings.get("host_config") or {}), **settings}
        name = chosen.get("network") or chosen.get("network_mode")
        mine = next((each for each in self._networks if each.name == name), None)
        if mine is not None:
            names, given = self.reachable_on(mine).extra_hosts, chosen.get("extra_hosts") or {}
            if isinstance(given, Mapping):
                settings["extra_hosts"] = {**names, **given}
            else:
                settings["extra_hosts"] = [*given, *(f"{name}:{address}" for name, address in names.items())]
            host = {each: value for each, value in (settings.get("host_config") or {}).items() if each != "extra_hosts"}
            settings["host_config"] = host
        return super().start_container(image, **settings)

    def reachable_on(self, network: Network) -> Reachable:
        """The names and the DSN by which a container on `network` reaches the services."""
        if network.name not in self._reachable:
            until = ExitStack()
            self.at_end(until.close)
            self._reachable[network.name] = reachable.on(network, self.services, until)
        return self._reachable[network.name]

    def fresh_database(self) -> Database:
        """Create one more database that no test has used; dropped at the end of the test."""
        made = self.services.postgres.create_database(self.layout)
        self.at_end(made.drop)
        return made

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Run a query on the test's database; the rows as dictionaries."""
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
        artefacts.redis(self.services.redis)


def _is_ours(each: type) -> bool:
    """Whether a class is a base class of this module, or one of unittest's."""
    return each.__module__ == __name__ or each.__module__.partition(".")[0] == "unittest"


@dataclass(frozen=True)
class _Failing:
    """A container that ends a wait only when it fails: exit code 0 may mean that its work is done."""

    container: Container

    def why_ended(self) -> str | None:
        from docker.errors import NotFound

        ended = self.container.why_ended()
        try:
            return None if ended is None or self.container.exit_code() == 0 else ended
        except NotFound:
            return ended

    def last_log_lines(self) -> str:
        return self.container.last_log_lines()


def leave_of_run(name: str) -> str:
    """Write artefacts for a failure outside of a test, and keep them; return a text with their path."""
    root = stateroot.create(folder_name(name))
    artefacts = Artefacts(root.directory)

    def containers() -> None:
        client = daemon.client()
        mine = {"label": f"{PREFIX}run={identity.current().run}"}
        artefacts.containers(client, [each["Id"] for each in client.containers(all=True, filters=mine)])

    artefacts.attempt("containers", containers)
    for database in services.databases():
        artefacts.tables(database)
    for store in services.stores():
        artefacts.redis(store)
    root.keep(name)
    return _see(name, artefacts)


def _see(name: str, artefacts: Artefacts) -> str:
    below = "".join(f"\n  {each}" for each in [*artefacts.files(), *artefacts.unnoted])
    return f"\n{name}: see {artefacts.directory}{below}\n"


def folder_name(test_id: str) -> str:
    """A folder name for a test: module, class and method.

    A method's name that is too long loses its end. Bytes count: a file's name may have 255.
    """
    coding = sys.getfilesystemencoding()
    name = re.sub(r"[^\w.]+", "-", test_id.encode(coding, "replace").decode(coding)).lstrip("-.")
    owner, dot, method = (each.encode(coding) for each in name.rpartition("."))
    owner = owner[-_LONGEST_OWNER:]
    cut = owner + dot + method[: _LONGEST_FOLDER - len(owner)]
    return cut.decode(coding, "ignore").strip("-.")


def short_name(test_id: str) -> str:
    """The name of a test as a part of another name: at most 34 characters."""
    return re.sub(r"[^A-Za-z0-9]+", "-", test_id.rpartition(".")[2].removeprefix("test_"))[:34].strip("-")
