"""The database: the migrations create the documented schema in an empty one, and are safe to repeat."""

from concurrent.futures import ThreadPoolExecutor

from harness import start_services, web
from integration.support.commands import CommandTestCase
from rtmanager.domain.errors import RuntimeManagerError

TEXT, TIME = ("text", "NO"), ("timestamp with time zone", "NO")
MAYBE_TEXT, MAYBE_TIME = ("text", "YES"), ("timestamp with time zone", "YES")

#: Columns with type and nullability, as the contract defines them.
TABLES = {
    "runtime_records": {
        "game_id": TEXT,
        "status": TEXT,
        "current_container_id": MAYBE_TEXT,
        "current_image_ref": MAYBE_TEXT,
        "engine_endpoint": TEXT,
        "state_path": TEXT,
        "docker_network": TEXT,
        "started_at": MAYBE_TIME,
        "stopped_at": MAYBE_TIME,
        "removed_at": MAYBE_TIME,
        "last_op_at": TIME,
        "created_at": TIME,
    },
    "operation_log": {
        "id": ("bigint", "NO"),
        "game_id": TEXT,
        "op_kind": TEXT,
        "op_source": TEXT,
        "source_ref": TEXT,
        "image_ref": MAYBE_TEXT,
        "container_id": MAYBE_TEXT,
        "outcome": TEXT,
        "error_code": MAYBE_TEXT,
        "error_message": MAYBE_TEXT,
        "started_at": TIME,
        "finished_at": TIME,
        "caller": MAYBE_TEXT,
    },
    "health_snapshots": {
        "game_id": TEXT,
        "container_id": TEXT,
        "status": TEXT,
        "source": TEXT,
        "details": ("jsonb", "NO"),
        "observed_at": TIME,
    },
}


def setUpModule() -> None:
    start_services()


class Schema(CommandTestCase):
    def begin_anew(self) -> None:
        """Recreate the schema as an administrator provides it: empty, and owned by the manager's role."""
        with self.services.database.connect() as connection:
            connection.execute("DROP SCHEMA rtmanager CASCADE")
            connection.execute("CREATE SCHEMA rtmanager AUTHORIZATION rtmanagerservice")

    def test_the_tables_that_others_read_are_those_of_the_contract(self) -> None:
        self.begin_anew()
        self.start_runtime()

        columns = """
            SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
            WHERE table_schema = 'rtmanager' AND table_name = ANY (%s) ORDER BY ordinal_position"""
        keys = "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p'"
        with self.services.database.connect() as connection:
            found: dict[str, dict[str, tuple[str, str]]] = {}
            for table, column, kind, nullable in connection.execute(columns, (list(TABLES),)):
                found.setdefault(table, {})[column] = (kind, nullable)
            primary = dict(connection.execute(keys).fetchall())
            index = connection.execute(
                "SELECT indexdef FROM pg_indexes WHERE indexname = 'runtime_records_status_last_op_idx'"
            ).fetchone()
            statuses = connection.execute(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'runtime_records_status_chk'"
            ).fetchone()
        self.assertEqual(found, TABLES)
        self.assertEqual((primary["runtime_records"], primary["health_snapshots"]), ("PRIMARY KEY (game_id)",) * 2)
        self.assertIn("(status, last_op_at)", index[0] if index else "")
        for status in ("running", "stopped", "removed"):
            self.assertIn(f"'{status}'", statuses[0] if statuses else "")

    def test_a_second_start_on_a_migrated_database_keeps_what_is_in_it(self) -> None:
        from rtmanager.adapters.postgres.schema import known_migrations

        self.begin_anew()
        live = self.start_runtime()
        before = self.post("start", {"image_ref": self.engine.ref})
        live.stop()

        self.start_runtime()

        self.assertEqual(self.succeed(self.call("GET", "")), before)
        with self.services.database.connect() as connection:
            migrations = connection.execute("SELECT version, name FROM schema_migrations").fetchall()
        self.assertEqual(migrations, [(each.version, each.name) for each in known_migrations()])

    def test_a_database_that_is_ahead_of_the_program_is_used_and_reported(self) -> None:
        self.begin_anew()
        self.addCleanup(self.begin_anew)  # tests share the applied migrations otherwise
        self.start_runtime().stop()
        with self.services.database.connect() as connection:
            connection.execute("INSERT INTO schema_migrations (version, name) VALUES (999, 'later')")

        self.start_runtime()

        self.assertEqual(web.call("GET", f"{self.base_url}/api/v1/internal/runtimes")[0], 200)
        self.assertIn("999", self.log.read_text())

    def test_a_schema_that_is_missing_is_reported_with_its_remedy_and_not_created(self) -> None:
        dsn = self.services.database.dsn.replace("search_path%3Drtmanager", "search_path%3Dmissing")

        with self.assertRaises(RuntimeManagerError) as caught:
            self.start_runtime(POSTGRES_PRIMARY_DSN=dsn)

        self.assertIn("CREATE SCHEMA missing", str(caught.exception))
        self.assertEqual(self.rows("SELECT FROM pg_namespace WHERE nspname = 'missing'"), [])

    def test_a_migration_that_fails_is_reported_and_leaves_the_schema_as_it_was(self) -> None:
        self.begin_anew()
        self.addCleanup(self.begin_anew)
        with self.services.database.connect() as connection:
            connection.execute("CREATE TABLE operation_log (mine int)")

        with self.assertRaises(RuntimeManagerError) as caught:
            self.start_runtime()

        self.assertEqual(len(str(caught.exception).splitlines()), 1)
        self.assertIn("operation_log", str(caught.exception))
        tables = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'rtmanager'")
        self.assertEqual(tables, [{"tablename": "operation_log"}])

    def test_a_dsn_as_the_neighbours_write_it_is_understood(self) -> None:
        postgres, database = self.services.postgres, self.services.database
        where = f"rtmanagerservice:rtmanagerservice@{postgres.host}:{postgres.port}/{database.name}"
        for dsn in (f"postgres://{where}?search_path=rtmanager&sslmode=disable", f"postgresql://{where}"):
            with self.subTest(dsn):
                self.start_runtime(POSTGRES_PRIMARY_DSN=dsn)
                self.assertEqual(web.call("GET", f"{self.base_url}/api/v1/internal/runtimes")[0], 200)

    def test_two_instances_start_at_once_on_an_empty_database_and_share_the_work(self) -> None:
        self.begin_anew()
        with ThreadPoolExecutor(2) as threads:
            starts = [threads.submit(self.start_runtime) for _ in range(2)]
        for start in starts:
            self.assertEqual(web.call("GET", f"{start.result().base_url}/healthz")[0], 200)

        games = [f"{self.game_id}-{number}" for number in range(3)]
        for game_id in games:
            self.add_start_job(game_id=game_id)

        self.assertEqual(sorted(each["game_id"] for each in self.results(3)), games)
        self.assertEqual([len(self.containers(game_id)) for game_id in games], [1] * 3)

    def test_of_two_migrations_at_once_one_does_it_and_the_other_finds_it_done(self) -> None:
        from rtmanager.adapters.postgres.schema import known_migrations

        self.begin_anew()

        ended = self.commands("migrate", self.environment(), self.environment())

        self.assertEqual([code for code, _ in ended], [0, 0])
        outputs = sorted(output for _, output in ended)
        applied = f"applied: {', '.join(each.name for each in known_migrations())}\n"
        self.assertEqual(outputs, [applied, "nothing to apply, the schema is up to date\n"])
