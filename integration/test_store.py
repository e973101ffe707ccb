"""PostgreSQL and Redis fulfil the guarantees that operations and workers rely on: the contract tests of the ports."""

import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from threading import Barrier, Thread
from typing import TYPE_CHECKING, Any, ClassVar

from harness import faults, start_services
from harness.fixtures import services
from harness.fixtures.services import Services
from harness.rtm import MIGRATIONS, RUNTIME_MANAGER
from harness.runs import flag
from harness.waiting import wait_until

flag.check_wanted()  # the imports below take a fifth of the time in which the whole suite is discovered and skipped

from rtmanager.domain.errors import DependencyError, Unavailable  # noqa: E402
from rtmanager.domain.findings import AlarmKind, Finding  # noqa: E402
from rtmanager.domain.jobs import Job  # noqa: E402
from rtmanager.domain.messages import Message, Stream  # noqa: E402
from rtmanager.domain.operation import Completion, OpKind, OpSource  # noqa: E402
from rtmanager.domain.record import Status  # noqa: E402
from rtmanager.ports.store import GameBusy, RecordConflict, StoreRejected  # noqa: E402
from rtmanager.ports.watching import WriteResult  # noqa: E402
from rtmanager.tests import findings_contract, purge_contract, store_contract, streams_contract  # noqa: E402
from rtmanager.tests.findings_contract import LATER, RUNNING, WatchedStoreContract  # noqa: E402
from rtmanager.tests.making import ended, job, log_entry, record, request, start_fields  # noqa: E402

if TYPE_CHECKING:
    from integration.support.stores import StoreInPostgres, StreamsInRedis
    from rtmanager.adapters.postgres.database import Database


def setUpModule() -> None:
    start_services()


class InPostgres(unittest.TestCase):
    """Creates the store of a contract test, in the services of this process; the tests of a class share the pool."""

    services: ClassVar[Services]
    database: "ClassVar[Database]"

    @classmethod
    def setUpClass(cls) -> None:
        from integration.support.stores import migrated

        super().setUpClass()
        cls.services = services.shared(RUNTIME_MANAGER)
        cls.database = migrated(cls.services.database.dsn)
        cls.addClassCleanup(cls.database.close)

    def make(self) -> "StoreInPostgres":
        from integration.support.stores import StoreInPostgres

        self.services.empty(keep=[MIGRATIONS])
        return StoreInPostgres(self.database, {stream: f"test:{stream}" for stream in Stream})


@contextmanager
def refused_at_commit(database: "Database", event: str) -> Iterator[None]:
    """A constraint trigger, deferred to the commit, rejects game g2."""
    function = (
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.game_id = 'g2' THEN RAISE EXCEPTION 'odd'; END IF; RETURN NULL; END $$"
    )
    trigger = (
        f"CREATE CONSTRAINT TRIGGER odd AFTER {event} ON operations DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION odd()"
    )
    with database.transaction("test") as connection:
        connection.execute(function.encode())
        connection.execute(trigger.encode())
    try:
        yield
    finally:
        with database.transaction("test") as connection:
            connection.execute(b"DROP FUNCTION odd CASCADE")


class PostgresRecordsTest(InPostgres, store_contract.RecordsContract):
    pass


class PostgresQueueTest(InPostgres, store_contract.QueueContract):
    pass


class PostgresOwnershipTest(InPostgres, store_contract.OwnershipContract):
    pass


class PostgresEndingTest(InPostgres, store_contract.EndingContract):
    pass


class PostgresInboxTest(InPostgres, store_contract.InboxContract):
    def test_a_foreign_session_that_holds_a_turn_is_named(self) -> None:
        inbox, outbox = self.store.inbox(), self.store.outbox()
        for name, port, take in (("ingest", inbox, inbox.lock), ("outbox", outbox, outbox.lease)):
            with self.subTest(name), self.database.connect() as foreign:
                foreign.execute("SET application_name = 'a tool'")
                foreign.execute("SELECT pg_advisory_lock(hashtext(current_schema() || %s))", (f".{name}",))
                with take() as mine:
                    self.assertIsNone(mine)
                holder = port.holder()
                assert holder is not None
                pid = foreign.info.backend_pid
                self.assertRegex(holder.session, rf"^session {pid} \(application 'a tool', connected since 2.*Z\)$")
                self.assertEqual((holder, holder.like_manager), (port.holder(), False))
                self.assertIn(f"pg_terminate_backend({pid})", holder.remedy)


class PostgresPurgeTest(InPostgres, purge_contract.RowsContract):
    pass


class PostgresImagesTest(InPostgres, purge_contract.ImagesContract):
    pass


class PostgresDaemonsTest(InPostgres, store_contract.DaemonsContract):
    """The contract of the daemon on record."""


class PostgresIntentsTest(InPostgres, store_contract.IntentsContract):
    pass


class PostgresOutboxTest(InPostgres, store_contract.OutboxContract):
    pass


class PostgresFindingsTest(InPostgres, findings_contract.FindingsContract):
    pass


class PostgresAlarmsTest(InPostgres, findings_contract.AlarmsContract):
    pass


class PostgresWatchedRecordsTest(InPostgres, findings_contract.WatchedRecordsContract):
    pass


class PostgresRestartsTest(InPostgres, findings_contract.RestartsContract):
    def test_one_that_postgresql_will_never_take_is_dropped_and_keeps_no_other_from_being_queued(self) -> None:
        with self.database.transaction("test") as connection:
            connection.execute(b"ALTER TABLE operations ADD CONSTRAINT never CHECK (game_id <> 'g2')")
        try:
            self.assert_one_is_dropped()
        finally:
            with self.database.transaction("test") as connection:
                connection.execute(b"ALTER TABLE operations DROP CONSTRAINT never")

    def test_nor_does_one_that_is_refused_at_the_commit(self) -> None:
        with refused_at_commit(self.database, "INSERT"):
            self.assert_one_is_dropped()

    def assert_one_is_dropped(self) -> None:
        for game_id in ("g1", "g2", "g3"):
            self.store.put_record(record(game_id))
            self.crash(game_id)
        refused: list[str] = []
        queued = self.findings.queue_restart(LATER, refused=lambda game_id, _: refused.append(game_id))
        self.assertEqual(({each.game_id for each in queued}, refused), ({"g1", "g3"}, ["g2"]))
        self.assertEqual(list(self.findings.queue_restart(LATER)), [])


