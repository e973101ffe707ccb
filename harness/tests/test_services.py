"""Real PostgreSQL and Redis: the guarantees for a test."""

import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from harness.fixtures import postgres, redis
from harness.runs import flag
from harness.waiting import wait_until

ROLE = "shopkeeper"

SHOP = postgres.Layout(
    role=ROLE,
    schema="shop",
    setup="CREATE ROLE shopkeeper LOGIN PASSWORD 'shopkeeper'; CREATE SCHEMA shop AUTHORIZATION shopkeeper;",
)

POSTGRES: postgres.Postgres
REDIS: redis.Redis


def setUpModule() -> None:
    global POSTGRES, REDIS
    flag.check()
    with ThreadPoolExecutor(2) as pool:
        starting = pool.submit(postgres.start), pool.submit(redis.start)
    POSTGRES = starting[0].result()
    unittest.addModuleCleanup(POSTGRES.close)
    REDIS = starting[1].result()
    unittest.addModuleCleanup(REDIS.close)


class PostgresTest(unittest.TestCase):
    database: ClassVar[postgres.Database]

    @classmethod
    def setUpClass(cls) -> None:
        cls.database = POSTGRES.create_database(SHOP)
        cls.addClassCleanup(cls.database.drop)
        with cls.database.connect(ROLE) as connection:
            connection.execute("CREATE TABLE games (id bigserial PRIMARY KEY, name text)")
            connection.execute("CREATE TABLE turns (game bigint REFERENCES games)")
            connection.execute("CREATE TABLE schema_migrations (version int)")

    def count(self, table: str) -> int:
        with self.database.connect() as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])

    def fill(self) -> int:
        with self.database.connect(ROLE) as connection:
            row = connection.execute("INSERT INTO games (name) VALUES ('g') RETURNING id").fetchone()
            connection.execute("INSERT INTO turns SELECT id FROM games")
            connection.execute("INSERT INTO schema_migrations VALUES (1)")
        assert row is not None
        return int(row[0])

    def test_a_plain_database_is_empty_and_of_no_project(self) -> None:
        plain = POSTGRES.create_database(postgres.PLAIN)
        self.addCleanup(plain.drop)
        with plain.connect() as connection:
            connection.execute("CREATE TABLE turns (number int)")
            connection.execute("INSERT INTO turns VALUES (1)")
            self.assertEqual(connection.execute("SELECT current_schema").fetchone(), ("public",))
        plain.empty()
        with plain.connect() as connection:
            self.assertEqual(connection.execute("SELECT count(*) FROM turns").fetchone(), (0,))

    def test_the_role_owns_its_schema_and_is_no_superuser(self) -> None:
        with self.database.connect(ROLE) as connection:
            row = connection.execute(
                "SELECT current_database(), current_schema, rolsuper, nspowner = pg_roles.oid"
                " FROM pg_roles JOIN pg_namespace ON nspname = 'shop' WHERE rolname = current_user"
            ).fetchone()
        self.assertEqual(row, (self.database.name, "shop", False, True))

    def test_emptying_leaves_tables_as_new_but_those_to_keep(self) -> None:
        self.fill()
        self.database.empty(keep=("schema_migrations",))
        kept = self.count("schema_migrations")
        self.assertEqual((self.count("games"), self.count("turns")), (0, 0))
        self.assertGreater(kept, 0)
        self.assertEqual(self.fill(), 1, "the sequence starts anew")
        self.database.empty()
        self.assertEqual(self.count("schema_migrations"), 0)

    def test_a_large_table_is_emptied_too(self) -> None:
        with self.database.connect() as connection:
            connection.execute("INSERT INTO games (name) SELECT repeat('x', 100) FROM generate_series(1, 20000)")
        self.database.empty()
        self.assertEqual(self.count("games"), 0)

    def test_emptying_is_quick(self) -> None:
        took = []
        for _ in range(5):
            self.fill()
            began = time.monotonic()
            self.database.empty()
            took.append(time.monotonic() - began)
        self.assertLess(min(took), 0.1)

    def test_a_database_like_another_has_its_tables(self) -> None:
        copy = POSTGRES.create_database(replace(SHOP, template=self.database.name, setup=""))
        self.addCleanup(copy.drop)
        with copy.connect(ROLE) as connection:
            connection.execute("INSERT INTO games (name) VALUES ('only here')")

    def test_what_a_layout_sets_up_is_there_in_each_database_and_stays_when_one_is_reset(self) -> None:
        for _ in range(2):
            made = POSTGRES.create_database(SHOP)
            self.addCleanup(made.drop)
            made.reset()
            with made.connect(ROLE) as connection:
                connection.execute("CREATE TABLE goods (name text)")

    def test_a_setup_may_be_a_file_and_make_extensions_which_a_reset_keeps(self) -> None:
        file = Path(self.enterContext(tempfile.TemporaryDirectory())) / "init.sql"
        file.write_text("CREATE EXTENSION pg_trgm;\nCREATE TABLE goods AS SELECT 'pear' AS name;\n")
        made = POSTGRES.create_database(postgres.Layout(setup=file.read_text()))
        self.addCleanup(made.drop)
        query = "SELECT count(*) FROM goods WHERE similarity(name, 'pears') > 0.5"
        for _ in range(2):
            with made.connect() as connection:
                self.assertEqual(connection.execute(query).fetchone(), (1,))
                connection.execute("DELETE FROM goods")
            made.reset()

    def test_a_setup_that_fails_says_why_each_time(self) -> None:
        import psycopg

        for _ in range(2):
            with self.assertRaisesRegex(psycopg.errors.UndefinedTable, "nowhere"):
                POSTGRES.create_database(replace(SHOP, setup="CREATE TABLE a (b int); TABLE nowhere"))

    def test_threads_set_a_layout_up_once(self) -> None:
        layout = replace(SHOP, setup="CREATE ROLE once LOGIN; CREATE TABLE here (n int)")
        with ThreadPoolExecutor(4) as threads:
            made = list(threads.map(lambda _: POSTGRES.create_database(layout), range(4)))
        for each in made:
            with each.connect() as connection:
                connection.execute("TABLE public.here")
            each.drop()

    def test_a_database_may_have_a_name(self) -> None:
        made = POSTGRES.create_database(name="the shop")
        self.addCleanup(made.drop)
        with made.connect() as connection:
            self.assertEqual(connection.execute("SELECT current_database()").fetchone(), ("the shop",))

    def test_dropping_ends_what_is_still_connected(self) -> None:
        doomed = POSTGRES.create_database()
        connection = doomed.connect()
        self.addCleanup(connection.close)
        doomed.drop()
        doomed.drop()


