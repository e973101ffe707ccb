"""Docker's error answers: each ends as documented, with a manager and a real daemon.

A scripted daemon in front of the real one (`harness.start_scripted_daemon`) sends answers that a real one rarely gives.
"""

from harness import Reply, ScriptedDaemon, daemon, start_scripted_daemon, start_services, web
from harness.rtm import RuntimeTestCase
from integration.support import images

#: Much longer than a process that exits at once needs to be gone; the watch ends with it.
WATCH = "10s"
NOT_NOW = Reply(503, {"message": "not now"})


def setUpModule() -> None:
    start_services()


class Scripted(RuntimeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.odd: ScriptedDaemon = start_scripted_daemon(daemon.host())
        self.addCleanup(self.odd.close)

    def environment(self, **changes: str) -> dict[str, str]:
        return super().environment(**{"DOCKER_HOST": self.odd.host, "DEFERRAL_LIMIT": "2s", **changes})

    def assert_failed(self, code: str, *texts: str) -> None:
        """The only result is this failure, with these words."""
        [result] = self.results(1)
        self.assertEqual((result["outcome"], result["error_code"]), ("failure", code), result)
        for each in texts:
            self.assertIn(each, result["error_message"])

    def test_a_temporary_answer_that_goes_away_costs_a_job_nothing(self) -> None:
        self.odd.answer("POST /containers/create", NOT_NOW, times=1)
        self.start_runtime(DEFERRAL_LIMIT="15m")
        self.add_start_job()
        [result] = self.results(1)
        self.assertEqual(result["outcome"], "success")

    def test_the_same_temporary_answer_for_too_long_ends_a_start_and_leaves_nothing(self) -> None:
        self.odd.answer("POST /containers/*/start", NOT_NOW)
        self.start_runtime()
        self.add_start_job()
        self.assert_failed("container_start_failed", "not now", "for too long")
        self.assertEqual(self.containers(), [])

    def test_a_half_done_restart_goes_on_with_an_alarm_and_ends_well_when_it_can(self) -> None:
        live = self.start_runtime()
        self.post("start", {"image_ref": self.engine.ref})
        self.odd.answer("POST /containers/*/rename", NOT_NOW)
        status, answer = self.call("POST", "/restart", {})
        self.assertEqual(status, 503, answer)
        self.wait_until("the alarm", lambda: "rtmanager_stuck_operations{" in self.metrics())
        self.odd.forget()
        self.wait_until("the game to run", lambda: self.call("GET", "")[1].get("status") == "running" or None)
        self.wait_until("the alarm to be over", lambda: "rtmanager_stuck_operations{" not in self.metrics() or None)
        self.assertIn("operation needs a person", self.log.read_text())
        live.stop()

    def test_a_restart_whose_container_cannot_be_created_now_touches_no_game(self) -> None:
        self.start_runtime()
        before = self.post("start", {"image_ref": self.engine.ref})
        self.odd.answer("POST /containers/create", NOT_NOW)
        self.refused(self.call("POST", "/restart", {}), 503, "service_unavailable")
        self.assertEqual(self.succeed(self.call("GET", "")), before)
        [container] = self.containers()
        self.assertTrue(container["State"]["Running"])

    def metrics(self) -> str:
        from urllib.request import urlopen

        with urlopen(f"{self.base_url}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def test_a_proxy_in_front_of_the_daemon_disposes_of_no_game(self) -> None:
        self.start_runtime(RECONCILE_INTERVAL="200ms", INSPECT_INTERVAL="200ms")
        self.post("start", {"image_ref": self.engine.ref})
        pages = (
            Reply(404, b"404 page not found"),
            Reply(200, b"<html>"),
            Reply(502, b""),
            Reply(200, []),
            Reply(200, {}),
        )
        for page in pages:
            before = self.odd.count("GET /containers/*")
            self.odd.answer("GET /containers/*/json", page)
            if page.body != []:  # an empty list omits the game, which only the inspection of its container refutes
                self.odd.answer("GET /containers/json", page)
            self.wait_until("some looks", lambda: self.odd.count("GET /containers/*") > before + 5 or None)  # noqa: B023
            self.odd.forget()
            self.assertEqual(self.call("GET", "")[1]["status"], "running", page)
        self.assertNotIn("worker step failed", self.log.read_text())


REFUSE = """
    CREATE FUNCTION rtmanager.refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'somebody added a rule'; END $$"""
TRIGGERS = {
    "operation_log": "BEFORE INSERT ON rtmanager.operation_log FOR EACH ROW WHEN (NEW.game_id LIKE 'refused%')",
    "operations": (
        "BEFORE UPDATE ON rtmanager.operations FOR EACH ROW WHEN (NEW.state = 'done' AND NEW.game_id LIKE 'refused%')"
    ),
    # Not BEFORE: readiness reports a trigger that could change the written row.
    "runtime_records": "AFTER UPDATE ON rtmanager.runtime_records FOR EACH ROW",
    "watch_turns": "BEFORE INSERT OR UPDATE ON rtmanager.watch_turns FOR EACH ROW",
    "queue": "BEFORE INSERT ON rtmanager.operations FOR EACH ROW WHEN (NEW.game_id LIKE 'refused%')",
}


class Refusing(RuntimeTestCase):
    """PostgreSQL rejects the end of one game's operations, because of a trigger that was added to the schema."""

    def refuse(self, table: str) -> None:
        connection = self.enterContext(self.services.database.connect())
        connection.execute(REFUSE)
        self.addCleanup(connection.execute, "DROP FUNCTION IF EXISTS rtmanager.refuse() CASCADE")
        connection.execute(f"CREATE TRIGGER refuse {TRIGGERS[table]} EXECUTE FUNCTION rtmanager.refuse()")

    def mend(self) -> None:
        with self.services.database.connect() as connection:
            connection.execute("DROP FUNCTION rtmanager.refuse() CASCADE")

    def test_a_plainer_end_answers_the_asker_and_leaves_no_container(self) -> None:
        self.start_runtime()
        self.refuse("operation_log")
        game_id = f"refused-{self.game_id}"[:51]
        self.add_start_job(game_id=game_id)
        [result] = self.results(1)
        self.assertEqual((result["game_id"], result["error_code"]), (game_id, "container_start_failed"))
        self.assertEqual(self.containers(game_id), [])
        self.assertEqual(self.record(game_id), {})

    def test_when_the_ends_of_several_games_are_refused_readiness_reports_it_until_one_is_taken(self) -> None:
        self.start_runtime()
        self.refuse("operation_log")
        for number in range(3):
            self.add_stop_job(game_id=f"refused-{number}-{self.game_id}"[:51])
        self.assertEqual({result["error_code"] for result in self.results(3)}, {"internal_error"})
        expected = ("worker executor-games: is refused by postgres since", "somebody added a rule")
        self.wait_until("readiness to report it", lambda: all(each in self.readiness() for each in expected))
        self.mend()
        self.add_stop_job()
        self.wait_until_ready()

    def test_a_row_of_the_outbox_that_is_no_message_is_named_and_the_others_go_on(self) -> None:
        self.start_runtime()
        with self.services.database.connect() as connection:
            insert = "INSERT INTO rtmanager.outbox (stream, fields) VALUES ('job_results', '[1]') RETURNING id"
            [row] = connection.execute(insert).fetchall()
        self.add_stop_job()
        self.results(1)
        self.wait_until("readiness to report it", lambda: f"DELETE FROM outbox WHERE id = {row[0]}" in self.readiness())
        with self.services.database.connect() as connection:
            connection.execute("DELETE FROM rtmanager.outbox")
        self.wait_until_ready()

    def test_without_any_end_it_is_seen_and_tried_again_and_others_go_on(self) -> None:
        self.start_runtime()
        self.refuse("operations")
        game_id = f"refused-{self.game_id}"[:51]
        self.add_stop_job(game_id=game_id)
        self.wait_until("readiness to report it", lambda: "somebody added a rule" in self.readiness() or None)
        self.add_start_job()
        [result] = self.results(1)
        self.assertEqual((result["game_id"], result["outcome"]), (self.game_id, "success"))
        self.mend()
        self.assertEqual(self.results(2)[1]["error_code"], "not_found")
        self.wait_until_ready()

    def test_an_entry_that_cannot_be_taken_over_is_a_dead_letter_and_others_go_on(self) -> None:
        self.start_runtime()
        self.refuse("queue")
        self.add_stop_job(game_id=f"refused-{self.game_id}"[:51])
        self.add_start_job()
        [result] = self.results(1)
        self.assertEqual((result["game_id"], result["outcome"]), (self.game_id, "success"))
        [letter] = self.wait_until("the letter", lambda: self.entries("runtime:dead_letters"))
        self.assertIn("somebody added a rule", letter["reason"])
        self.assertIn("the trigger refuse on rtmanager.operations", self.readiness())
        self.mend()
        self.wait_until_ready()

    def test_jobs_wait_while_no_operation_is_taken_over_and_are_done_when_that_is_mended(self) -> None:
        self.start_runtime()
        # A counter that was reset passes the ids of a few operations by itself.
        for number in range(40):
            self.add_stop_job(game_id=f"g-{number}")
        self.results(40)
        for change, mend, text in (
            (
                "ALTER TABLE operations ALTER COLUMN id RESTART WITH 1",
                "SELECT setval('operations_id_seq', (SELECT max(id) FROM operations))",
                "remedy: SELECT setval('rtmanager.operations_id_seq', (SELECT max(id) FROM rtmanager.operations))",
            ),
            (
                "REVOKE INSERT ON operations FROM rtmanagerservice",
                "GRANT INSERT ON operations TO rtmanagerservice",
                "lacks INSERT on rtmanager.operations",
            ),
            (
                "ALTER TABLE operations ADD CONSTRAINT odd CHECK (entry_rank < 0) NOT VALID",
                "ALTER TABLE operations DROP CONSTRAINT odd",
                "it takes over no job",
            ),
        ):
            with self.subTest(change):
                before = len(self.entries("runtime:job_results"))
                with self.services.database.connect() as connection:
                    connection.execute("SET search_path = rtmanager")
                    connection.execute(change)
                    self.add_stop_job(game_id=f"after-{before}")
                    self.wait_until("readiness to report it", lambda: text in self.readiness() or None)  # noqa: B023
                    self.assertEqual(len(self.entries("runtime:job_results")), before)
                    connection.execute(mend)
                self.results(before + 1)
                self.wait_until_ready()
        self.assertEqual(self.entries("runtime:dead_letters"), [])

    def test_a_game_that_is_refused_in_each_pass_is_listed_and_the_service_is_ready(self) -> None:
        self.start_runtime(RECONCILE_INTERVAL="200ms")
        container = self.post("start", {"image_ref": self.engine.ref})["current_container_id"]
        self.refuse("runtime_records")
        self.docker.kill(container)
        listed = f'rtmanager_failing_games{{work="attention",game_id="{self.game_id}"}} '
        self.wait_until("the game to be listed", lambda: listed in web.text(f"{self.base_url}/metrics"))
        self.assertIn("'status': 'ready'", self.readiness())
        self.assertIn("somebody added a rule", self.log.read_text())
        self.assertEqual(self.log.read_text().count("work on a game failed"), 1)
        self.mend()
        self.wait_until("the record", lambda: self.record()["status"] == "stopped")
        self.wait_until("it to be listed no more", lambda: listed not in web.text(f"{self.base_url}/metrics"))

    def test_a_worker_that_is_refused_in_each_step_is_named_and_counted_until_it_works(self) -> None:
        self.start_runtime(PROBE_INTERVAL="200ms")
        self.refuse("watch_turns")
        expected = ("worker probe: is refused by postgres since", "somebody added a rule")
        self.wait_until("the worker to be named", lambda: all(each in self.readiness() for each in expected))
        counted = 'rtmanager_worker_failures_total{worker="probe"} '
        [line] = [each for each in web.text(f"{self.base_url}/metrics").splitlines() if each.startswith(counted)]
        self.assertGreaterEqual(int(line.removeprefix(counted)), 3)
        self.mend()
        self.wait_until_ready()

    def readiness(self) -> str:
        return str(web.call("GET", f"{self.base_url}/readyz")[1])


class Logs(RuntimeTestCase):
    def test_without_a_log_a_start_that_ends_at_once_is_answered_and_leaves_nothing(self) -> None:
        self.start_runtime(DOCKER_LOG_DRIVER="none", FIRST_START_WATCH=WATCH)
        self.add_start_job(images.tiny("exits"))
        [result] = self.results(1)
        self.assertEqual(result["error_code"], "container_start_failed")
        self.assertRegex(
            result["error_message"], "ended at once with exit code [0-9]+; its log cannot be read: .*reading"
        )
        self.assertEqual(self.containers(), [])

    def test_without_a_log_the_last_exit_says_why(self) -> None:
        self.start_runtime(DOCKER_LOG_DRIVER="none", RECONCILE_INTERVAL="500ms")
        record = self.post("start", {"image_ref": self.engine.ref})
        self.docker.kill(record["current_container_id"])
        self.wait_until("the end to be seen", lambda: self.call("GET", "/health")[1].get("last_exit"))
        log = self.call("GET", "/health")[1]["last_exit"]["log"]
        self.assertRegex(log, r"^\(the log cannot be read: .*does not support reading\)$")