class PostgresTurnsTest(InPostgres, findings_contract.TurnsContract):
    pass


class PostgresHistoriesTest(InPostgres, findings_contract.HistoriesContract):
    pass


class AtOnceTest(InPostgres, WatchedStoreContract):
    """Two instances find the same at the same moment."""

    def written_at_once(self, finding: Finding) -> set[WriteResult]:
        together = Barrier(2, timeout=10)

        def write(owner: int) -> WriteResult:
            findings = self.store.findings(owner)
            together.wait()
            return findings.write(finding)

        with ThreadPoolExecutor(2) as threads:
            return set(threads.map(write, (1, 2)))

    def test_a_change_of_the_record_is_written_by_one_and_has_changed_for_the_other(self) -> None:
        for number in range(1, 21):
            self.store.put_record(RUNNING)
            found = self.written_at_once(findings_contract.crashed(restart_at=LATER))
            self.assertEqual(found, {WriteResult.WRITTEN, WriteResult.CHANGED})
            self.assertEqual(len(self.due()), number)
        self.assertEqual(len(self.findings.queue_restart(LATER)), 1)

    def test_an_alarm_is_raised_and_calmed_by_one_and_is_known_to_the_other(self) -> None:
        self.store.put_record(RUNNING)
        for number in range(1, 21):
            for finding in (findings_contract.raising(), findings_contract.calming(restores=True)):
                self.assertEqual(self.written_at_once(finding), {WriteResult.WRITTEN, WriteResult.KNOWN})
            self.assertEqual(len(self.due()), number)

    def test_an_end_that_rests_on_a_record_waits_for_whoever_is_changing_it(self) -> None:
        self.store.put_record(RUNNING)
        queue = self.store.queue(1)
        queue.submit(request("g1"))
        [operation] = queue.claim(1)
        with ThreadPoolExecutor(1) as threads:
            with self.database.transaction("finding") as changing:
                changing.execute("UPDATE runtime_records SET status = 'removed', current_container_id = NULL")
                late = threads.submit(queue.finish, operation, ended(seen=RUNNING))
                waiting = b"SELECT FROM pg_locks WHERE NOT granted"
                wait_until("the end to wait", lambda: self.database.read("waiting", waiting, {}))
            self.assertIsInstance(late.exception(), RecordConflict)

    def test_restarts_that_are_due_are_queued_by_one(self) -> None:
        games = [f"g{number}" for number in range(20)]
        for game_id in games:
            self.store.put_record(record(game_id))
            self.write(findings_contract.crashed(game_id, restart_at=LATER))
        together = Barrier(2, timeout=10)

        def queue(owner: int) -> list[str]:
            findings = self.store.findings(owner)
            together.wait()
            return [request.game_id for request in findings.queue_restart(LATER)]

        with ThreadPoolExecutor(2) as threads:
            first, second = threads.map(queue, (1, 2))
        self.assertEqual(sorted(first + second), sorted(games))

    def test_a_table_of_the_deployment_that_lost_its_key_gets_no_second_row(self) -> None:
        daemons = self.make().daemons()
        known = daemons.deployment_id()
        with self.database.transaction("test") as connection:
            connection.execute(b"ALTER TABLE deployment DROP CONSTRAINT deployment_pkey")
        try:
            self.assertEqual(daemons.deployment_id(), known)
            self.assertEqual(self.database.read("test", b"SELECT id::text FROM deployment", {}), [{"id": known}])
        finally:
            with self.database.transaction("test") as connection:
                connection.execute(b"ALTER TABLE deployment ADD PRIMARY KEY (only_row)")

    def test_instances_that_start_on_an_emptied_table_agree_on_the_deployment(self) -> None:
        from rtmanager.adapters.postgres.daemon import PostgresDaemons

        for _ in range(10):
            self.services.empty(keep=[MIGRATIONS])
            together = Barrier(6, timeout=10)

            def read(_number: int, together: Barrier = together) -> str:
                together.wait()
                return PostgresDaemons(self.database).deployment_id()

            with ThreadPoolExecutor(6) as threads:
                self.assertEqual(len(set(threads.map(read, range(6)))), 1)

    def test_a_turn_is_taken_by_one(self) -> None:
        together = Barrier(2, timeout=10)

        def take(owner: int) -> bool:
            leases = self.store.findings(owner)
            together.wait()
            return leases.mine("probe", 30)

        with ThreadPoolExecutor(2) as threads:
            self.assertEqual(sorted(threads.map(take, (1, 2))), [False, True])


