"""Real failures of PostgreSQL: restarted, killed, read-only, out of connections, full, locked, failed over, restored.

Each test breaks its own server and checks the invariants: each job has one answer, a running game is not touched,
unwritten data waits. Where PostgreSQL has lost committed data, an invariant cannot hold, and the test states exactly
what is lost.
"""

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

from harness import Database, Postgres, faults, start_postgres, start_services, web
from harness.rtm import RUNTIME_MANAGER
from integration.support import servers
from integration.support.failing import FailingPostgresTestCase
from integration.support.found import FoundTestCase

OURS = "SELECT FROM pg_stat_activity WHERE application_name = 'rtmanager'"

#: The number of free connections, without a superuser's three.
FREE = """
    SELECT current_setting('max_connections')::int - 3 - count(*)
    FROM pg_stat_activity WHERE backend_type = 'client backend'"""


def setUpModule() -> None:
    start_services()


class Restarted(FailingPostgresTestCase):
    """It becomes unreachable during work and returns with all committed data."""

    def setUp(self) -> None:
        super().setUp()
        self.set_for_all(synchronous_commit="on")
        self.docker_proxy = self.before_docker()

    def assert_kept_through(self, outage: Callable[[], object]) -> None:
        self.start_runtime(DOCKER_HOST=self.docker_proxy.url)
        [creation] = self.docker_proxy.hold("/containers/create")
        self.add_start_job()
        self.assertTrue(creation.arrived.wait(30), "the game was not to be started")
        submitted = [self.submit(f"before-{number}") for number in range(20)]

        outage()
        creation.release()

        self.wait_for_answers(self.game_id, *submitted)
        self.assert_serves()
        self.assert_runs(self.containers()[0]["Id"])
        self.assertEqual([row["outcome"] for row in self.log_rows()], ["success"])

    def test_restarted_while_jobs_run_it_costs_none(self) -> None:
        self.assert_kept_through(lambda: self.services.postgres.container.restart(10))

    def test_killed_while_jobs_run_it_costs_none_and_the_outage_is_reported(self) -> None:
        def kill() -> None:
            postgres = self.services.postgres.container
            postgres.kill()
            self.wait_until_logged("dependency does not answer", "dependency=postgres")
            self.wait_until_readyz_reports("postgres")
            postgres.restart()

        self.assert_kept_through(kill)
        self.wait_until_logged("worker is back")

    def test_sessions_that_are_ended_again_and_again_cost_no_job(self) -> None:
        def end_some() -> None:
            for _ in range(10):
                self.end_sessions()
                self.wait_until("sessions", lambda: self.rows(OURS))

        self.assert_kept_through(end_some)


