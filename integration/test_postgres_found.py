"""PostgreSQL's initial state: settings of a database or role, its encoding, its schema, a pooler in front of it."""

import os
from contextlib import ExitStack, suppress
from unittest import mock

from harness import PgBouncer, faults, start_pgbouncer, start_services, web
from harness.fixtures.listening import free_port
from integration.support.failing import FailingPostgresTestCase
from integration.support.found import FoundTestCase

#: Values that change the meaning of a session's statements, by setting.
POISON = {
    "DateStyle": "'German', 'DMY'",
    "IntervalStyle": "'iso_8601'",
    "TimeZone": "'Asia/Kathmandu'",
    "client_encoding": "'SJIS'",
    "bytea_output": "'escape'",
    "extra_float_digits": "'-15'",
    "array_nulls": "'off'",
    "standard_conforming_strings": "'off'",
    "backslash_quote": "'off'",
    "transform_null_equals": "'on'",
    "quote_all_identifiers": "'on'",
    "default_transaction_isolation": "'serializable'",
    "default_transaction_read_only": "'on'",
    "default_transaction_deferrable": "'on'",
    "search_path": "'pg_catalog'",
    "statement_timeout": "'1ms'",
    "lock_timeout": "'1ms'",
    "idle_session_timeout": "'300ms'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "exit_on_error": "'on'",
    "client_min_messages": "'debug5'",
    "enable_indexscan": "'off'",
    "enable_bitmapscan": "'off'",
    "plan_cache_mode": "'force_custom_plan'",
    "timezone_abbreviations": "'India'",
    "lc_numeric": "'C'",
    "lc_messages": "'C'",
}


def setUpModule() -> None:
    start_services()


class PostgresFoundTestCase(FailingPostgresTestCase, FoundTestCase):
    """The test's own server: roles belong to a server, not to a database."""

    own_server = True

    def setUp(self) -> None:
        if self.own_server:
            super().setUp()
            return
        FoundTestCase.setUp(self)
        self.use(self.services.postgres, self.fresh_database())
        self.way = self.own(faults.before((self.services.postgres.host, self.services.postgres.port)))

    def by_way_of(self, pooler: PgBouncer) -> dict[str, str]:
        return {"POSTGRES_PRIMARY_DSN": self.database.dsn_by_way_of(pooler.host, pooler.port)}

    def as_role(self, role: str, password: str = "x", database: str = "") -> dict[str, str]:
        where = f"{self.way.host}:{self.way.port}/{database or self.database.name}"
        return {"POSTGRES_PRIMARY_DSN": f"postgres://{role}:{password}@{where}?search_path=rtmanager"}


class Settings(PostgresFoundTestCase):
    def test_no_setting_of_the_database_changes_what_is_done(self) -> None:
        self.assert_unaffected(f"DATABASE {self.database.name}")

    def test_no_setting_of_the_role_changes_what_is_done(self) -> None:
        self.assert_unaffected("ROLE rtmanagerservice")

    def assert_unaffected(self, of_what: str) -> None:
        # The test's own superuser keeps its settings.
        self.administer(*(f"ALTER ROLE postgres SET {name} FROM CURRENT" for name in POISON))
        self.administer(*(f"ALTER {of_what} SET {name} = {value}" for name, value in POISON.items()))
        self.assert_fit("postgres")

        self.start_runtime()
        game = self.start_game()
        self.assert_serves()
        self.assert_runs(game)

        record = self.succeed(self.call("GET", ""))
        self.assertRegex(record["started_at"], r"^\d{4}-\d\d-\d\dT.*Z$")
        self.assertEqual(web.call("GET", f"{self.base_url}/api/v1/internal/runtimes?status=running")[0], 200)
        # Idle for longer than a session would live; the session lock's connection is idle between two heartbeats.
        self.wait_until("the sessions to have been idle", lambda: self.idle_for("0.6 seconds"))
        self.assert_serves()

    def idle_for(self, time: str) -> bool:
        query = (
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'rtmanager' AND state = 'idle' "
            "AND state_change < clock_timestamp() - %s::interval"
        )
        return bool(self.rows(query, time))

    def test_a_role_that_becomes_the_owner_by_its_setting_stays_that(self) -> None:
        self.administer(
            "CREATE ROLE login LOGIN IN ROLE rtmanagerservice",
            "ALTER ROLE login SET role = 'rtmanagerservice'",
        )
        self.start_runtime(**self.as_role("login"))
        self.assert_serves()
        [owner] = self.rows("SELECT tableowner FROM pg_tables WHERE tablename = 'operations'")
        self.assertEqual(owner, {"tableowner": "rtmanagerservice"})

    def test_a_setting_of_the_dsn_is_kept_behind_a_pooler_that_drops_it(self) -> None:
        pooler = self.own(start_pgbouncer(self.services.postgres, settings={"ignore_startup_parameters": "options"}))
        dsn = self.by_way_of(pooler)["POSTGRES_PRIMARY_DSN"].replace("options=", "options=-cwork_mem%3D7MB%20")
        self.start_runtime(POSTGRES_PRIMARY_DSN=dsn)
        self.assert_serves()