class OddRowsTest(InPostgres):
    """An invalid row of another writer affects only that row."""

    def test_a_row_of_the_queue_that_cannot_be_read_is_refused_in_its_turn_and_others_are_claimed(self) -> None:
        store = self.make()
        queue = store.queue(1)
        oddities = {
            "a": "accepted_at = 'infinity'",
            "b": "accepted_at = '4000-01-01 BC'",
            "c": "source = 'somebody'",
            "d": "problem_code = 'no_code'",
            "e": "deferrals = 7",
        }
        for game_id, oddity in oddities.items():
            queue.submit(request(game_id))
            with self.database.transaction("test") as connection:
                connection.execute(f"UPDATE operations SET {oddity} WHERE game_id = '{game_id}'".encode())
        claimed = queue.claim(10)
        self.assertCountEqual([operation.game_id for operation in claimed], oddities)
        for operation in claimed:
            problem = operation.request.problem
            self.assertEqual(problem is not None, operation.game_id in "abcd")
            queue.finish(operation, ended())
        self.assertEqual(queue.claim(10), [])

    def test_a_rule_against_one_operation_stops_no_other(self) -> None:
        store = self.make()
        queue = store.queue(1)
        games = [f"g{number}" for number in range(6)]
        for game_id in games:
            queue.submit(request(game_id))
        with self.database.transaction("test") as connection:
            connection.execute(b"ALTER TABLE operations ADD CONSTRAINT odd CHECK (game_id <> 'g2') NOT VALID")
        try:
            claimed = [each for _ in range(3) for each in queue.claim(2)]
            self.assertEqual(sorted(each.game_id for each in claimed), ["g0", "g1", "g3", "g4", "g5"])
            self.assertIn("odd", str(queue.refused["claim"]))
            self.assertEqual(len(queue.heartbeat(claimed)), 5)
        finally:
            with self.database.transaction("test") as connection:
                connection.execute(b"ALTER TABLE operations DROP CONSTRAINT odd")
        self.assertEqual([each.game_id for each in queue.claim(9)], ["g2"])
        self.assertEqual(queue.refused, {})

    def test_a_rule_that_is_deferred_to_the_commit_refuses_one_entry_and_no_other(self) -> None:
        store = self.make()
        jobs = [job(Stream.START_JOBS, number, start_fields(f"g{number}")) for number in (1, 2, 3)]
        with refused_at_commit(self.database, "INSERT"):
            with self.assertRaisesRegex(StoreRejected, "odd"), store.inbox().lock() as lock:
                assert lock is not None
                lock.accept(jobs)
            with store.inbox().lock() as lock:
                assert lock is not None
                lock.accept_alone(jobs[0])
                with self.assertRaisesRegex(StoreRejected, "odd"):
                    lock.accept_alone(jobs[1])
                lock.accept_alone(jobs[2])
            self.assertCountEqual([each.game_id for each in store.queue(1).claim(9)], ["g1", "g3"])

    def test_what_stands_against_each_operation_is_distinguished_from_what_stands_against_one(self) -> None:
        store = self.make()
        # The change, its reversal, and why no operation is claimed; empty where others are.
        changes = (
            ("ALTER COLUMN id RESTART WITH 1", "ALTER COLUMN id RESTART WITH 1000", "gives 1 as the next id"),
            ("RENAME COLUMN reason TO why", "RENAME COLUMN why TO reason", '"reason"'),
            ("ADD new text CHECK (new <> '') DEFAULT 'new'", "DROP COLUMN new", ""),
            ("ADD CONSTRAINT odd CHECK (entry_rank < 0) NOT VALID", "DROP CONSTRAINT odd", "violates check"),
            ("ADD CONSTRAINT odd CHECK (game_id <> 'odd')", "DROP CONSTRAINT odd", ""),
            ("ADD CONSTRAINT odd CHECK (game_id LIKE 'g%')", "DROP CONSTRAINT odd", ""),
            ("ADD CONSTRAINT odd UNIQUE (game_id)", "DROP CONSTRAINT odd", ""),
            (
                "ALTER COLUMN id DROP IDENTITY",
                "ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (START WITH 1000)",
                "nothing gives the rows",
            ),
        )
        odd = job(Stream.START_JOBS, 9, start_fields("odd"))
        with store.inbox().lock() as lock:
            assert lock is not None
            lock.accept([job(Stream.START_JOBS, number, start_fields(f"g{number}")) for number in range(3)])
        for change, undo, why in changes:
            with self.subTest(change):
                self.alter(change)
                try:
                    before = self.database.read("test", b"SELECT count(*) FROM operations", {})
                    refused = self.assertRaisesRegex(StoreRejected, why) if why else nullcontext()
                    with refused, store.inbox().lock() as lock:
                        assert lock is not None
                        lock.require_room(odd)
                    self.assertEqual(self.database.read("test", b"SELECT count(*) FROM operations", {}), before)
                finally:
                    self.alter(undo)

    def alter(self, change: str) -> None:
        with self.database.transaction("test") as connection:
            connection.execute(f"ALTER TABLE operations {change}".encode())

    def test_a_rule_that_is_deferred_to_the_commit_refuses_one_end_and_no_other(self) -> None:
        queue = self.make().queue(1)
        for game_id in ("g1", "g2", "g3"):
            queue.submit(request(game_id))
        claimed = sorted(queue.claim(9), key=lambda each: each.game_id)
        with refused_at_commit(self.database, "UPDATE"):
            with self.assertRaisesRegex(StoreRejected, "odd"):
                queue.finish_together([(each, ended()) for each in claimed])
            for each, refused in zip(claimed, (False, True, False), strict=True):
                with self.assertRaisesRegex(StoreRejected, "odd") if refused else nullcontext():
                    queue.finish(each, ended())
        self.assertEqual(queue.heartbeat(claimed), {claimed[1].operation_id})

    def test_a_running_row_that_the_store_refuses_costs_no_other_its_claim(self) -> None:
        store = self.make()
        queue = store.queue(1)
        for game_id in ("g1", "g2", "g3"):
            queue.submit(request(game_id))
        claimed = queue.claim(9)
        store.pass_time(10)
        with self.database.transaction("test") as connection:
            connection.execute(b"ALTER TABLE operations ADD CONSTRAINT odd CHECK (game_id <> 'g2') NOT VALID")
        try:
            alive = queue.heartbeat(claimed)
            self.assertEqual({each.game_id for each in claimed if each.operation_id in alive}, {"g1", "g3"})
            store.queue(2).hand_back()  # it owns nothing, so nothing is rejected
            self.assertEqual(queue.reclaim_orphans([]), [], "what was alive just now is no orphan")
            with self.database.transaction("test") as connection:
                connection.execute(b"UPDATE operations SET heartbeat_at = '2026-01-01' WHERE game_id <> 'g2'")
            found = queue.reclaim_orphans([])
            self.assertEqual(sorted(each.game_id for each in found), ["g1", "g3"])
            self.assertIn("odd", str(queue.refused["reclaim"]))
        finally:
            with self.database.transaction("test") as connection:
                connection.execute(b"ALTER TABLE operations DROP CONSTRAINT odd")
        self.assertEqual([each.game_id for each in queue.reclaim_orphans([])], ["g2"])
        self.assertEqual(queue.refused, {})

    def test_a_running_row_that_somebody_locks_costs_no_other_its_heartbeat(self) -> None:
        store = self.make()
        queue, other = store.queue(1), store.queue(2)
        for game_id in ("g1", "g2", "g3"):
            queue.submit(request(game_id))
        claimed = queue.claim(9)
        locked = next(each for each in claimed if each.game_id == "g2")
        lost = replace(claimed[0], generation=7)
        with self.database.transaction("test") as connection:
            connection.execute(b"UPDATE operations SET heartbeat_at = '2026-01-01'")
        with self.database.connect() as person, person.transaction():
            person.execute(b"SELECT FROM operations WHERE game_id = 'g2' FOR UPDATE")
            alive = queue.heartbeat([*claimed, lost], skip_locked=True)
            self.assertEqual(alive, {each.operation_id for each in claimed})
            self.assertEqual(other.reclaim_orphans(by_presence=False), [])
            # The check before a container is touched needs the row, and so waits.
            with self.assertRaises(Unavailable):
                queue.heartbeat([locked])
        (orphan,) = other.reclaim_orphans(by_presence=False)
        self.assertEqual(orphan.operation_id, locked.operation_id)
        self.assertNotIn(locked.operation_id, queue.heartbeat(claimed, skip_locked=True))

    def test_a_moment_that_python_cannot_hold_hides_no_record(self) -> None:
        store = self.make()
        moments = {"a": "infinity", "b": "-infinity", "c": "20000-01-01", "d": "0044-03-15 BC", "e": "2026-01-01"}
        for game_id, moment in moments.items():
            store.put_record(record(game_id))
            with self.database.transaction("test") as connection:
                connection.execute(
                    b"UPDATE runtime_records SET started_at = %s, last_op_at = %s WHERE game_id = %s",
                    (moment, moment, game_id),
                )
        found = store.records().page(status=None, after=None, limit=10)
        self.assertEqual([each.game_id for each in found], list(moments))
        years = [each.last_op_at.year for each in found]
        self.assertEqual(years, [9999, 1, 9999, 1, 2026])

    def test_what_postgres_rejects_is_refused_and_what_it_cannot_do_now_is_silence(self) -> None:
        from rtmanager.adapters.postgres.answers import SILENCE

        self.make()
        raises = "DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{}'; END $$"
        silent = {"08006", "25006", "25P03", "28P01", "3D000", "3F000", "42P01", "40001", "40P01", "53300", "53100"}
        silent |= {"25P04", "53200", "55006", "55P03", "57P01", "57P03", "57014", "58030", "F0000"}
        self.assertEqual({next(each for each in SILENCE if state.startswith(each)) for state in silent}, set(SILENCE))
        final = {"22021", "22P02", "23505", "23514", "P0001", "42501", "42703", "42883", "54000", "0A000", "XX000"}
        for state in sorted(silent | final):
            with self.subTest(state), self.assertRaises((Unavailable, StoreRejected)) as caught:
                self.database.write("claim", raises.format(state).encode(), {})
            self.assertIsInstance(caught.exception, Unavailable if state in silent else StoreRejected)
        self.assertEqual(self.database.read("now", b"SELECT 1 AS one", {}), [{"one": 1}])

    def test_what_psycopg_cannot_send_or_read_is_no_silence(self) -> None:
        self.make()
        values: tuple[object, ...] = ("a\0b", "\udcff", object(), [1, "a"])
        for value in values:
            with self.subTest(repr(value)), self.assertRaises(StoreRejected):
                self.database.write("claim", b"SELECT %(value)s::text", {"value": value})
        for statement in (b"SELECT 'infinity'::date", b"SELECT %(missing)s", b"no SQL"):
            with self.subTest(statement), self.assertRaises(StoreRejected):
                self.database.read("now", statement, {})