class Refusing(FailingPostgresTestCase):
    """It answers, and rejects the statements."""

    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()
        self.game = self.start_game()
        self.wait_for_answers(self.submit())

    def assert_away_until(self, mend: Callable[[], object], *texts: str) -> None:
        """It counts as unavailable for every requester; jobs wait in Redis, and no record changes."""
        waits = self.submit("waits")
        self.wait_until_logged("dependency does not answer", "worker=ingest", "dependency=postgres", *texts)
        self.wait_until_readyz_reports("postgres", *texts)
        answer = self.call("POST", "/stop", {"reason": "finished"})
        self.assertIn("postgres", self.refused(answer, 503, "service_unavailable"))
        self.assertEqual(self.answers(waits), [0])

        mend()

        self.wait_for_answers(waits)
        self.assert_serves()
        self.assert_runs(self.game)

    def test_read_only_by_default_it_is_written_all_the_same(self) -> None:
        self.set_for_all(default_transaction_read_only="on")
        self.assert_serves()
        self.end_sessions()
        self.assert_serves()
        self.assert_runs(self.game)

    def test_out_of_connections_it_is_reported_and_jobs_wait_until_there_is_one(self) -> None:
        with ExitStack() as others:
            self.way.refuse()
            # One connection that counts, and stays open: a closed connection is still counted for a moment.
            counting = others.enter_context(self.database.connect())
            while (counting.execute(FREE).fetchone() or (0,))[0] > 0:
                others.enter_context(self.database.connect())
            self.way.pass_on()
            self.assert_away_until(others.close, "connection slots")

    def test_a_limit_of_the_role_is_reported_and_jobs_wait_until_it_is_lifted(self) -> None:
        self.administer("ALTER ROLE rtmanagerservice CONNECTION LIMIT 0")
        self.end_sessions()
        mend = "ALTER ROLE rtmanagerservice CONNECTION LIMIT -1"
        self.assert_away_until(lambda: self.administer(mend), "too many connections for role")

    def test_a_password_that_changed_is_reported_without_it_and_jobs_wait_until_it_fits(self) -> None:
        self.administer("ALTER ROLE postgres PASSWORD 'postgres'", "ALTER ROLE rtmanagerservice PASSWORD 'new'")
        demand = "echo host all all all scram-sha-256 > $PGDATA/pg_hba.conf"
        self.assertEqual(self.services.postgres.container.exec(["sh", "-c", demand])[0], 0)
        self.administer("SELECT pg_reload_conf()")
        self.end_sessions()

        mend = "ALTER ROLE rtmanagerservice PASSWORD 'rtmanagerservice'"
        self.assert_away_until(lambda: self.administer(mend), "password authentication failed")

    def test_a_table_that_is_missing_is_reported_as_an_answer(self) -> None:
        self.administer("ALTER TABLE rtmanager.operations RENAME TO away")
        mend = "ALTER TABLE rtmanager.away RENAME TO operations"
        self.assert_away_until(lambda: self.administer(mend), 'refuses: relation "operations" does not exist')

    def test_a_table_that_somebody_locks_is_reported_and_jobs_wait_until_it_is_free(self) -> None:
        with self.database.connect() as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE operations IN ACCESS EXCLUSIVE MODE")
            self.assert_away_until(lambda: other.execute("ROLLBACK"), "statement timeout")

    def test_a_lock_that_stops_only_ends_is_reported_and_no_operation_is_begun_again(self) -> None:
        with self.database.connect() as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE outbox IN SHARE MODE")
            waits = self.submit("waits")
            self.wait_until_logged("operations wait for postgres", "statement timeout", "pg_blocking_pids")
            self.wait_until_readyz_reports("postgres", "statement timeout", "pg_blocking_pids")
            self.assertEqual({row["generation"] for row in self.rows("SELECT generation FROM operations")}, {1})
            other.execute("ROLLBACK")
        self.wait_for_answers(waits)
        self.assert_serves()
        self.assertFalse(self.lines_logged("took over"))

    def test_a_lock_that_stops_only_what_follows_containers_is_reported_and_a_lost_one_is_disposed_later(self) -> None:
        with self.database.connect() as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE runtime_records IN SHARE MODE")
            self.docker.remove_container(self.game, force=True)
            self.wait_until_logged("games to reconcile wait for postgres", "statement timeout", "pg_blocking_pids")
            self.wait_until_readyz_reports("postgres", "statement timeout")
            other.execute("ROLLBACK")
        self.wait_until("the record to follow", lambda: self.record()["status"] == "removed")
        self.assert_serves()

    def test_a_rule_that_resembles_silence_for_some_games_stops_no_other(self) -> None:
        self.administer(
            "CREATE FUNCTION public.odd() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
            "IF NEW.game_id LIKE 'slow-%' THEN PERFORM pg_sleep(60); "
            "ELSIF NEW.game_id LIKE 'ended-%' THEN PERFORM pg_terminate_backend(pg_backend_pid()); "
            "ELSIF NEW.game_id LIKE 'full-%' THEN RAISE EXCEPTION 'quota' USING ERRCODE = '53400'; "
            "END IF; RETURN NULL; END $$",
            "CREATE TRIGGER odd AFTER INSERT ON rtmanager.operations FOR EACH ROW EXECUTE FUNCTION public.odd()",
        )
        odd = []
        for name in ("slow", "ended", "full"):
            odd.append(self.submit(name))
            self.wait_for_answers(self.submit(f"not-{name}"))
            self.wait_until_logged("entry waits", odd[-1])
        self.wait_until_readyz_reports("postgres", "is not taken over, though others are")
        self.assertEqual(self.answers(*odd), [0, 0, 0])
        self.administer("DROP FUNCTION public.odd CASCADE")
        self.wait_until("their answers", lambda: all(self.answers(*odd)), timeout_s=90)
        self.assertEqual(self.answers(*odd), [1, 1, 1])
        self.assert_serves()

    def test_a_foreign_session_that_holds_a_turn_is_named_and_jobs_wait_until_it_gives_it_back(self) -> None:
        for turn in ("ingest", "outbox"):
            with self.subTest(turn), self.database.connect() as other:
                other.execute("SELECT pg_advisory_lock(hashtext(%s))", (f"rtmanager.{turn}",))
                waits = self.submit(f"waits-for-{turn}")
                texts = f"session {other.info.backend_pid} ", "holds the lease", "pg_terminate_backend"
                self.wait_until_logged("dependency does not answer", f"worker={turn}", *texts)
                self.wait_until_readyz_reports("postgres", *texts)
                self.assertEqual(self.answers(waits), [0])
            self.wait_for_answers(waits)
            self.assert_serves()


