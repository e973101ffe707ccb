"""A reset restores a database to its template, whatever a test has created in it."""

import contextlib
import io
import time
import unittest
from typing import ClassVar
from unittest import mock

from harness.fixtures import postgres
from harness.fixtures.postgres import EVERY_TABLE, PLAIN, Database, Layout, Postgres
from harness.runs import flag


def setUpModule() -> None:
    flag.check()


#: Every kind of object that a schema may contain, with dependencies.
ALL_KINDS = """
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE DOMAIN short AS text CHECK (length(VALUE) < 9);
    CREATE TYPE pair AS (a int, b int);
    CREATE TYPE span AS RANGE (subtype = float8);
    CREATE SEQUENCE numbers;
    CREATE FUNCTION a_name() RETURNS text LANGUAGE sql AS $$SELECT 'x'$$;
    CREATE PROCEDURE nothing() LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE product (int) (SFUNC = int4mul, STYPE = int);
    CREATE TABLE games (
        id bigserial PRIMARY KEY, other bigint DEFAULT nextval('numbers'),
        how mood, name short DEFAULT a_name(), at pair
    );
    CREATE TABLE "Odd; name" (game bigint REFERENCES games, other int GENERATED ALWAYS AS IDENTITY);
    CREATE TABLE parts (day date) PARTITION BY RANGE (day);
    CREATE TABLE parts_now PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE TABLE child () INHERITS (games);
    CREATE VIEW v AS SELECT * FROM games;
    CREATE MATERIALIZED VIEW mv AS SELECT * FROM v;
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER stamped BEFORE INSERT ON games FOR EACH ROW EXECUTE FUNCTION stamp();
    CREATE RULE none AS ON DELETE TO "Odd; name" DO INSTEAD NOTHING;
    CREATE SCHEMA other;
    CREATE TABLE other.things (x int, how mood);
    INSERT INTO games (how) VALUES ('good');
    INSERT INTO "Odd; name" VALUES (1);
    INSERT INTO other.things VALUES (1);
"""

#: Changes that a reset does not revert by dropping.
LEFT = (
    "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
    "ALTER SCHEMA public RENAME TO elsewhere",
    'CREATE COLLATION german FROM "C"',
    "CREATE TEXT SEARCH CONFIGURATION shop (COPY = english)",
    "CREATE TEXT SEARCH DICTIONARY shopd (TEMPLATE = simple)",
    "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
    "CREATE CAST (text AS point) WITH INOUT",
    "SELECT lo_create(424242)",
    "CREATE PUBLICATION p FOR ALL TABLES",
    "CREATE FOREIGN DATA WRAPPER w",
    "CREATE ROLE shopper; CREATE TABLE own (); ALTER TABLE own OWNER TO shopper",
    "CREATE ROLE shopper; GRANT ALL ON SCHEMA public TO shopper",
    "ALTER ROLE postgres SET statement_timeout = 1",
    "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = 1', current_database()); END$$",
)

#: The objects of the schemas: relations, types, routines, schemas.
SEEN = """
    SELECT count(*) FROM pg_namespace n LEFT JOIN LATERAL (
        SELECT oid FROM pg_class WHERE relnamespace = n.oid UNION ALL
        SELECT oid FROM pg_type WHERE typnamespace = n.oid UNION ALL
        SELECT oid FROM pg_proc WHERE pronamespace = n.oid
    ) AS objects ON true WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
"""