DROPS = """
    CREATE FUNCTION {table}_drops() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER drops BEFORE INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION {table}_drops()"""


class DroppingTest(InPostgres, WatchedStoreContract):
    """A foreign trigger drops rows while PostgreSQL reports success: that counts as a rejection."""

    def run_sql(self, text: str) -> None:
        with self.services.database.connect() as connection:
            connection.execute(text.encode())

    @contextmanager
    def dropping(self, table: str) -> Iterator[None]:
        self.run_sql(DROPS.format(table=table))
        try:
            yield
        finally:
            self.run_sql(f"DROP FUNCTION {table}_drops() CASCADE")

    def assert_refused(self, table: str, act: Callable[[], object]) -> None:
        """`act` is rejected with the table's name while the table drops rows, and succeeds after that."""
        with self.subTest(table):
            with self.dropping(table), self.assertRaisesRegex(StoreRejected, f"dropped rows .*{table}.*trigger"):
                act()
            act()

    def accept(self, *jobs: Job) -> None:
        with self.store.inbox().lock() as lock:
            assert lock is not None
            lock.accept(jobs)

    def test_no_entry_is_taken_for_accepted(self) -> None:
        one, two, letter = job(Stream.START_JOBS, 1), job(Stream.STOP_JOBS, 2), job(Stream.STOP_JOBS, 3, {"a": "b"})
        self.assert_refused("operations", lambda: self.accept(one, two))
        self.assert_refused("dead_letters", lambda: self.accept(two, letter))
        self.accept(one, two, letter)
        with self.dropping("operations"), self.dropping("dead_letters"):
            self.accept(one, two, letter)  # all of these are known, so nothing is written
            for more in (job(Stream.STOP_JOBS, 1), job(Stream.START_JOBS, 1, start_fields("g2"))):
                with self.assertRaises(StoreRejected):
                    self.accept(one, more, two)
        again = job(Stream.STOP_JOBS, 4, {"a": "b"})
        with self.dropping("outbox"), self.assertRaises(StoreRejected):
            self.accept(again)
        self.accept(again)

    def test_no_call_is_taken_for_busy_for_ever(self) -> None:
        self.assert_refused("operations", lambda: self.queue.submit(request("g1")))
        with self.dropping("operations"), self.assertRaises(GameBusy):
            self.queue.submit(request("g1"))

    def whole(self) -> Completion:
        event = findings_contract.crashed().health[0]
        return ended(
            new=RUNNING,
            log=(log_entry(), log_entry()),
            health=(event,),
            messages=(Message(Stream.JOB_RESULTS, {"game_id": "g1"}),),
            last_exit=findings_contract.crashed().last_exit,
        )

    def test_no_end_loses_a_part_of_it(self) -> None:
        self.queue.submit(request("g1"))
        operation = self.claim_one()
        for table in ("operations", "operation_log", "health_snapshots", "last_exits", "outbox", "runtime_records"):
            with self.subTest(table), self.dropping(table):
                with self.assertRaisesRegex(StoreRejected, f"dropped rows .*{table}"):
                    self.queue.finish(operation, self.whole())
                self.assertIsNone(self.store.records().get("g1"))
                self.assertEqual((len(self.store.log_rows()), self.due()), (0, []))
        self.queue.finish(operation, self.whole())
        self.assertEqual((self.store.records().get("g1"), len(self.store.log_rows())), (RUNNING, 2))

    def test_an_end_that_changes_a_record_is_refused_and_one_whose_record_changed_decides_again(self) -> None:
        self.store.put_record(RUNNING)
        self.queue.submit(request("g1", OpKind.STOP))
        operation = self.claim_one()
        ending = ended(seen=RUNNING, new=record("g1", Status.STOPPED))
        with self.dropping("runtime_records"), self.assertRaises(StoreRejected):
            self.queue.finish(operation, ending)
        self.store.put_record(record("g1", current_container_id="another"))
        with self.dropping("runtime_records"), self.assertRaises(RecordConflict):
            self.queue.finish(operation, ending)

    def test_no_finding_loses_a_part_of_it(self) -> None:
        self.store.put_record(RUNNING)
        rows = (log_entry(kind=OpKind.RECONCILE_DISPOSE, source=OpSource.AUTO_RECONCILE),)
        finding = findings_contract.crashed(restart_at=LATER, log=rows, raises=findings_contract.alarm(AlarmKind.OOM))
        for table in (
            *("runtime_records", "operation_log", "health_snapshots", "outbox", "alarms", "last_exits"),
            "crash_restarts",
        ):
            with self.subTest(table), self.dropping(table):
                with self.assertRaisesRegex(StoreRejected, f"dropped rows .*{table}"):
                    self.findings.write(finding)
                self.assertEqual(self.store.records().get("g1"), RUNNING)
        self.assertEqual(self.findings.write(finding), WriteResult.WRITTEN)

    def test_a_message_that_cannot_be_deleted_is_not_taken_for_gone(self) -> None:
        self.accept(job(Stream.STOP_JOBS, 3, {"a": "b"}))
        with self.dropping("outbox"), self.store.outbox().lease() as lease:
            assert lease is not None
            [due] = lease.due(10, 1 << 20)
            with self.assertRaisesRegex(StoreRejected, "outbox: 0 of 1"):
                lease.delete([due.message_id])
            lease.delete([due.message_id + 1])  # one that is missing, as after a restore