class RefusingCalls(FailingPostgresTestCase):
    """It answers, and rejects the statements of requests and reads, for one game or for all."""

    def setUp(self) -> None:
        super().setUp()
        self.start_runtime(RECONCILE_INTERVAL="1h", INSPECT_INTERVAL="1h")
        self.game = self.start_game()

    def assert_each_refused(self, kind: str, *texts: str) -> None:
        """A restart is rejected as for any game, and the answer names the reason."""
        for _ in range(2):
            message = self.refused(self.call("POST", "/restart", {}), 503, "service_unavailable")
            self.assertIn(texts[0], message)
        self.wait_until_readyz_reports(f"the store refuses every {kind}", "remedy: ", *texts)
        self.assertEqual(len(self.lines_logged("the store refuses every request of a kind", *texts)), 1)
        self.assertEqual(len(self.lines_logged(f"the store refuses a request: {kind}")), 1)
        metrics = web.text(f"{self.base_url}/metrics")
        self.assertIn('rtmanager_worker_failures_total{worker="http"} 2', metrics)

    def test_a_rule_against_every_call_is_reported_until_it_is_gone(self) -> None:
        rule = "ALTER TABLE operations ADD CONSTRAINT jobs_only CHECK (stream IS NOT NULL) NOT VALID"
        self.administer(rule)
        self.assert_each_refused("restart", "jobs_only")
        self.wait_for_answers(self.submit())
        self.administer("ALTER TABLE operations DROP CONSTRAINT jobs_only")
        self.wait_until_ready()
        self.post("restart", {})

    def test_a_rule_against_one_game_is_an_error_of_its_calls_alone(self) -> None:
        rule = f"CHECK (game_id <> '{self.game_id}') NOT VALID"
        self.administer(f"ALTER TABLE operations ADD CONSTRAINT not_this_one {rule}")
        message = self.refused(self.call("POST", "/restart", {}), 500, "internal_error")
        self.assertIn("not_this_one", message)
        self.wait_until_logged("the store refuses a request: restart")
        self.assert_serves()
        self.assertFalse(self.lines_logged("the store refuses every request"))

    def test_a_rule_about_names_that_the_probe_breaks_is_none_against_every_call(self) -> None:
        self.wait_for_answers(self.submit())
        start = self.game_id[:4]
        rule = f"CHECK (left(game_id, 4) IN ('{start}', 'nobo') AND game_id <> '{self.game_id}') NOT VALID"
        self.administer(f"ALTER TABLE operations ADD CONSTRAINT names {rule}")
        self.refused(self.call("POST", "/restart", {}), 500, "internal_error")
        self.wait_until_ready()

    def test_a_trigger_that_drops_calls_is_reported(self) -> None:
        self.administer(
            "CREATE FUNCTION public.drop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF NEW.stream IS NULL THEN RETURN NULL; END IF; RETURN NEW; END $$",
            "CREATE TRIGGER dropping BEFORE INSERT ON operations FOR EACH ROW EXECUTE FUNCTION public.drop()",
        )
        message = self.refused(self.call("POST", "/restart", {}), 503, "service_unavailable")
        self.assertIn("dropped rows", message)
        self.wait_until_readyz_reports("dropping", "every restart")

    def test_a_read_of_every_game_that_is_refused_is_reported_until_it_is_not(self) -> None:
        for path, change in {
            "/health": "last_exits RENAME COLUMN exit_code TO",
            "/operations": "operation_log RENAME COLUMN error_message TO",
        }.items():
            with self.subTest(path):
                self.administer(f"ALTER TABLE {change} other")
                message = self.refused(self.call("GET", path), 503, "service_unavailable")
                self.assertIn("does not exist", message)
                self.wait_until_readyz_reports(f"every read of {path[1:]}", "does not exist", "remedy: ")
                self.wait_until_logged(f"the store refuses a request: read of {path[1:]}")
                parts = change.split()
                self.administer(f"ALTER TABLE {parts[0]} RENAME COLUMN other TO {parts[3]}")
                self.wait_until_ready()
                self.succeed(self.call("GET", path))

    def test_columns_of_text_may_have_another_type_of_text(self) -> None:
        self.post("stop", {"reason": "finished"})
        columns = self.rows(
            "SELECT table_name, column_name FROM information_schema.columns WHERE data_type = 'text' "
            "AND table_schema = 'rtmanager' AND table_name <> 'schema_migrations'"
        )
        self.administer(
            *(f"ALTER TABLE {each['table_name']} ALTER {each['column_name']} TYPE varchar(9000)" for each in columns)
        )
        # A session's cached plan does not survive the change.
        self.end_sessions()
        self.wait_until_ready()
        self.post("restart", {})
        self.post("stop", {"reason": "finished"})
        self.assert_serves()


