"""Emptying keeps its connections, and no test can break them for the next one."""

import multiprocessing
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar
from unittest import mock

from harness.fixtures import connection_cache, listening, services
from harness.fixtures.postgres import EMPTYING, PLAIN, Database, Layout, Postgres
from harness.fixtures.redis import Redis
from harness.runs import flag
from harness.waiting import wait_until


def setUpModule() -> None:
    flag.check()


class EmptyingTest(unittest.TestCase):
    """On its own servers, since it restarts and pauses them."""

    postgres: ClassVar[Postgres]
    redis: ClassVar[Redis]

    @classmethod
    def setUpClass(cls) -> None:
        cls.postgres, cls.redis = cls.enterClassContext(services.running())

    def setUp(self) -> None:
        self.database = self.postgres.create_database(PLAIN)
        self.addCleanup(self.database.drop)
        with self.database.connect() as connection:
            connection.execute("CREATE TABLE games (id bigserial PRIMARY KEY, name text)")
        self.database.empty()
        self.redis.flush()

    def fill(self) -> None:
        with self.database.connect() as connection:
            connection.execute("INSERT INTO games (name) VALUES ('g')")

    def count(self, table: str = "games", database: Database | None = None) -> int:
        with (database or self.database).connect() as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        assert row is not None
        return int(row[0])

    def kept(self) -> list[int]:
        """The server processes of the cached connections to the database."""
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = %s"
        with self.postgres.maintain() as connection:
            return [pid for (pid,) in connection.execute(query, (self.database.name, EMPTYING))]

    def assert_empties(self) -> None:
        self.fill()
        self.database.empty()
        self.assertEqual(self.count(), 0)

    def test_the_connection_is_the_same_from_one_time_to_the_next(self) -> None:
        before = self.kept()
        self.assert_empties()

        self.assertEqual((len(before), self.kept()), (1, before))

    def test_tables_that_a_test_makes_and_drops_are_no_surprise(self) -> None:
        with self.database.connect() as connection:
            connection.execute("DROP TABLE games; CREATE TABLE turns (number int); INSERT INTO turns VALUES (1)")

        self.database.empty()

        self.assertEqual(self.count("turns"), 0)

    def test_a_test_that_ends_every_session_does_not_break_the_next(self) -> None:
        with self.postgres.maintain() as connection:
            for pid in self.kept():
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

        self.assert_empties()

    def test_a_restart_of_the_servers_does_not_break_the_next_test(self) -> None:
        import psycopg
        import redis

        if not listening.shares_our_network():
            self.skipTest("a published port is another one after a restart")
        with self.redis.client() as client:
            self.postgres.container.restart()
            self.redis.container.restart()
            wait_until("PostgreSQL", lambda: self.count() == 0, retry_on=(psycopg.OperationalError,))
            wait_until("Redis", client.ping, retry_on=(redis.RedisError,))
            client.set("left", "over")

            self.assert_empties()
            self.redis.flush()

            self.assertEqual(client.dbsize(), 0)

    def test_a_silent_postgres_fails_the_test_in_time_and_not_the_one_after(self) -> None:
        import psycopg

        self.postgres.container.pause()
        began = time.monotonic()
        try:
            with (
                mock.patch("harness.fixtures.connection_cache.SILENCE_S", 0.3),
                self.assertRaises(psycopg.OperationalError),
            ):
                self.database.empty()
        finally:
            self.postgres.container.unpause()
        self.assertLess(time.monotonic() - began, connection_cache.SILENCE_S)

        self.assert_empties()

    def test_a_silent_redis_fails_the_test_in_time_and_not_the_one_after(self) -> None:
        import redis

        impatient = Redis(self.redis.container, self.redis.host, self.redis.port)
        with mock.patch("harness.fixtures.redis.FLUSH_TIMEOUT_S", 1.0):
            impatient.flush()
        self.redis.container.pause()
        try:
            with self.assertRaises(redis.RedisError):
                impatient.flush()
        finally:
            self.redis.container.unpause()

        impatient.flush()

    def test_a_table_that_a_test_left_locked_is_named(self) -> None:
        import psycopg

        self.postgres.kept.forget(self.database.name)
        with psycopg.connect(self.postgres.dsn(self.database.name)) as left:
            left.execute("LOCK TABLE games")
            with (
                mock.patch("harness.fixtures.postgres.LOCK_TIMEOUT_MS", 100),
                self.assertRaises(psycopg.errors.LockNotAvailable),
            ):
                self.database.empty()

        self.assert_empties()

    def test_redis_is_as_it_was_started(self) -> None:
        client = self.enterContext(self.redis.client(timeout_s=5))
        client.execute_command(
            "FUNCTION", "LOAD", "#!lua name=mylib\nredis.register_function('f', function() return 1 end)"
        )
        client.config_set("maxmemory", "1mb")
        client.config_set("notify-keyspace-events", "KEA")
        client.execute_command("ACL", "SETUSER", "bob", "on")
        client.execute_command("ACL", "SETUSER", "default", "-get")
        client.client_pause(60_000, all=False)
        client.replicaof("127.0.0.1", "1")

        self.redis.flush()

        client.set("a", "b")
        self.assertEqual(client.get("a"), "b")
        self.assertEqual(client.execute_command("FUNCTION", "LIST"), [])
        self.assertEqual(client.config_get("maxmemory"), {"maxmemory": "0"})
        self.assertEqual(client.config_get("notify-keyspace-events"), {"notify-keyspace-events": ""})
        self.assertEqual(client.acl_users(), ["default"])

    def test_a_database_that_was_emptied_may_be_the_template_of_another(self) -> None:
        layout = Layout(template=self.database.name, role=PLAIN.role, schema=PLAIN.schema)

        copy = self.postgres.create_database(layout)
        self.addCleanup(copy.drop)

        self.assertEqual(self.count(database=copy), 0)

    def test_threads_may_empty_at_the_same_time(self) -> None:
        self.fill()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: self.database.empty(), range(20)))

        self.assertEqual(self.count(), 0)
        wait_until("the others to be closed", lambda: len(self.kept()) == 1)

    def test_a_forked_child_has_a_connection_of_its_own(self) -> None:
        before = self.kept()
        child = multiprocessing.get_context("fork").Process(target=self.database.empty)
        child.start()
        child.join(20)

        self.assertEqual(child.exitcode, 0)
        self.assert_empties()
        # The server ends the child's session a moment after the child.
        wait_until("the child's to be closed", lambda: self.kept() == before)