class LostAnswerTest(unittest.TestCase):
    """Whether PostgreSQL may have executed a statement without an answer."""

    INSERT = b"INSERT INTO lost_answers VALUES (%(number)s)"

    def setUp(self) -> None:
        from rtmanager.adapters.postgres.database import Database

        shared = services.shared(RUNTIME_MANAGER)
        server, own = shared.postgres, shared.database
        self.proxy = self.enterContext(faults.before((server.host, server.port)))
        self.connection = self.enterContext(own.connect(own.layout.role))
        self.connection.execute("CREATE TABLE lost_answers (number int)")
        self.addCleanup(self.connection.execute, "DROP TABLE lost_answers")
        self.database = Database(own.dsn_by_way_of(self.proxy.host, self.proxy.port), max_connections=2, silence_s=2.0)
        self.database.open()
        self.addCleanup(self.database.close)
        self.be_well()

    def be_well(self) -> None:
        self.proxy.pass_on()
        wait_until("both connections of the pool to be well", self.both_answer, retry_on=(Unavailable,))

    def both_answer(self) -> bool:
        with self.database.transaction("now") as one:
            one.execute("SELECT 1")
            return bool(self.database.read("now", b"SELECT 1 AS one", {}))

    def numbers(self) -> list[object]:
        return [number for (number,) in self.connection.execute("SELECT number FROM lost_answers")]

    def test_only_what_was_not_to_be_committed_yet_is_surely_not_done(self) -> None:
        for number, committing in enumerate((False, True)):
            self.be_well()
            with self.assertRaises(Unavailable) as caught, self.database.transaction("submit") as transaction:
                if not committing:
                    self.proxy.half_open()
                transaction.execute(self.INSERT, {"number": number})
                self.proxy.half_open()
            self.assertEqual(caught.exception.untouched, not committing, caught.exception)
        self.assertEqual(self.numbers(), [1])

    def test_a_statement_that_commits_itself_may_be_done_once_it_is_sent(self) -> None:
        with self.database.transaction("submit") as one:  # the other one writes: both have it prepared
            one.execute(self.INSERT, {"number": 0})
            self.database.write("submit", self.INSERT, {"number": 1})
        self.proxy.half_open()
        with self.assertRaises(Unavailable) as caught:
            self.database.write("submit", self.INSERT, {"number": 2})
        self.assertFalse(caught.exception.untouched, caught.exception)
        self.assertCountEqual(self.numbers(), range(3))

    def test_a_statement_that_was_refused_or_not_sent_is_surely_not_done(self) -> None:
        with self.assertRaises(Unavailable) as refused:
            self.database.write("submit", b"INSERT INTO no_such_table VALUES (1)", {})
        self.proxy.refuse()
        with self.assertRaises(Unavailable) as not_sent:
            self.database.write("submit", self.INSERT, {"number": 1})
        for caught in (refused, not_sent):
            self.assertTrue(caught.exception.untouched, caught.exception)
        self.assertEqual(self.numbers(), [])


class GivenUpTest(InPostgres):
    """An abandoned backend is terminated only while it still works on the abandoned statement."""

    def setUp(self) -> None:
        self.other = self.database.connect()
        self.addCleanup(self.other.close)
        self.backend = self.database.backend(self.other)

    def sleep(self, seconds: float) -> Thread:
        def run() -> None:
            with suppress(psycopg.OperationalError):
                self.other.execute(b"SELECT pg_sleep(%s)", (seconds,))

        import psycopg

        thread = Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        wait_until("it to sleep", self.sleeps)
        return thread

    def sleeps(self) -> bool:
        query = b"SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = split_part(%(its)s, '/', 1)::int"
        return bool(self.database.read("presence", query, {"its": self.backend}))

    def test_at_work_it_is_ended_by_the_next_session(self) -> None:
        self.sleep(60)
        self.database.give_up(self.other)
        self.assertTrue(self.sleeps(), "it does not notice that its client is gone")
        self.database.connect().close()
        wait_until("it to end", lambda: not self.sleeps())

    def test_idle_or_at_work_on_something_else_it_is_left_alone(self) -> None:
        from rtmanager.adapters.postgres.session import GivenUp

        given_up = GivenUp(0)
        for _ in range(2):
            given_up.add(self.backend)
            with self.database.connect() as next_one:
                given_up.end(next_one)
        given_up.add(self.backend)
        thread = self.sleep(0.3)
        with self.database.connect() as next_one:
            given_up.end(next_one)
        thread.join()
        self.assertEqual(self.other.execute("SELECT 1").fetchone(), (1,))

    def test_too_many_that_do_not_end_are_reported(self) -> None:
        from rtmanager.adapters.postgres.session import GivenUp, SessionUnusable

        given_up = GivenUp(0)
        self.sleep(60)
        given_up.add(self.backend)
        with self.database.connect() as next_one:
            with self.assertRaisesRegex(SessionUnusable, "1 sessions of ours that were given up do not end"):
                given_up.end(next_one)
            wait_until("it to end", lambda: not self.sleeps())
            given_up.end(next_one)