class Prepared(FailingPostgresTestCase):
    """A forgotten prepared transaction: it holds locks, and no session does."""

    def start_server(self) -> Postgres:
        return start_postgres(settings={"max_prepared_transactions": "10"})

    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()
        self.wait_for_answers(self.submit())

    def test_one_that_holds_a_turn_is_named_with_its_rollback_also_after_a_restart(self) -> None:
        for turn in ("ingest", "outbox"):
            with self.subTest(turn):
                name = f"it's {turn}"
                quoted = name.replace("'", "''")
                lock = f"SELECT pg_advisory_xact_lock(hashtext('rtmanager.{turn}'))"
                self.administer("BEGIN", lock, f"PREPARE TRANSACTION '{quoted}'")
                if turn == "outbox":
                    self.services.postgres.container.restart(10)
                    self.wait_until("the server", self.answers_again)
                waits = self.submit(f"waits-for-{turn}")
                texts = f'prepared transaction "{name}"', "prepared at 2", f"ROLLBACK PREPARED '{quoted}'"
                self.wait_until_readyz_reports(*texts)
                self.wait_until_logged("dependency does not answer", f"worker={turn}", "prepared transaction")
                self.assertEqual(self.answers(waits), [0])
                self.administer(f"ROLLBACK PREPARED '{quoted}'")
                self.wait_for_answers(waits)
                self.assert_serves()

    def test_one_that_locks_a_table_is_in_what_the_remedy_recommends(self) -> None:
        lock = "LOCK TABLE operations IN ACCESS EXCLUSIVE MODE"
        self.administer("BEGIN", lock, "PREPARE TRANSACTION 'forgotten'")
        waits = self.submit("waits")
        self.wait_until_readyz_reports("statement timeout", "who holds a lock: ")
        query = re.search("SELECT pid.*current_database[(][)]", self.readyz())
        assert query is not None
        shown = {row["query"] for row in self.rows(query[0])}
        self.assertIn("ROLLBACK PREPARED 'forgotten'", shown)
        self.administer("ROLLBACK PREPARED 'forgotten'")
        self.wait_for_answers(waits)
        self.assert_serves()