class RedisTest(unittest.TestCase):
    def test_flush_forgets_streams_and_their_groups(self) -> None:
        client = self.enterContext(REDIS.client())
        client.xgroup_create("jobs", "manager", mkstream=True)
        client.xadd("jobs", {"game_id": "g1"})
        REDIS.flush()
        self.assertEqual(client.keys(), [])

    def test_the_address_is_host_and_port(self) -> None:
        self.assertRegex(REDIS.address, r"^[\w.]+:\d+$")


class DurableTest(unittest.TestCase):
    def test_what_a_durable_server_acknowledged_survives_kill_9(self) -> None:
        import psycopg
        from redis.exceptions import RedisError

        with (
            postgres.start(settings=postgres.DURABLE) as server,
            redis.start(settings=redis.DURABLE) as store,
            store.client(timeout_s=5) as client,
        ):
            database = server.create_database(postgres.PLAIN)
            with database.connect() as connection:
                connection.execute("CREATE TABLE turns AS SELECT 1 AS number")
            client.set("turn", "1")
            for each in (server.container, store.container):
                each.kill()
                each.wait_for_exit()
                each.client.start(each.container_id)
            wait_until("Redis", lambda: client.get("turn") == "1", retry_on=(RedisError,))
            wait_until("PostgreSQL", lambda: rows(database) == [(1,)], retry_on=(psycopg.OperationalError,))


def rows(database: postgres.Database) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return connection.execute("SELECT number FROM turns").fetchall()