class IdleConnectionTest(InPostgres):
    """Changes to an idle connection do not reach its next user."""

    OTHERS = "FROM pg_stat_activity WHERE application_name = 'rtmanager' AND pid <> pg_backend_pid()"

    def test_one_that_the_server_has_ended_is_replaced_and_nobody_notices(self) -> None:
        records = self.make().records()
        with self.services.database.connect() as administrator:
            for read in (records.get, records.get_as_json, records.get):
                self.assertIsNone(read("g"))
                administrator.execute(f"SELECT pg_terminate_backend(pid, 5000) {self.OTHERS}")

                self.assertIsNone(read("g"))

    def test_one_that_was_cut_here_is_replaced_too(self) -> None:
        records = self.make().records()
        for read in (records.get, records.get_as_json, records.get):
            self.database.cut()

            self.assertIsNone(read("g"))


class TextsTest(InPostgres):
    """The fast conversion to text equals PostgreSQL's own, whatever the state of the connection."""

    SAME = b"SELECT $1::text"

    def setUp(self) -> None:
        from rtmanager.adapters.postgres.pooled import PooledConnection

        self.connection = PooledConnection.connect(self.services.database.dsn, failed=self.fail, autocommit=True)
        self.addCleanup(self.connection.close)

    def test_all_rows_are_had_in_their_order(self) -> None:
        numbers = b"SELECT number::text FROM generate_series(1, $1::text::int) AS number"
        self.assertEqual(self.connection.texts(numbers, ["3"]), [b"1", b"2", b"3"])
        self.assertEqual(self.connection.texts(self.SAME, ["é\u2028"]), ["é\u2028".encode()])
        self.assertEqual(self.connection.texts(numbers, ["0"]), [])

    def test_a_transaction_that_failed_costs_no_later_read(self) -> None:
        for _ in range(2):
            self.assertEqual(self.connection.texts(self.SAME, ["a"]), [b"a"])
            with self.assertRaises(ZeroDivisionError), self.connection.transaction():
                self.connection.execute("SELECT 1", prepare=True)
                raise ZeroDivisionError
            left = self.connection.execute("SELECT name FROM pg_prepared_statements").fetchall()
            self.assertEqual(left, [], "psycopg has dropped what it has not prepared")

            self.assertEqual(self.connection.texts(self.SAME, ["b"]), [b"b"])

    def test_a_value_with_a_nul_is_refused_and_not_cut_off(self) -> None:
        from psycopg import DataError

        with self.assertRaises(DataError):
            self.connection.texts(self.SAME, ["a\0b"])
        self.assertEqual(self.connection.texts(self.SAME, ["a"]), [b"a"])

    def test_what_postgresql_has_against_a_statement_is_reported(self) -> None:
        from psycopg import errors

        with self.assertRaisesRegex(errors.DivisionByZero, "division by zero"):
            self.connection.texts(b"SELECT (1 / $1::text::int)::text", ["0"])
        with self.assertRaisesRegex(errors.UndefinedTable, 'relation "nowhere" does not exist'):
            self.connection.texts(b"SELECT a FROM nowhere WHERE a = $1::text", ["0"])

    def test_the_end_of_the_connection_is_an_error_of_psycopg(self) -> None:
        from psycopg import Error, OperationalError

        self.assertEqual(self.connection.texts(self.SAME, ["a"]), [b"a"])
        with self.services.database.connect() as administrator:
            administrator.execute("SELECT pg_terminate_backend(%s, 5000)", [self.connection.info.backend_pid])
        with self.assertRaisesRegex(Error, "connection"):
            self.connection.texts(self.SAME, ["a"])
        with self.assertRaisesRegex(OperationalError, "is closed"):
            self.connection.texts(self.SAME, ["a"])


class LargeMessageTest(InPostgres, store_contract.StoreContract):
    """A message that an earlier release put into the outbox without a size limit."""

    def test_it_is_due_with_its_texts_cut_off_and_holds_up_no_other(self) -> None:
        large = {"stream": "s", "fields": "x" * 2_000_000, "reason": "r"}
        small = Message(Stream.DEAD_LETTERS, {"stream": "s", "fields": "{}", "reason": "r"})
        self.queue.submit(request("g1"))
        messages = (Message(Stream.DEAD_LETTERS, large), small, Message(Stream.JOB_RESULTS, {"game_id": "g1"}))
        self.queue.finish(self.claim_one(), ended(messages=messages))
        with self.store.outbox().lease() as lease:
            assert lease is not None
            first, result = lease.due(100, 128 * 1024)
            self.assertEqual([*first.message.fields], [*large])
            self.assertEqual(first.message.fields["fields"], "x" * 65_536)
            self.assertIs(result.message.stream, Stream.JOB_RESULTS)
            lease.delete([first.message_id])
            self.assertEqual(lease.due(100, 128 * 1024)[0].message, small)