class Unfinished(FailingPostgresTestCase, FoundTestCase):
    """It answers, and completes no commit: it waits for a standby that does not exist."""

    def setUp(self) -> None:
        super().setUp()
        self.set_for_all(wal_level="replica", max_wal_senders="4", synchronous_commit="on")
        self.services.postgres.container.restart()
        self.wait_until("the server", self.answers_again)

    def wait_for_nobody(self) -> None:
        """Make every commit wait from now on."""
        self.administer("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
        # The checkpointer puts it into force, which takes a while on a busy machine.
        self.wait_until("a commit to wait", self.commit_waits)

    def commit_waits(self) -> bool:
        """Whether a commit waits for the standby; its session is ended."""
        with closing(self.database.connect()) as connection:
            connection.pgconn.send_query(b"SELECT pg_logical_emit_message(true, 'commit', '')")
            time.sleep(0.2)
            pid = connection.info.backend_pid
            ended = self.rows(f"SELECT wait_event, pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = {pid}")
        return [each["wait_event"] for each in ended] == ["SyncRep"]

    def mend(self) -> None:
        self.administer("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")

    def waiting(self) -> int:
        """How many sessions wait for the standby."""
        return len(self.rows("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))

    def test_check_and_serve_name_the_standby_and_leave_no_session_behind(self) -> None:
        self.administer(
            "CREATE ROLE login LOGIN IN ROLE rtmanagerservice", "ALTER ROLE login SET role = 'rtmanagerservice'"
        )
        self.wait_for_nobody()
        dsn = self.environment()["RTMANAGER_POSTGRES_PRIMARY_DSN"]
        for each in (dsn, dsn.replace("rtmanagerservice", "login")):
            changes = {"POSTGRES_PRIMARY_DSN": each, "SILENCE_TIMEOUT": "2s"}
            self.assert_unfit("synchronous_standby_names is 'nobody'", "take it out", **changes)
            self.wait_until("their sessions to end", lambda: not self.waiting())
        self.mend()
        self.assert_fit("postgres")

    def test_readiness_names_it_sessions_do_not_pile_up_and_jobs_wait(self) -> None:
        self.start_runtime(SILENCE_TIMEOUT="2s", POSTGRES_POOL_SIZE="4")
        game = self.start_game()
        self.wait_for_nobody()
        waits = [self.submit(f"waits-{number}") for number in range(20)]
        self.wait_until_readyz_reports("synchronous_standby_names is 'nobody'")
        most = 0
        for _ in range(40):
            time.sleep(0.5)
            most = max(most, self.waiting())
            self.readyz()
        # Twice the sessions of pool, session lock and readiness: those that wait, and those that are terminated.
        self.assertLessEqual(most, 2 * (4 + 3))
        self.assertEqual(self.answers(*waits), [0] * 20)

        self.mend()

        self.wait_for_answers(*waits)
        self.assert_serves()
        self.assert_runs(game)


class Full(FailingPostgresTestCase):
    """Its disk is full."""

    def start_server(self) -> Postgres:
        return servers.on_small_disk()

    def test_a_full_disk_is_reported_and_what_could_not_be_written_is_written_when_there_is_room(self) -> None:
        self.start_runtime()
        game = self.start_game()
        self.wait_for_answers(self.submit())
        ballast = f"{servers.SMALL}/ballast"
        self.services.postgres.container.exec(["dd", "if=/dev/zero", f"of={ballast}", "bs=8k"])
        submitted = [self.submit(f"waits-{number}") for number in range(150)]
        self.wait_until_logged("dependency does not answer", "dependency=postgres", "No space left on device")
        self.wait_until_readyz_reports("postgres")

        self.services.postgres.container.exec(["rm", ballast])

        self.wait_for_answers(*submitted)
        self.assert_serves()
        self.assert_runs(game)


class FailedOver(FailingPostgresTestCase, FoundTestCase):
    """A failover: the manager's address leads to the other of two servers."""

    def setUp(self) -> None:
        super().setUp()
        self.primary = self.services.postgres
        self.set_for_all(wal_level="replica", max_wal_senders="4", synchronous_commit="on")
        self.primary.container.restart()
        self.wait_until("the primary", self.answers_again)
        self.line = self.own(faults.before((self.primary.host, self.primary.port)))
        self.standby = self.own(servers.hot_standby(self.line))

    def copied(self) -> bool:
        """Whether the standby has all that the primary has now."""
        [row] = self.rows("SELECT pg_current_wal_flush_lsn()::text AS wal")
        with self.standby.maintain() as connection:
            found = connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [row["wal"]]).fetchone()
        return bool(found and found[0])

    def query_standby(self) -> None:
        """Use the standby for the test's own queries from now on."""
        self.use(self.standby, Database(self.standby, self.database.name, RUNTIME_MANAGER))

    def lead_to_standby(self) -> None:
        """Make the address lead to the standby from now on, for the test, too."""
        self.query_standby()
        self.way.lead_to((self.standby.host, self.standby.port))
        self.way.cut()

    def test_a_standby_behind_the_address_is_reported_and_jobs_wait_until_it_is_promoted(self) -> None:
        self.start_runtime()
        game = self.start_game()
        self.wait_until("the copy", self.copied)
        self.lead_to_standby()
        code, output = self.check()
        self.assertEqual((code, "is a standby" in output, "name the primary" in output), (1, True, True), output)
        waits = self.submit("waits")
        self.wait_until_logged("dependency does not answer", "worker=ingest", "read-only")
        self.wait_until_readyz_reports("read-only")
        self.assertEqual(self.answers(waits), [0])

        self.administer("SELECT pg_promote()")

        self.wait_for_answers(waits)
        self.assert_serves()
        self.assert_runs(game)

    def test_jobs_that_a_failover_has_lost_are_read_again_and_answered_at_least_once(self) -> None:
        docker = self.before_docker()
        self.start_runtime(DOCKER_HOST=docker.url)
        self.add_start_job()
        known = self.submit("known")
        self.wait_for_answers(self.game_id, known)
        game = self.record()["current_container_id"]
        self.wait_until_all_is_published()
        self.wait_until("the copy", self.copied)
        self.line.black_hole()
        answered = self.submit("told")
        self.wait_for_answers(answered)
        [creation] = docker.hold("/containers/create")
        other = f"other-{self.game_id[-10:]}"
        self.add_start_job(game_id=other)
        self.assertTrue(creation.arrived.wait(30), "the game was not to be started")

        self.primary.container.kill()
        with self.standby.maintain() as connection:
            connection.execute("SELECT pg_promote()")
        self.query_standby()
        self.assertEqual(self.operations(answered, other), [])
        self.lead_to_standby()
        creation.release()

        self.wait_until_logged("entries that were taken over are gone from the database, reading them again")
        self.wait_for_answers(other)
        self.assert_serves()
        self.assert_runs(game)
        self.assertEqual(self.answers(known), [1])
        self.wait_until("the job that is done again", lambda: self.answers(answered) == [2])
        self.assertEqual([each["State"]["Running"] for each in self.containers(other)], [True])


class Restored(FailingPostgresTestCase):
    """It is restored from a backup while everything runs."""

    def back_up(self) -> None:
        self.program("pg_dump", "-Fc", "-f", "/tmp/backup", self.database.name)

    def restore(self) -> None:
        whole = ("--single-transaction", "--clean", "--if-exists")
        self.program("pg_restore", *whole, "-d", self.database.name, "/tmp/backup")

    def test_records_older_than_their_containers_follow_them_and_forgotten_jobs_are_done_again(self) -> None:
        self.start_runtime()
        self.add_start_job()
        known = self.submit("known")
        self.wait_for_answers(self.game_id, known)
        game = self.record()["current_container_id"]
        self.wait_until_all_is_published()
        self.back_up()
        # More leases than the idle relay takes while the restore runs.
        self.administer("SELECT setval('outbox_turn', nextval('outbox_turn') + 10000)")
        other = f"other-{self.game_id[-10:]}"
        self.add_start_job(game_id=other)
        self.wait_for_answers(other)
        other_container = self.record(other)["current_container_id"]
        self.post("stop", {"reason": "finished"})
        answered = [self.submit(f"told-{number}") for number in range(10)]
        self.wait_for_answers(*answered)

        self.restore()

        self.wait_until("the record of the stopped game", lambda: self.record()["status"] == "stopped")
        self.wait_until("the forgotten jobs", lambda: self.answers(other, *answered) == [2] * 11)
        self.wait_until_logged("outbox lease was behind")
        self.assert_serves()
        self.assertEqual(self.answers(known), [1])
        record = self.record(other)
        self.assertEqual((record["status"], record["current_container_id"]), ("running", other_container))
        self.assertEqual(self.record()["current_container_id"], game)
        self.assertEqual(len(self.containers(other)), 1)

    def test_an_operation_that_a_restore_has_forgotten_does_not_end_another_one_under_its_id(self) -> None:
        docker = self.before_docker()
        # The manager's query waits while a restore locks the tables, which takes some time on a busy machine.
        self.start_runtime(DOCKER_HOST=docker.url, SILENCE_TIMEOUT="15s")
        self.wait_for_answers(self.submit())
        self.back_up()
        forgotten, other = (f"{name}-{self.game_id[-10:]}" for name in ("forgotten", "other"))
        creations = docker.hold(*(f"create?name=galaxy-game-{game_id}" for game_id in (forgotten, other)))
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(self.call, "POST", "/start", {"image_ref": self.engine.ref}, game_id=forgotten)
            self.assertTrue(creations[0].arrived.wait(30), "the first game was not to be started")
            [first] = self.operations(forgotten)
            self.restore()
            self.assertIn("set back", self.refused(call.result(), 503, "service_unavailable"))
            self.add_start_job(game_id=other)
            self.assertTrue(creations[1].arrived.wait(30), "the second game was not to be started")
            [second] = self.operations(other)
            self.assertEqual((first["id"], first["generation"]), (second["id"], second["generation"]))

            creations[0].release()
            self.wait_until_logged("operation was taken over, it ends here")
            self.assertEqual(self.operations(other)[0]["state"], "running")
            creations[1].release()

        self.wait_for_answers(other)
        self.assertEqual(self.record(other)["status"], "running")
        self.assertEqual(self.containers(forgotten), [])
