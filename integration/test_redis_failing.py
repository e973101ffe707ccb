"""Real failures of Redis: emptied, restarted, failed over, full, read-only, stuck, locked.

Each test breaks its own Redis and checks the invariants: each job has one answer, a running game is not touched,
unpublished messages wait. Where Redis has lost acknowledged data, an invariant cannot hold, and the test states exactly
what is lost.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from harness import faults, start_redis, start_services, web
from harness.rtm.case import RESULT_TIMEOUT_S
from integration.support.failing import FailingRedisTestCase
from rtmanager.domain.jobs import INPUT_STREAMS

RESULTS = "runtime:job_results"
STOP_JOBS = "runtime:stop_jobs"
START_JOBS = "runtime:start_jobs"

#: A password that must not appear anywhere.
SECRET = "hush-hush"


def setUpModule() -> None:
    start_services()


class Emptied(FailingRedisTestCase):
    """Redis loses all keys, or one."""

    def test_a_flush_while_serving_loses_no_message_that_waited_and_no_later_job(self) -> None:
        self.start_runtime()
        game = self.start_game()
        self.redis.set(RESULTS, "no stream")
        waits = self.submit("waits")
        self.wait_until_logged("redis refuses an output stream", RESULTS)
        self.wait_until_readyz_reports("redis: it refuses the output stream", RESULTS)
        self.assertRegex(web.text(f"{self.base_url}/metrics"), 'worker_failures_total{worker="outbox"} [1-9]')

        self.redis.flushall()

        self.wait_for_answers(waits)
        self.assert_serves()
        self.assert_runs(game)

    def test_restarted_empty_it_gets_the_result_of_the_job_that_was_under_way(self) -> None:
        docker = self.before_docker()
        self.start_runtime(DOCKER_HOST=docker.url)
        [creation] = docker.hold("/containers/create")
        self.add_start_job()
        self.assertTrue(creation.arrived.wait(30), "the game was not to be started")

        self.services.redis.container.restart(0)
        self.wait_until_logged("dependency does not answer", "worker=ingest", "dependency=redis")
        creation.release()

        self.assertEqual([each["outcome"] for each in self.results()], ["success"])
        self.assert_serves()
        self.assertEqual(self.answers(self.game_id), [1])
        self.wait_until_logged("worker is back", "worker=ingest")

    def test_restarted_empty_while_nobody_serves_it_gets_what_waited(self) -> None:
        first = self.start_runtime()
        self.redis.set(RESULTS, "no stream")
        waits = self.submit("waits")
        self.wait_until_logged("redis refuses an output stream")
        first.stop()

        self.services.redis.container.restart(0)
        self.wait_until("redis", self.answers_again)
        self.start_runtime()

        self.wait_for_answers(waits)
        self.assert_serves()

    def answers_again(self) -> bool:
        from redis.exceptions import RedisError

        try:
            return bool(self.redis.ping())
        except RedisError:
            return False


class Streams(FailingRedisTestCase):
    """The group or the streams are deleted, or replaced by another type."""

    def test_a_group_destroyed_while_serving_is_made_again_and_no_old_job_is_done_twice(self) -> None:
        self.start_runtime()
        known = [self.submit(f"known-{number}") for number in range(300)]
        self.wait_for_answers(*known)

        for stream in (f"runtime:{each}" for each in INPUT_STREAMS):
            self.redis.xgroup_destroy(stream, "rtmanager")

        self.assert_serves()
        self.assertEqual(self.answers(*known), [1] * len(known))
        # Another thread acknowledges answered entries, and may be a moment behind.
        self.wait_until("all to be acknowledged", lambda: self.left() == (0, 0), describe=lambda _: repr(self.left()))

    def left(self) -> tuple[int, int]:
        """The number of entries that were delivered and not acknowledged, and of those not yet delivered."""
        [group] = self.redis.xinfo_groups(STOP_JOBS)
        return group["pending"], group["lag"]

    def test_a_deleted_input_stream_costs_what_was_not_taken_over_and_nothing_else(self) -> None:
        self.start_runtime()
        taken = self.submit("taken")
        self.wait_for_answers(taken)
        self.way.refuse()
        unpublished = self.submit("unpublished")
        self.redis.delete(STOP_JOBS)
        self.way.pass_on()

        self.assert_serves()
        self.assertEqual(self.answers(taken, unpublished), [1, 0], "a job that Redis lost unread is unknown")

    def test_a_trimmed_input_stream_keeps_nobody_from_going_on(self) -> None:
        self.start_runtime()
        self.wait_for_answers(self.submit("taken"))
        self.way.refuse()
        unpublished, kept = self.submit("unpublished"), self.submit("kept")
        self.redis.xtrim(STOP_JOBS, maxlen=1, approximate=False)
        self.way.pass_on()

        self.wait_for_answers(kept)
        self.assertEqual(self.answers(unpublished), [0])
        self.assert_serves()

    def test_an_input_key_that_is_no_stream_is_reported_and_stops_neither_the_other_input_nor_a_call(self) -> None:
        self.start_runtime()
        self.wait_for_answers(self.submit())
        self.redis.delete(STOP_JOBS)
        self.redis.set(STOP_JOBS, "no stream")
        self.add_start_job()
        self.wait_until_logged("dependency does not answer", "worker=ingest", "WRONGTYPE")

        self.wait_until_readyz_reports("redis", STOP_JOBS, "worker ingest: is refused by redis since")
        self.wait_for_answers(self.game_id)
        self.post("stop", {"reason": "finished"})
        self.redis.delete(STOP_JOBS)

        self.assert_serves()


class Refusing(FailingRedisTestCase):
    """Redis answers, and rejects every write."""

    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()
        self.game = self.start_game()
        self.wait_for_answers(self.submit())

    def assert_reported_until(self, mend: Callable[[], object], call: Callable[[], None], *texts: str) -> None:
        """Requests get the reason; events are recorded and wait for publication, and nothing is lost."""
        self.wait_until_logged("dependency does not answer", "worker=ingest", "dependency=redis", *texts)
        self.wait_until_readyz_reports("redis", *texts)
        call()
        self.assert_runs(self.game)
        self.docker.kill(self.game)
        self.wait_until("the record of the crash", lambda: self.record()["status"] == "stopped")

        mend()

        self.assert_serves()
        self.wait_until("the event of the crash", self.crashes)
        self.assertEqual(self.crashes(), 1)

    def assert_calls_wait(self) -> None:
        """A request is rejected, and leaves nothing behind."""
        answer = self.call("POST", "/stop", {"reason": "finished"})
        self.assertIn("redis", self.refused(answer, 503, "service_unavailable"))
        self.assertEqual(len(self.operations(self.game_id)), 1)

    def assert_calls_are_done(self) -> None:
        """A request needs only Redis's answer."""
        self.assertEqual(self.post("start", {"image_ref": self.engine.ref})["current_container_id"], self.game)

    def crashes(self) -> int:
        events = self.entries("runtime:health_events")
        return sum(event["event_type"] == "container_exited" for event in events)

    def test_full_memory_is_reported_and_what_waits_is_published_when_there_is_room(self) -> None:
        self.redis.config_set("maxmemory", 1)
        mend = functools.partial(self.redis.config_set, "maxmemory", 0)
        self.assert_reported_until(mend, self.assert_calls_are_done, "maxmemory")

    def test_a_snapshot_that_fails_is_reported_and_what_waits_is_published_when_one_succeeds(self) -> None:
        redis = self.services.redis.container
        # A directory with content in its place: Redis cannot write the snapshot.
        self.assertEqual(redis.exec(["mkdir", "-p", "dump.rdb/taken"])[0], 0)
        self.redis.config_set("save", "3600 1")
        self.redis.bgsave()
        self.wait_until("the snapshot to fail", lambda: self.saved() == "err")

        def mend() -> None:
            self.assertEqual(redis.exec(["rmdir", "dump.rdb/taken", "dump.rdb"])[0], 0)
            self.redis.bgsave()
            self.wait_until("a snapshot", lambda: self.saved() == "ok")

        self.assert_reported_until(mend, self.assert_calls_are_done, "MISCONF")

    def saved(self) -> str:
        return str(self.redis.info("persistence")["rdb_last_bgsave_status"])

    def test_a_script_that_does_not_end_is_reported_and_all_goes_on_when_it_is_killed(self) -> None:
        self.redis.config_set("busy-reply-threshold", 50)
        with ThreadPoolExecutor(1) as threads, self.services.redis.client() as other:
            endless = threads.submit(other.eval, "while true do end", 0)

            def mend() -> None:
                self.redis.script_kill()
                # Redis answers before the script has ended, and rejects commands until then.
                self.assertIn("killed by user", str(endless.exception(timeout=30)))

            self.assert_reported_until(mend, self.assert_calls_wait, "BUSY")

    def test_a_password_that_changed_is_reported_without_it_and_an_instance_that_has_it_goes_on(self) -> None:
        self.redis.config_set("requirepass", SECRET)
        self.way.cut()

        def mend() -> None:
            self.start_runtime(REDIS_PASSWORD=SECRET)

        self.assert_reported_until(mend, self.assert_calls_wait, "Authentication required")
        self.assertNotIn(SECRET, self.log.read_text())


