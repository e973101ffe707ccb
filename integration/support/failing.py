"""A manager on the test's own Redis or PostgreSQL, which the test may break.

A fault proxy, `self.way`, stands between them, so that the manager's address can fail, recover and lead to another
server. The manager soon times out on a slow server, since `SILENCE_TIMEOUT` is small. Tests that need no engine add
stop jobs for unknown games: each is an ordinary job, and is answered at once.
"""

from dataclasses import replace
from typing import Any, TypeVar

from harness import Database, Postgres, Redis, faults, start_postgres, start_redis, web
from harness.fixtures.closing import Closing
from harness.rtm import RUNTIME_MANAGER, RuntimeTestCase
from integration.support.proxied import SILENCE, keep_pool_quiet
from integration.support.servers import PROGRAMS

T = TypeVar("T", bound=Closing)


class FailingTestCase(RuntimeTestCase):
    """The common part of both kinds."""

    def setUp(self) -> None:
        super().setUp()
        keep_pool_quiet(self)

    def own(self, made: T) -> T:
        """Close a fixture at the end of the test, and return it."""
        self.addCleanup(made.close)
        return made

    def environment(self, **changes: str) -> dict[str, str]:
        return super().environment(**{"SILENCE_TIMEOUT": SILENCE, "RECONCILE_INTERVAL": "1s", **changes})

    # --- requests

    def submit(self, name: str = "nobody", *, at: str = "") -> str:
        """Add a job that needs no engine, with the entry id `at` if given; return its game id, which is unique."""
        game_id = f"{name}-{self.game_id[-10:]}"
        if at:
            job = {"game_id": game_id, "reason": "finished", "requested_at_ms": "1"}
            self.redis.xadd("runtime:stop_jobs", job, id=at)
        else:
            self.add_job("stop", game_id=game_id, reason="finished")
        return game_id

    def answers(self, *games: str) -> list[int]:
        """The number of results of each of these games."""
        answered = [entry["game_id"] for entry in self.entries("runtime:job_results")]
        return [answered.count(game_id) for game_id in games]

    def wait_for_answers(self, *games: str) -> None:
        """Wait until each game has a result, and assert that none has two."""
        self.wait_until("an answer for each job", lambda: all(self.answers(*games)))
        self.assertEqual(self.answers(*games), [1] * len(games))

    def assert_serves(self) -> None:
        """A new job gets exactly one answer, and the manager reports readiness."""
        self.wait_for_answers(self.submit(f"after-{self.unique()}"))
        self.wait_until_ready()

    def unique(self) -> int:
        """A number that was not returned before."""
        self._numbers = getattr(self, "_numbers", 0) + 1
        return self._numbers

    # --- observations

    def readyz(self) -> str:
        """The answer of /readyz: `ready`, or the error message."""
        status, answer = web.call("GET", f"{self.base_url}/readyz")
        return str(answer["status"] if status == 200 else answer["error"]["message"])

    def wait_until_logged(self, *texts: str, since: int = 0) -> None:
        """Wait until one line of the manager's log contains all of these."""
        self.wait_until(f"{texts} in one line of the log", lambda: self.lines_logged(*texts, since=since))

    def wait_until_readyz_reports(self, *texts: str) -> None:
        """Wait until the message contains all of these: for a moment it may name another reason."""

        def is_reported() -> bool:
            message = self.readyz()
            return all(text in message for text in texts)

        self.wait_until(f"readiness to report {texts}", is_reported, describe=lambda _: self.readyz())

    def lines_logged(self, *texts: str, since: int = 0) -> list[str]:
        """The lines of the manager's log that contain all of these, after its first `since` bytes."""
        lines = self.log.read_text()[since:].splitlines()
        return [line for line in lines if all(text in line for text in texts)]

    def start_game(self) -> str:
        """Start the test's game by a REST request; return its container's id."""
        return str(self.post("start", {"image_ref": self.engine.ref})["current_container_id"])

    def assert_runs(self, container_id: str) -> None:
        """The game runs in this container and in no other, and its record agrees."""
        self.assertEqual([each["Id"] for each in self.containers()], [container_id])
        self.assertTrue(self.containers()[0]["State"]["Running"])
        record = self.record()
        self.assertEqual((record["status"], record["current_container_id"]), ("running", container_id))

    def operations(self, *games: str) -> list[dict[str, Any]]:
        """Every operation of these games, in the order of acceptance."""
        return self.rows("SELECT * FROM operations WHERE game_id = ANY (%s) ORDER BY id", list(games))


class FailingRedisTestCase(FailingTestCase):
    """`self.services.redis` is the test's own server, and so `self.redis` and `self.entries` use it."""

    def setUp(self) -> None:
        super().setUp()
        self.use(self.own(start_redis()))
        redis = self.services.redis
        self.way = self.own(faults.before((redis.host, redis.port)))

    def use(self, server: Redis) -> None:
        """Use this server for the test's own queries."""
        self.services = replace(self.services, redis=server)
        self.redis = server.client()
        self.addCleanup(self.redis.close)

    def environment(self, **changes: str) -> dict[str, str]:
        return super().environment(**{"REDIS_MASTER_ADDR": f"{self.way.host}:{self.way.port}", **changes})


class FailingPostgresTestCase(FailingTestCase):
    """`self.services.postgres` and its database are the test's own, and so `self.rows` uses them."""

    def setUp(self) -> None:
        super().setUp()
        server = self.own(self.start_server())
        self.use(server, server.create_database(RUNTIME_MANAGER))
        self.way = self.own(faults.before((server.host, server.port)))

    def start_server(self) -> Postgres:
        """Start the server under test."""
        return start_postgres()

    def use(self, server: Postgres, database: Database) -> None:
        """Use this database for the test's own queries."""
        self.services = replace(self.services, postgres=server, database=database)
        self.database = database

    def answers_again(self) -> bool:
        """Whether the server answers queries."""
        import psycopg

        try:
            return bool(self.rows("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def environment(self, **changes: str) -> dict[str, str]:
        dsn = self.database.dsn_by_way_of(self.way.host, self.way.port)
        return super().environment(**{"POSTGRES_PRIMARY_DSN": dsn, **changes})

    def wait_until_all_is_published(self) -> None:
        """Wait until the outbox is empty: a message is in Redis a moment before its row is deleted."""
        self.wait_until("the outbox to be empty", lambda: not self.rows("SELECT FROM outbox"))

    def administer(self, *statements: str) -> None:
        """Run each statement as the superuser in the test's database, in its own transaction."""
        with self.database.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def set_for_all(self, **settings: str) -> None:
        """Change settings of the server, also for existing sessions."""
        changes = [f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()]
        self.administer(*changes, "SELECT pg_reload_conf()")

    def end_sessions(self) -> None:
        """Terminate every session of the manager."""
        self.administer("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rtmanager'")

    def program(self, name: str, *arguments: str) -> str:
        """Run one of PostgreSQL's own programs in the server's container, on the test's database; return its output."""
        server = self.services.postgres
        where = f"-h {server.host} -p {server.port} -U postgres"
        code, output = server.container.exec(["sh", "-c", f"{PROGRAMS}/{name} {where} {' '.join(arguments)}"])
        self.assertEqual(code, 0, output)
        return str(output)