class Servers(PostgresFoundTestCase):
    def database_in(self, encoding: str) -> dict[str, str]:
        self.administer(f"CREATE DATABASE other ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        return self.as_role("rtmanagerservice", database="other")

    def test_another_encoding_than_utf8_is_refused(self) -> None:
        for encoding in ("SQL_ASCII", "LATIN1"):
            with self.subTest(encoding):
                self.administer("DROP DATABASE IF EXISTS other")
                self.assert_unfit(encoding, "ENCODING 'UTF8'", **self.database_in(encoding))

    def test_each_refusal_has_its_own_remedy(self) -> None:
        self.administer("CREATE ROLE silent NOLOGIN", "CREATE DATABASE locked", "CREATE DATABASE deaf")
        self.administer("REVOKE CONNECT ON DATABASE locked FROM PUBLIC", "ALTER DATABASE deaf ALLOW_CONNECTIONS false")
        self.assert_unfit("pg_hba.conf", **self.as_role("silent"))
        self.assert_unfit("does the role", **self.as_role("nobody"))
        self.assert_unfit("create the database", **self.as_role("rtmanagerservice", database="nowhere"))
        self.assert_unfit("GRANT CONNECT", **self.as_role("rtmanagerservice", database="locked"))
        self.assert_unfit("ALLOW_CONNECTIONS", **self.as_role("rtmanagerservice", database="deaf"))
        tls = self.as_role("rtmanagerservice")["POSTGRES_PRIMARY_DSN"] + "&sslmode=require"
        self.assert_unfit("does not offer TLS", POSTGRES_PRIMARY_DSN=tls)
        nobody = f"postgres://rtmanagerservice@127.0.0.1:{free_port()}/galaxy"
        self.assert_unfit("is it running", POSTGRES_PRIMARY_DSN=nobody)

    def test_a_wrong_password_is_reported_without_it(self) -> None:
        self.administer("ALTER ROLE postgres PASSWORD 'postgres'")
        demand = "echo host all all all scram-sha-256 > $PGDATA/pg_hba.conf"
        self.assertEqual(self.services.postgres.container.exec(["sh", "-c", demand])[0], 0)
        self.administer("SELECT pg_reload_conf()")
        self.assert_unfit("is the password", **self.as_role("rtmanagerservice", "not-this-one"))
        self.assertNotIn("not-this-one", self.check(**self.as_role("rtmanagerservice", "not-this-one"))[1])
        # A role without a line in pg_hba.conf.
        demand = "echo host all postgres all scram-sha-256 > $PGDATA/pg_hba.conf"
        self.assertEqual(self.services.postgres.container.exec(["sh", "-c", demand])[0], 0)
        self.administer("SELECT pg_reload_conf()")
        self.assert_unfit("pg_hba.conf", **self.as_role("rtmanagerservice"))

    def test_out_of_connections_the_remedy_fits(self) -> None:
        self.administer("ALTER ROLE rtmanagerservice CONNECTION LIMIT 0")
        self.assert_unfit("takes no connection", "CONNECTION LIMIT", "RTMANAGER_POSTGRES_POOL_SIZE")
        self.assertNotIn("does not answer", self.check()[1])
        self.administer("ALTER ROLE rtmanagerservice CONNECTION LIMIT 3")
        self.assert_unfit("CONNECTION LIMIT is 3", "raise it")
        self.administer("ALTER ROLE rtmanagerservice CONNECTION LIMIT 12")
        code, output = self.check()
        self.assertEqual(code, 0, output)
        self.assertIn("warning postgres    the role's CONNECTION LIMIT is 12", output)

    def test_connections_that_others_use_count(self) -> None:
        import psycopg

        dsn = self.services.postgres.dsn(self.database.name, "rtmanagerservice")
        self.administer("ALTER ROLE rtmanagerservice CONNECTION LIMIT 24")
        self.assertNotIn("CONNECTION LIMIT", self.check()[1])
        with ExitStack() as others:
            for _ in range(10):
                others.enter_context(psycopg.connect(dsn))
            self.assertIn("the role's CONNECTION LIMIT is 24 (10 of them are in use)", self.check()[1])


class Schemas(PostgresFoundTestCase):
    """Foreign schemas are recognised, and incomplete schemas of the manager."""

    own_server = False

    def migrated(self) -> None:
        self.start_runtime().stop()

    def test_another_tools_table_of_migrations_is_recognised(self) -> None:
        for columns, texts in {
            "(version bigint PRIMARY KEY, dirty boolean NOT NULL)": ("golang-migrate",),
            "(version varchar PRIMARY KEY)": ("version character varying",),
            "(version bigint PRIMARY KEY, inserted_at timestamp)": ("Ecto",),
            "(id int, name text)": ("id integer",),
            "(version integer, name text, applied_at timestamptz)": ("20240101",),
        }.items():
            with self.subTest(columns):
                self.administer(f"CREATE TABLE rtmanager.schema_migrations {columns}")
                if "applied_at" in columns:
                    self.administer("ALTER TABLE rtmanager.schema_migrations OWNER TO rtmanagerservice")
                    self.administer("INSERT INTO rtmanager.schema_migrations VALUES (20240101, 'create_users', now())")
                self.assert_unfit("another program's", "a schema of its own", *texts)
                self.assertEqual(self.rows("SELECT FROM pg_tables WHERE tablename = 'runtime_records'"), [])
                self.administer("DROP TABLE rtmanager.schema_migrations")
        self.administer("CREATE VIEW rtmanager.schema_migrations AS SELECT 1 AS version")
        self.assert_unfit("another program's", "a view")

    def test_a_table_index_or_sequence_that_is_missing_is_named(self) -> None:
        self.migrated()
        for change in ("TABLE rtmanager.outbox", "INDEX rtmanager.operations_one_running_per_game_idx"):
            with self.subTest(change):
                self.administer(f"DROP {change} CASCADE")
                self.assert_unfit(change.rpartition(".")[2], "finish the restore")

    def test_a_key_that_is_missing_or_does_not_hold_is_named(self) -> None:
        self.migrated()
        one_running = "operations_one_running_per_game_idx"
        for change, undo, text in (
            (
                "ALTER TABLE rtmanager.runtime_records DROP CONSTRAINT runtime_records_pkey",
                "CREATE UNIQUE INDEX ON rtmanager.runtime_records (game_id)",  # equivalent
                "ALTER TABLE rtmanager.runtime_records ADD PRIMARY KEY (game_id)",
            ),
            (
                "ALTER TABLE rtmanager.alarms DROP CONSTRAINT alarms_pkey, ADD UNIQUE (game_id)",
                "ALTER TABLE rtmanager.alarms ADD PRIMARY KEY (kind, game_id)",
                "ALTER TABLE rtmanager.alarms ADD PRIMARY KEY (game_id, kind)",
            ),
            (
                "ALTER TABLE rtmanager.last_exits DROP CONSTRAINT last_exits_pkey, "
                "ADD UNIQUE (game_id) DEFERRABLE INITIALLY DEFERRED",
                "ALTER TABLE rtmanager.last_exits ADD PRIMARY KEY (game_id)",
                "rtmanager.last_exits lacks its primary key",
            ),
            (
                f"DROP INDEX rtmanager.{one_running}; CREATE INDEX {one_running} ON rtmanager.operations (game_id)",
                f"DROP INDEX rtmanager.{one_running}; CREATE UNIQUE INDEX {one_running} "
                "ON rtmanager.operations (game_id) WHERE state = 'running'",
                f"{one_running} is no unique index",
            ),
        ):
            with self.subTest(change):
                self.administer(*change.split("; "))
                self.assert_unfit(text)
                self.administer(*undo.split("; "))
                self.assert_fit("postgres")

    def test_a_counter_that_gives_ids_again_or_is_gone_or_may_not_be_used_is_named(self) -> None:
        self.migrated()
        self.administer(
            "INSERT INTO rtmanager.operation_log (id, game_id, op_kind, op_source, source_ref, outcome, started_at, "
            "finished_at) VALUES (7, 'g', 'stop', 'gm_rest', 'r', 'success', now(), now())",
            "INSERT INTO rtmanager.outbox (id, stream, fields) OVERRIDING SYSTEM VALUE VALUES (7, 'other', '{}')",
        )
        for table in ("operation_log", "outbox"):
            mend = f"SELECT setval('rtmanager.{table}_id_seq', (SELECT max(id) FROM rtmanager.{table}))"
            self.assert_unfit(f"{table}_id_seq gives 1", mend)
            self.administer(mend)
        self.assert_fit("postgres")
        for change, undo, text in (
            (
                "ALTER TABLE rtmanager.outbox ALTER id DROP IDENTITY",
                "ALTER TABLE rtmanager.outbox ALTER id ADD GENERATED ALWAYS AS IDENTITY (START WITH 8)",
                "nothing gives the rows of rtmanager.outbox an id",
            ),
            (
                "REVOKE USAGE ON SEQUENCE rtmanager.operation_log_id_seq FROM rtmanagerservice",
                "GRANT USAGE ON SEQUENCE rtmanager.operation_log_id_seq TO rtmanagerservice",
                "lacks USAGE on rtmanager.operation_log_id_seq",
            ),
        ):
            self.administer(change)
            self.assert_unfit(text)
            self.administer(undo)
        self.start_runtime()
        self.administer("ALTER TABLE rtmanager.outbox ALTER id RESTART WITH 1")
        self.wait_until_readyz_reports("outbox_id_seq gives")

    def test_a_schema_without_rights_is_reported(self) -> None:
        self.administer("CREATE SCHEMA theirs", 'CREATE SCHEMA "Mixed"')
        dsn = self.as_role("rtmanagerservice")["POSTGRES_PRIMARY_DSN"]
        self.assert_unfit("GRANT USAGE", POSTGRES_PRIMARY_DSN=dsn.replace("=rtmanager", "=theirs"))
        self.administer("GRANT USAGE ON SCHEMA theirs TO rtmanagerservice")
        self.assert_unfit("GRANT USAGE, CREATE", POSTGRES_PRIMARY_DSN=dsn.replace("=rtmanager", "=theirs"))
        # A misspelt schema is not skipped in favour of the next one.
        self.assert_unfit(
            "CREATE SCHEMA rtmanagr", POSTGRES_PRIMARY_DSN=dsn.replace("=rtmanager", "=rtmanagr,rtmanager")
        )
        self.assertEqual(self.rows("SELECT FROM pg_tables WHERE tablename = 'runtime_records'"), [])

    def test_tables_of_another_owner_are_reported(self) -> None:
        self.migrated()
        self.administer("ALTER TABLE rtmanager.operations OWNER TO postgres")
        self.assert_unfit("rtmanager.operations", "OWNER TO")
        self.administer("GRANT ALL ON rtmanager.operations TO rtmanagerservice")
        self.assert_fit("postgres")

    def test_row_level_security_that_hides_rows_is_reported(self) -> None:
        self.migrated()
        self.administer("ALTER TABLE rtmanager.operations ENABLE ROW LEVEL SECURITY")
        self.assert_fit("postgres")  # not for the owner
        self.administer("ALTER TABLE rtmanager.operations FORCE ROW LEVEL SECURITY")
        self.assert_unfit("row-level security", "rtmanager.operations")

    def test_a_trigger_or_rule_that_can_change_what_is_written_is_refused_and_any_other_is_reported(self) -> None:
        self.migrated()
        nothing = "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
        self.administer(f"CREATE FUNCTION rtmanager.nothing() {nothing}")
        run = "EXECUTE FUNCTION rtmanager.nothing()"
        for table, each in {
            "outbox": "TRIGGER odd BEFORE INSERT ON rtmanager.outbox FOR EACH ROW",
            "operations": "TRIGGER odd BEFORE UPDATE OF owner ON rtmanager.operations FOR EACH ROW",
            "schema_migrations": "TRIGGER odd BEFORE DELETE ON rtmanager.schema_migrations FOR EACH ROW",
        }.items():
            with self.subTest(each):
                self.administer(f"CREATE {each} {run}")
                self.assert_unfit(f"the trigger odd on rtmanager.{table}", f"DROP TRIGGER odd ON rtmanager.{table}")
                self.administer(f"ALTER TABLE rtmanager.{table} DISABLE TRIGGER odd")
                self.assert_fit("postgres")
                self.administer(f"DROP TRIGGER odd ON rtmanager.{table}")
        for action in ("INSTEAD NOTHING", "ALSO NOTIFY written"):
            self.administer(f'CREATE RULE "an odd one" AS ON INSERT TO rtmanager.outbox DO {action}')
            self.assert_unfit('the rule "an odd one" on rtmanager.outbox', 'DROP RULE "an odd one"')
            self.administer('DROP RULE "an odd one" ON rtmanager.outbox')
        # A foreign table, and triggers that do not change rows.
        self.administer(
            "CREATE TABLE rtmanager.theirs (n int)",
            f"CREATE TRIGGER odd BEFORE INSERT ON rtmanager.theirs FOR EACH ROW {run}",
            f"CREATE TRIGGER audit AFTER INSERT OR UPDATE ON rtmanager.operations FOR EACH ROW {run}",
            f"CREATE TRIGGER once BEFORE INSERT ON rtmanager.outbox FOR EACH STATEMENT {run}",
        )
        code, output = self.check()
        self.assertEqual((code, output.count("warning postgres    the trigger ")), (0, 2), output)
        self.assertIn("the trigger audit on rtmanager.operations", output)
        self.start_runtime()
        self.assert_serves()
        self.administer(f"CREATE TRIGGER odd BEFORE INSERT ON rtmanager.outbox FOR EACH ROW {run}")
        waits = self.submit("waits")
        self.wait_until_readyz_reports("the trigger odd on rtmanager.outbox")
        self.wait_until_readyz_reports("outbox: 0 of 1")
        self.administer("DROP TRIGGER odd ON rtmanager.outbox")
        self.wait_for_answers(waits)
        self.assert_serves()

    def test_event_triggers_are_reported_while_migrations_are_due(self) -> None:
        self.administer(
            "CREATE FUNCTION public.look() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$",
            "CREATE EVENT TRIGGER looks ON ddl_command_end EXECUTE FUNCTION public.look()",
        )
        self.assertIn("event triggers may refuse the migrations that are due: looks", self.check()[1])
        self.migrated()
        self.assertNotIn("event trigger", self.check()[1])


class Remedies(PostgresFoundTestCase):
    """Each rejection names its cause."""

    own_server = False

    def test_a_right_of_everybody_that_was_revoked_is_named(self) -> None:
        names = ("set_config", "pg_try_advisory_xact_lock", "pg_try_advisory_lock", "pg_logical_emit_message")
        calls = "SELECT 'EXECUTE ON FUNCTION ' || oid::regprocedure AS right, proname AS name FROM pg_proc"
        rights = self.rows(f"{calls} WHERE proname = ANY (%s)", [*names, "pg_terminate_backend", "pg_lock_status"])
        rights += [{"right": f"SELECT ON {view}", "name": view} for view in ("pg_locks", "pg_stat_activity")]
        for each in rights:
            with self.subTest(each["right"]):
                self.administer(f"REVOKE {each['right']} FROM PUBLIC")
                self.assert_unfit(each["name"], "an administrator grants it back")
                self.administer(f"GRANT {each['right']} TO PUBLIC")
        self.assert_fit("postgres")

    def test_a_library_that_sessions_load_and_is_missing_is_named(self) -> None:
        with self.services.postgres.maintain() as other:
            other.execute(f"ALTER DATABASE {self.database.name} SET session_preload_libraries = 'nowhere'".encode())
            try:
                self.assert_unfit("nowhere", "take it out of session_preload_libraries")
            finally:
                other.execute(f"ALTER DATABASE {self.database.name} RESET session_preload_libraries".encode())

    def test_a_search_path_that_begins_with_no_schema_of_a_service_is_named(self) -> None:
        dsn = self.as_role("rtmanagerservice")["POSTGRES_PRIMARY_DSN"]
        for first in ("pg_temp", "pg_catalog"):
            path = dsn.replace("=rtmanager", f"={first},rtmanager")
            self.assert_unfit(f"begins with {first}", "name its own schema first", POSTGRES_PRIMARY_DSN=path)

    def test_what_the_environment_changes_is_named(self) -> None:
        for name, value in {"PGTARGETSESSIONATTRS": "standby", "PGSSLMODE": "require"}.items():
            with self.subTest(name), mock.patch.dict(os.environ, {name: value, "PGPASSWORD": "not-this-one"}):
                self.assert_unfit(f"{name}={value}")
                self.assertNotIn("not-this-one", self.check()[1])
        with mock.patch.dict(os.environ, {"PGOPTIONS": "-cnonsense", "PGPASSWORD": "x"}):
            self.assertNotIn("the environment changes", self.check()[1])
        with mock.patch.dict(os.environ, {"PGSSLMODE": "disable"}):
            self.assertIn(
                "warning postgres    the environment changes the connection: PGSSLMODE=disable", self.check()[1]
            )
            self.start_runtime()
            self.assert_serves()


class Poolers(PostgresFoundTestCase):
    """PgBouncer: session pooling works, other modes are rejected."""

    own_server = False

    def pooler(self, mode: str, **settings: str) -> PgBouncer:
        return self.own(start_pgbouncer(self.services.postgres, mode, settings))

    def test_with_a_connection_for_each_client_it_serves(self) -> None:
        for settings in ({}, {"ignore_startup_parameters": "options"}, {"server_reset_query": ""}):
            with self.subTest(settings):
                self.administer(f"ALTER DATABASE {self.database.name} SET datestyle = 'German, DMY'")
                pooler = self.pooler("session", **settings)
                self.assert_fit("postgres", **self.by_way_of(pooler))
                live = self.start_runtime(**self.by_way_of(pooler))
                self.assert_serves()
                live.stop()
                pooler.close()

    def test_shared_connections_are_refused(self) -> None:
        for mode in ("transaction", "statement"):
            for settings in ({}, {"server_round_robin": "1", "ignore_startup_parameters": "options"}):
                with self.subTest(mode=mode, settings=settings):
                    pooler = self.pooler(mode, **settings)
                    self.assert_unfit("share connections", "pool_mode = session", **self.by_way_of(pooler))
                    pooler.close()

    def test_one_with_too_few_connections_is_reported(self) -> None:
        pooler = self.pooler("session", default_pool_size="1")
        self.assert_unfit("gave no connection", "default_pool_size", **self.by_way_of(pooler))
        for settings in ({"default_pool_size": "12"}, {"max_client_conn": "12"}):
            with self.subTest(settings):
                pooler = self.pooler("session", **settings)
                quick = {**self.by_way_of(pooler), "SILENCE_TIMEOUT": "2s"}
                texts = ("may want 13", "default_pool_size", "RTMANAGER_POSTGRES_POOL_SIZE")
                self.assert_unfit(*texts, POSTGRES_POOL_SIZE="10", **quick)
                self.assert_fit("postgres", POSTGRES_POOL_SIZE="9", **quick)

    def test_one_that_restarts_is_found_again(self) -> None:
        pooler = self.pooler("session")
        self.start_runtime(**self.by_way_of(pooler))
        game = self.start_game()
        pooler.restart()
        self.assert_serves()
        self.assert_runs(game)

    def test_one_that_reads_another_mode_while_it_serves_is_noticed(self) -> None:
        pooler = self.pooler("session")
        self.start_runtime(**self.by_way_of(pooler))
        game = self.start_game()
        pooler.change("transaction")
        waits = self.submit("waits")
        self.wait_until_readyz_reports("postgres", "share connections")

        pooler.restart("session")
        self.wait_for_answers(waits)
        self.assert_serves()
        self.assert_runs(game)

    def test_one_that_begins_to_share_connections_is_noticed_and_runs_nobody_elses_statement(self) -> None:
        import psycopg

        self.administer("CREATE TABLE public.traps (n int)", "GRANT ALL ON public.traps TO PUBLIC")
        pooler = self.pooler("session")
        self.start_runtime(**self.by_way_of(pooler))
        game = self.start_game()
        self.wait_until_all_is_published()

        pooler.restart("transaction", default_pool_size="2")
        where = self.database.dsn_by_way_of(pooler.host, pooler.port).partition("?")[0]
        with ExitStack() as others:
            # Others prepare statements under psycopg's names, and a manager of an earlier release does so, too.
            for _ in range(2):
                other = others.enter_context(psycopg.connect(where, autocommit=True, prepare_threshold=None))
                for name in [f"_pg3_{number}" for number in range(20)] + [f"texts_{number}" for number in range(5)]:
                    trap = f'PREPARE "{name}" AS INSERT INTO public.traps VALUES (1) RETURNING 1'
                    with suppress(psycopg.errors.DuplicatePreparedStatement):
                        other.execute(trap.encode())
            waits = self.submit("waits")
            self.wait_until_readyz_reports("postgres", "share connections")
            self.assertEqual(self.answers(waits), [0])

            pooler.restart("session", default_pool_size="20")
            self.wait_for_answers(waits)
        self.assert_serves()
        self.assert_runs(game)
        self.assertEqual(self.rows("SELECT * FROM public.traps"), [])