class FailedOver(FailingRedisTestCase):
    """A failover: the manager's address leads to the other of two servers."""

    def setUp(self) -> None:
        super().setUp()
        self.primary = self.services.redis
        self.replica = self.own(start_redis())
        self.line = self.own(faults.before((self.primary.host, self.primary.port)))
        self.redis.config_set("repl-diskless-sync-delay", 0)
        with self.replica.client() as replica:
            replica.replicaof(self.line.host, self.line.port)
        self.wait_until("the replica", self.replicated)

    def replicated(self) -> bool:
        """Whether the replica has all that the primary has now."""
        return bool(self.redis.wait(1, 1000))

    def promote(self) -> None:
        """Make the replica the primary, for the test and, from its next connection, for the manager."""
        self.use(self.replica)
        self.redis.replicaof("NO", "ONE")
        self.way.lead_to((self.replica.host, self.replica.port))

    def test_a_demoted_primary_is_reported_as_such_and_left_for_the_new_one(self) -> None:
        self.demote()

    def test_a_demoted_primary_that_takes_writes_all_the_same_is_left_too(self) -> None:
        self.redis.config_set("replica-read-only", "no")
        self.demote()

    def demote(self) -> None:
        self.start_runtime()
        known = self.submit("known")
        self.wait_for_answers(known)
        self.wait_until("the replica", self.replicated)
        demoted = self.redis
        self.use(self.replica)
        self.redis.replicaof("NO", "ONE")
        demoted.replicaof(self.replica.host, self.replica.port)
        meanwhile = self.submit("meanwhile")
        self.wait_until_logged("worker=ingest", "is a replica now")
        self.wait_until_readyz_reports("is a replica now")

        self.way.lead_to((self.replica.host, self.replica.port))

        self.wait_for_answers(known, meanwhile)
        self.assert_serves()

    def test_a_failover_loses_what_was_not_copied_and_nothing_that_postgres_has(self) -> None:
        docker = self.before_docker()
        [creation] = docker.hold("/containers/create")
        self.start_runtime(DOCKER_HOST=docker.url)
        before = self.submit("before")
        self.wait_for_answers(before)
        self.way.refuse()
        again = self.submit("again")
        self.wait_until("the replica", self.replicated)
        self.line.black_hole()
        self.way.pass_on()
        lost = self.submit("lost")
        self.wait_for_answers(before, again, lost)
        self.add_start_job()
        self.assertTrue(creation.arrived.wait(30), "the game was not to be started")
        turn = self.relay_turn()

        self.primary.container.kill()
        self.promote()
        self.assertLess(self.relay_turn(), turn)
        creation.release()

        self.wait_for_answers(self.game_id)
        self.assert_serves()
        self.assertEqual(self.answers(before, again, lost), [1, 0, 0], "what Redis lost after it had taken it")
        done = self.operations(again, lost)
        self.assertEqual([(each["state"], each["generation"]) for each in done], [("done", 1), ("done", 1)])

    def relay_turn(self) -> int:
        [fence] = self.redis.keys("rtmanager:outbox:*:turn")
        return int(self.redis.get(fence))

    def test_a_result_that_was_told_before_its_teller_died_is_told_again_only_where_it_is_lost(self) -> None:
        for is_lost in (False, True):
            with self.subTest(is_lost=is_lost):
                teller = self.start_process(FAILPOINTS="redis.publish.after=exit")
                if is_lost:
                    self.line.black_hole()
                submitted = self.submit(f"lost-{is_lost}")
                teller.wait(RESULT_TIMEOUT_S)
                self.assertEqual((self.answers(submitted), self.outbox()), ([1], 1))

                if is_lost:
                    self.primary.container.kill()
                    self.promote()
                    self.assertEqual(self.answers(submitted), [0])
                with self.start_runtime():
                    self.wait_until("the outbox to be empty", lambda: not self.outbox())
                    self.assert_serves()
                    self.assertEqual(self.answers(submitted), [1])

    def outbox(self) -> int:
        return len(self.rows("SELECT FROM outbox"))