class UnreadableMessageTest(InPostgres, store_contract.StoreContract):
    """A foreign writer has written to the outbox."""

    def promise(self, *numbers: int) -> list[Message]:
        messages = [Message(Stream.JOB_RESULTS, {"n": str(number)}) for number in numbers]
        self.queue.submit(request("g1"))
        self.queue.finish(self.claim_one(), ended(messages=messages))
        return messages

    def add(self, *fields: str, stream: str = "job_results") -> set[int]:
        insert = b"INSERT INTO outbox (stream, fields) VALUES (%s, %s) RETURNING id"
        with self.database.transaction("test") as connection:
            rows = [connection.execute(insert, (stream, each)).fetchone() for each in fields]
        return {row["id"] for row in rows if row}

    def outbox_page(self, limit: int = 100, size: int = 1 << 20) -> tuple[list[Message], dict[int, str]]:
        with self.store.outbox().lease() as lease:
            assert lease is not None
            return [each.message for each in lease.due(limit, size)], dict(lease.unreadable)

    def test_whatever_a_row_holds_it_is_named_and_the_others_are_due(self) -> None:
        digits, deep, large = "1" * 5000, "[" * 5000 + "]" * 5000, "x" * 2_000_000
        odd = self.add(
            *("[1]", "null", "7", '"text"', "{}", '{"a": 1}', '{"a": null}', '{"a": {"b": "c"}}', "[{}]"),
            *('{"a": "\\ud800"}', '{"\\udfff": "a"}', f'{{"a": {digits}}}', f'{{"a": {deep}}}', deep),
            *(f'["{large}"]', f'"{large}"', f'{{"a": "\\ud800{large}"}}', f'{{"a": "\\u0000{large}"}}'),
        )
        messages = self.promise(1, 2)
        self.assertEqual(self.outbox_page(), (messages, dict.fromkeys(odd, "job_results")))
        # These are accepted.
        self.add('{"a": "\\ud83d\\ude00", "": "", "b": "1", "b": "2"}')
        self.assertEqual(self.outbox_page()[0][-1].fields, {"a": "\U0001f600", "": "", "b": "2"})

    def test_more_than_a_batch_of_them_holds_up_nothing(self) -> None:
        odd = self.add(*["[]"] * 7)
        messages = self.promise(1, 2, 3)
        self.assertEqual(self.outbox_page(limit=2), (messages[:2], dict.fromkeys(odd, "job_results")))
        self.add(*[f'["{"x" * 2000}"]'] * 7, stream="dead_letters")
        self.assertEqual(self.outbox_page(size=1024)[0], messages)

    def test_one_that_is_mended_is_due(self) -> None:
        [odd] = self.add("[1]")
        self.assertEqual(self.outbox_page(), ([], {odd: "job_results"}))
        with self.database.transaction("test") as connection:
            connection.execute(b"""UPDATE outbox SET fields = '{"n": "1"}'""")
        self.assertEqual(self.outbox_page(), ([Message(Stream.JOB_RESULTS, {"n": "1"})], {}))

    def test_what_a_summary_begins_with_may_be_anything(self) -> None:
        for example in ("[1]", '"text"', '{"payload_json": 7}', '{"payload_json": "[]"}'):
            with self.subTest(example), self.database.transaction("test") as connection:
                connection.execute(
                    b"INSERT INTO intent_windows VALUES ('odd', now() - interval '1 hour', 1, 1, %s)", (example,)
                )
            with self.store.outbox().lease() as lease:
                assert lease is not None
                self.assertEqual(lease.intents_sent(), {})
        self.assertEqual(len(self.outbox_page()[0]), 4)


class OneAtATimeTest(InPostgres, store_contract.StoreContract):
    """A REST request and a job of one game are accepted at once; each instance sees a different one first."""

    def test_two_operations_of_one_game_are_not_worked_on_at_once(self) -> None:
        with self.services.database.connect() as caller, self.services.database.connect() as claimant:
            caller.execute("BEGIN")
            caller.execute(
                "INSERT INTO operations (game_id, kind, source, source_ref) VALUES ('g', 'stop', 'gm_rest', 'rest:1')"
            )
            self.accept(job(Stream.START_JOBS, 1, start_fields("g")))
            claimant.execute("BEGIN")
            claimant.execute("UPDATE operations SET state = 'running', owner = 1 WHERE source = 'lobby_stream'")
            caller.execute("COMMIT")
            with ThreadPoolExecutor(1) as threads:
                claimed = threads.submit(self.other.claim, 10)
                self.wait_until_blocked(claimant)
                claimant.execute("COMMIT")
                self.assertEqual(claimed.result(10), [])
            running = claimant.execute("SELECT count(*) FROM operations WHERE state = 'running'").fetchone()
        self.assertEqual(running, (1,))

    def wait_until_blocked(self, by: Any) -> None:
        """Wait until a session waits for the transaction on `by`."""
        pid = by.execute("SELECT pg_backend_pid()").fetchone()[0]
        waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid)))"
        with self.services.database.connect() as observer:
            wait_until("the second claim", lambda: (observer.execute(waiting, (pid,)).fetchone() or (False,))[0])


class InRedis(unittest.TestCase):
    """Creates the streams of a contract test."""

    def make(self) -> "StreamsInRedis":
        from integration.support.stores import StreamsInRedis

        shared = services.shared(RUNTIME_MANAGER)
        shared.redis.flush()
        client: Any = shared.redis.client()
        self.addCleanup(client.close)
        return StreamsInRedis(self, shared.redis.address, client)


class RedisTrimmingTest(InRedis, purge_contract.TrimmingContract):
    pass