class ResettingTest(unittest.TestCase):
    server: ClassVar[Postgres]

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = cls.enterClassContext(postgres.start())

    def setUp(self) -> None:
        self.database = self.make(PLAIN)

    def make(self, layout: Layout) -> Database:
        made = self.server.create_database(layout)
        self.addCleanup(made.drop)
        return made

    def run_sql(self, text: str, database: Database | None = None) -> list[tuple[object, ...]]:
        with (database or self.database).connect() as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def test_whatever_a_test_makes_it_may_make_again(self) -> None:
        before = self.run_sql(SEEN)
        for _ in range(3):
            self.run_sql(ALL_KINDS)
            self.assertGreater(self.run_sql(SEEN), before)
            self.database.reset()
            self.assertEqual(self.run_sql(SEEN), before)

    def test_an_extension_goes_with_all_that_is_of_it(self) -> None:
        before = self.run_sql(SEEN)
        there = self.run_sql("SELECT name FROM pg_available_extensions WHERE name NOT IN ('plpgsql')")
        if not there:
            self.skipTest("this PostgreSQL has no extension")
        self.run_sql(f'CREATE EXTENSION "{min(str(name) for (name,) in there)}" CASCADE')
        self.database.reset()
        self.assertEqual(self.run_sql(SEEN), before)

    def test_tables_of_the_template_stay_with_its_rows(self) -> None:
        self.run_sql(
            "CREATE TABLE games (id bigserial, name text); INSERT INTO games (name) VALUES ('of the template')"
        )
        self.run_sql("CREATE TYPE mood AS ENUM ('good'); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        copy = self.make(Layout(self.database.name, PLAIN.role, PLAIN.schema))
        self.run_sql("CREATE TABLE mine (x mood); INSERT INTO games (name) VALUES ('of the test')", copy)
        copy.reset()
        self.assertEqual(
            self.run_sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", copy), [("games",)]
        )
        self.assertEqual(self.run_sql("INSERT INTO games (name) VALUES ('x') RETURNING id, f()", copy), [(2, 1)])
        self.run_sql("SELECT 'good'::mood", copy)

    def test_tables_to_keep_stay_with_their_rows_and_all_that_they_need(self) -> None:
        self.run_sql(ALL_KINDS)
        self.database.reset(keep=["games", "other.things"])
        self.assertEqual(self.run_sql("SELECT count(*) FROM games"), [(1,)])
        self.assertEqual(self.run_sql("SELECT x FROM other.things"), [(1,)])
        self.assertEqual(self.run_sql("INSERT INTO games (how) VALUES ('bad') RETURNING id, other"), [(2, 2)])
        left = self.run_sql(
            "SELECT relname FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'p')"
        )
        self.assertEqual(left, [("games",)])
        self.database.reset()
        self.run_sql(ALL_KINDS)

    def test_tables_may_stay_and_lose_their_rows(self) -> None:
        self.run_sql(ALL_KINDS)
        self.database.reset(rows_of=["games"])
        self.assertEqual(self.run_sql("INSERT INTO games (how) VALUES ('bad') RETURNING id, other"), [(1, 1)])
        self.database.reset(rows_of=["games"])
        self.assertEqual(self.run_sql("SELECT count(*) FROM games"), [(0,)])

    def test_every_table_may(self) -> None:
        self.run_sql(ALL_KINDS)
        self.database.reset(keep=["games"], rows_of=EVERY_TABLE)
        self.assertEqual(
            self.run_sql('SELECT (SELECT count(*) FROM games), (SELECT count(*) FROM "Odd; name")'), [(1, 0)]
        )

    def test_what_cannot_be_dropped_one_by_one_goes_too(self) -> None:
        for made in LEFT:
            with self.subTest(made):
                for _ in range(2):
                    self.run_sql(made)
                    with contextlib.redirect_stderr(io.StringIO()):
                        self.database.reset()
                self.run_sql("CREATE TABLE t (i int)")
                self.assertEqual(self.run_sql("SHOW statement_timeout"), [("0",)])

    def test_what_the_template_has_is_as_it_was(self) -> None:
        setup = """
            CREATE TABLE seeds (i serial); INSERT INTO seeds VALUES (DEFAULT), (DEFAULT); CREATE TABLE empty (i int);
            CREATE FUNCTION sf() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE MATERIALIZED VIEW mv AS TABLE empty;
        """
        copy = self.make(Layout(setup=setup))
        changes = (
            "ALTER TABLE empty ADD extra int",
            "CREATE INDEX ON seeds (i)",
            "CREATE OR REPLACE FUNCTION sf() RETURNS int LANGUAGE sql AS 'SELECT 2'",
            "DROP TABLE seeds CASCADE",
            "UPDATE seeds SET i = 7",
            "TRUNCATE seeds",
            "INSERT INTO seeds VALUES (DEFAULT)",
            "INSERT INTO empty VALUES (1)",
            "INSERT INTO empty VALUES (1); REFRESH MATERIALIZED VIEW mv",
            "GRANT SELECT ON seeds TO PUBLIC",
        )
        seen = (
            "SELECT array(SELECT i FROM seeds), sf(), (SELECT count(*) FROM empty), (SELECT count(*) FROM mv),"
            " nextval('seeds_i_seq'), (SELECT count(*) FROM pg_class WHERE relname = 'seeds' AND relacl IS NOT NULL)"
        )
        for change in changes:
            with self.subTest(change):
                self.run_sql(change, copy)
                copy.reset()
                self.assertEqual(self.run_sql(seen, copy), [([1, 2], 1, 0, 0, 3, 0)])

    def test_a_session_that_holds_a_table_is_ended_and_named(self) -> None:
        import psycopg

        every: tuple[tuple[str, ...], ...] = ((), ("t",), EVERY_TABLE)
        for rows_of in every:
            self.run_sql("CREATE TABLE IF NOT EXISTS t (i int)")
            self.server.kept.forget(self.database.name)
            with contextlib.closing(psycopg.connect(self.database.dsn, application_name="leaky")) as left:
                left.execute("LOCK TABLE t")
                with (
                    contextlib.redirect_stderr(io.StringIO()) as errors,
                    mock.patch("harness.fixtures.postgres.LOCK_TIMEOUT_MS", 100),
                ):
                    self.database.reset(rows_of=rows_of)
            self.assertIn("application 'leaky', idle in transaction, last query: LOCK TABLE t", errors.getvalue())

    def test_more_tables_than_the_server_has_locks_for(self) -> None:
        before = self.run_sql(SEEN)
        self.run_sql(
            "DO $$BEGIN FOR i IN 1..4000 LOOP EXECUTE format('CREATE TABLE m%s (i serial PRIMARY KEY, t text)', i);"
            " COMMIT; END LOOP; END$$"
        )
        self.database.reset()
        self.assertEqual(self.run_sql(SEEN), before)

    def test_the_roles_of_a_layout_stay(self) -> None:
        copy = self.make(Layout(setup="CREATE ROLE stays LOGIN; ALTER ROLE stays SET work_mem = '2MB'"))
        self.run_sql("ALTER ROLE stays SET work_mem = '1MB'; CREATE ROLE goes; GRANT stays TO goes")
        self.database.reset()
        roles = "SELECT rolname, rolconfig FROM pg_roles WHERE oid >= 16384"
        self.assertEqual(self.run_sql(roles, copy), [("stays", ["work_mem=2MB"])])

    def test_it_is_quick(self) -> None:
        took = []
        for _ in range(8):
            self.run_sql(
                "CREATE TABLE games (id bigserial PRIMARY KEY, name text); INSERT INTO games (name) VALUES ('g')"
            )
            self.run_sql("CREATE TABLE turns (game bigint REFERENCES games); INSERT INTO turns VALUES (1)")
            began = time.monotonic()
            self.database.reset()
            took.append(time.monotonic() - began)
        self.assertLess(min(took), 0.1)