class IdsGivenAgain(FailingRedisTestCase):
    """Entries of a lost stream have ids that PostgreSQL has: from a clock set back, or from the client."""

    def test_another_job_under_a_known_id_is_a_job_of_its_own(self) -> None:
        self.start_runtime()
        known = self.submit("known", at="5000-1")
        self.wait_for_answers(known)
        letters = [self.add_letter("5000-2", "one")]

        for name in ("second", "third"):
            self.redis.flushall()
            other = self.submit(name, at="5000-1")
            letters.append(self.add_letter("5000-2", name))
            self.wait_for_answers(other)
            self.wait_until("the letter", lambda: self.entries("runtime:dead_letters"))
            self.assert_serves()

        refs = [each["source_ref"] for each in self.operations(known, f"second-{self.game_id[-10:]}")]
        self.assertEqual(refs[0], f"{STOP_JOBS}:5000-1")
        self.assertNotEqual(refs[0], refs[1], "two requests have two names")

    def test_the_same_job_under_its_known_id_is_that_job_also_when_an_earlier_release_took_it_over(self) -> None:
        self.start_runtime()
        now, earlier = self.submit("now", at="5000-1"), self.submit("earlier", at="5000-2")
        self.wait_for_answers(now, earlier)
        with self.database.connect() as connection:
            connection.execute("UPDATE operations SET entry_digest = NULL WHERE game_id = %s", [earlier])
        self.redis.xgroup_destroy(STOP_JOBS, "rtmanager")

        self.assert_serves()
        self.assertEqual(self.answers(now, earlier), [1, 1])

    def test_of_two_jobs_of_one_game_under_one_id_both_are_done(self) -> None:
        self.start_runtime()
        self.redis.xadd(START_JOBS, self.start_of_game("1"), id="5000-1")
        self.results()
        self.redis.flushall()
        self.redis.xadd(START_JOBS, self.start_of_game("2"), id="5000-1")

        self.assertEqual([each["error_code"] for each in self.results()], ["replay_no_op"])
        self.assertEqual(len({row["source_ref"] for row in self.log_rows()}), 2)

    def start_of_game(self, moment: str) -> dict[str, str]:
        return {"game_id": self.game_id, "image_ref": self.engine.ref, "requested_at_ms": moment}

    def add_letter(self, entry_id: str, text: str) -> str:
        self.redis.xadd(STOP_JOBS, {"text": text}, id=entry_id)
        return text