class RedisReadingTest(InRedis, streams_contract.ReadingContract):
    def test_an_entry_of_many_fields_is_read_by_one_command_for_it(self) -> None:
        redis: Any = services.shared(RUNTIME_MANAGER).redis.client()
        self.addCleanup(redis.close)
        names = [b"%x" % n for n in range(400_000)]
        for _ in range(3):
            self.streams.add_pairs(Stream.START_JOBS, [(name, b"v") for name in names])
        self.assertEqual(len(self.read()), 1, "a read has one of them, so that others are served in between")
        redis.config_resetstat()
        self.assertEqual(len(self.read(1)), 1)
        stats = redis.info("commandstats")
        read = {name: stat["calls"] for name, stat in stats.items() if name.startswith(("cmdstat_x", "cmdstat_eval"))}
        self.assertLessEqual(max(read.values()), 2, read)

    def test_nodes_without_a_bound_are_searched_once_for_several_entries(self) -> None:
        redis: Any = services.shared(RUNTIME_MANAGER).redis.client()
        self.addCleanup(redis.close)
        for setting, usual in (("stream-node-max-entries", 100), ("stream-node-max-bytes", 4096)):
            redis.config_set(setting, 0)
            self.addCleanup(redis.config_set, setting, usual)
        key = f"test:{Stream.STOP_JOBS}"
        many = "for i = 1, 30000 do redis.call('XADD', KEYS[1], i .. '-1', 'game_id', i) end"
        redis.eval(many, 1, key)
        self.reader.read(1)
        redis.xgroup_setid(key, "rtmanager", "29000-1")
        redis.config_resetstat()
        given = redis.xpending_range(key, "rtmanager", "-", "+", 10)
        ids = []
        while entries := self.read(200):
            ids += [entry.entry_id.milliseconds for entry in entries]
            self.reader.acknowledge(entries)
        self.assertEqual(ids, [*(int(each["message_id"].partition("-")[0]) for each in given), *range(29001, 30001)])
        self.assertLess(redis.info("commandstats")["cmdstat_xreadgroup"]["calls"], 500)

    def test_entries_that_were_given_are_given_again_in_order_whatever_was_acknowledged_between_them(self) -> None:
        reader: Any = self.reader
        self.add(*(f"g{number}" for number in range(60)))
        reader._pace._search_s = 0
        entries = self.read()
        kept = [entry for number, entry in enumerate(entries) if number % 7 in (0, 1, 5) or number > 40]
        self.reader.acknowledge([entry for entry in entries if entry not in kept])
        reader._pace._chunk = 8
        self.assertEqual([e.entry_id for e in self.read()], [e.entry_id for e in kept])
        reader._pace._chunk = 8
        self.assertEqual([e.entry_id for e in self.read(13)], [e.entry_id for e in kept[:13]])
        self.reader.acknowledge(kept)
        self.assertEqual((self.read(), len(entries)), ([], 60))

    def test_the_end_of_a_stream_is_found_without_receiving_its_entries(self) -> None:
        redis: Any = services.shared(RUNTIME_MANAGER).redis.client()
        self.addCleanup(redis.close)
        self.streams.add_pairs(Stream.STOP_JOBS, [(b"x", b"y" * 5_000_000)])
        self.reader.acknowledge(self.read())
        redis.config_resetstat()
        self.assertEqual(self.reader.give_all_again(), {})
        self.assertLess(redis.info("stats")["total_net_output_bytes"], 100_000)

    def test_deleted_entries_that_were_given_are_forgotten_over_several_reads(self) -> None:
        redis: Any = services.shared(RUNTIME_MANAGER).redis.client()
        self.addCleanup(redis.close)
        self.read()
        key = f"test:{Stream.START_JOBS}"
        with redis.pipeline(transaction=False) as pipe:
            for _ in range(2_000):
                pipe.xadd(key, {"a": "b"})
            pipe.execute()
        redis.xreadgroup("rtmanager", "ingest", {key: ">"}, count=2_000)
        redis.xtrim(key, maxlen=0, approximate=False)
        start, stop = self.reader.read(10)
        self.assertEqual((list(start.entries), start.drained, stop.drained), ([], False, True))
        self.assertEqual(redis.xpending(key, "rtmanager")["pending"], 1_500)
        (last,) = self.add("g1")
        reads = 1
        while not (found := self.read(10)):
            reads += 1
        self.assertEqual(([entry.entry_id for entry in found], reads), ([last], 3))


class WaitingTest(InRedis, unittest.TestCase):
    """A wait whose answer cannot be skipped receives an entry, and drops it."""

    def test_without_the_right_to_skip_an_answer_a_wait_ends_all_the_same(self) -> None:
        streams = self.make()
        reader = streams.reader()
        redis: Any = services.shared(RUNTIME_MANAGER).redis.client()
        self.addCleanup(redis.close)
        self.addCleanup(redis.execute_command, "ACL", "SETUSER", "default", "+client|reply")
        redis.execute_command("ACL", "SETUSER", "default", "-client|reply")
        self.assertFalse(reader.wait(0.05))
        streams.add_entry(Stream.STOP_JOBS, {"x": "y" * 1_000_000})
        self.assertTrue(reader.wait(10))
        (entry,) = [entry for batch in reader.read(10) for entry in batch.entries]
        reader.acknowledge([entry])
        self.assertFalse(reader.wait(0.05))

    def test_without_the_right_to_wait_it_is_reported_and_what_follows_is_answered_rightly(self) -> None:
        reader = self.make().reader()
        redis: Any = services.shared(RUNTIME_MANAGER).redis.client()
        self.addCleanup(redis.close)
        self.addCleanup(redis.execute_command, "ACL", "SETUSER", "default", "+xread")
        redis.execute_command("ACL", "SETUSER", "default", "-xread")
        for _ in range(2):
            with self.assertRaisesRegex(DependencyError, "xread"):
                reader.wait(0.05)
        redis.execute_command("ACL", "SETUSER", "default", "+xread")
        self.assertFalse(reader.wait(0.05))


class RedisWritingTest(InRedis, streams_contract.WritingContract):
    def test_what_others_wrote_into_our_keys_stops_no_message(self) -> None:
        redis: Any = services.shared(RUNTIME_MANAGER).redis.client()
        self.addCleanup(redis.close)
        self.writer.publish(1, self.due(1))
        (turn,) = redis.keys("rtmanager:outbox:*:turn")
        for number, value in enumerate(("abc", "", "9" * 25, "1e400", "nan", "-1"), 2):
            redis.set(turn, value)
            self.assertEqual(list(self.writer.publish(number, self.due(number)).ids), [number], value)
        redis.delete(turn)
        redis.rpush(turn, "a list")
        self.assertEqual(list(self.writer.publish(8, self.due(8)).ids), [8])
        self.assertEqual(redis.get(turn), "8")
        redis.sadd(turn.replace(":turn", ":published"), "", "abc", "9" * 30)
        self.assertEqual(self.writer.remembered(), set(range(1, 9)))

    def test_a_key_that_holds_no_memory_of_messages_is_named_with_the_remedy(self) -> None:
        redis: Any = services.shared(RUNTIME_MANAGER).redis.client()
        self.addCleanup(redis.close)
        self.writer.publish(1, self.due(1))
        [key] = redis.keys("rtmanager:outbox:*:published")
        redis.set(key, "no set")
        for call in (
            lambda: self.writer.publish(2, self.due(2)),
            self.writer.remembered,
            lambda: self.writer.forget([1]),
        ):
            with self.assertRaisesRegex(DependencyError, f"{key} is no set.*DEL that key"):
                call()
        redis.delete(key)
        self.assertEqual(list(self.writer.publish(3, self.due(2)).ids), [2])
