"""Several managers on one database and one Redis share the work without a leader, and take over from each other.

A manager that was frozen changes nothing after its thaw that it no longer owns.
"""

from pathlib import Path

from harness import daemon, start_services
from harness.fixtures.faults import Held
from harness.rtm import unique_game_id
from harness.rtm.manager import ManagerProcess
from integration.support.proxied import ProxiedTestCase

#: The shortest lease that the configuration accepts, in seconds.
LEASE = "5"


def setUpModule() -> None:
    start_services()


class Sharing(ProxiedTestCase):
    def test_three_instances_share_the_jobs_and_each_job_is_done_once(self) -> None:
        for _ in range(3):
            self.start_process(MAX_PARALLEL_OPERATIONS="2")
        games = [unique_game_id("shared") for _ in range(15)]
        for game_id in games:
            self.add_start_job(game_id=game_id)
        results = self.results(len(games))
        self.assertCountEqual([each["game_id"] for each in results], games)
        self.assertEqual({each["outcome"] for each in results}, {"success"})
        self.assertEqual(len(self.rows("SELECT DISTINCT owner FROM operations")), 3)

    def test_a_call_to_one_instance_is_answered_whichever_does_it(self) -> None:
        for _ in range(2):
            self.start_process(MAX_PARALLEL_OPERATIONS="1")
        for _ in range(4):
            started = self.post("start", {"image_ref": self.engine.ref})
            self.assertEqual(started["status"], "running")
            self.assertEqual(self.post("stop", {"reason": "finished"})["status"], "stopped")

    def test_what_a_killed_instance_was_doing_is_done_by_one_that_lives(self) -> None:
        victim = self.start_process()
        [start] = self.docker_proxy.hold("/start HTTP")
        self.add_start_job()
        self.assertTrue(start.arrived.wait(30), "nothing was started")
        self.start_process(DOCKER_HOST=daemon.host())
        victim.kill()
        [result] = self.results()
        self.assertEqual(result["outcome"], "success")
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start"])


class OneName(ProxiedTestCase):
    """Docker's DNS ignores case: of two games whose ids differ only in case, one may exist."""

    def setUp(self) -> None:
        super().setUp()
        self.namesake = self.game_id.upper()

    def test_of_two_starts_at_one_time_on_two_instances_one_is_refused(self) -> None:
        self.start_process(MAX_PARALLEL_OPERATIONS="1")
        [start] = self.docker_proxy.hold("/start HTTP")
        self.add_start_job()
        self.assertTrue(start.arrived.wait(30), "nothing was started")
        self.start_process(DOCKER_HOST=daemon.host())
        message = self.refused(
            self.call("POST", "/start", {"image_ref": self.engine.ref}, game_id=self.namesake), 409, "conflict"
        )
        self.assertIn(f"game {self.game_id} is being started", message)
        start.release()
        [result] = self.results()
        self.assertEqual((result["game_id"], result["outcome"]), (self.game_id, "success"))
        self.assertEqual(self.containers(self.namesake), [])

    def test_many_starts_of_two_namesakes_leave_one_game_however_they_meet(self) -> None:
        for _ in range(2):
            self.start_process(DOCKER_HOST=daemon.host())
        for turn in range(3):
            games = [f"{self.game_id}-{turn}", f"{self.namesake}-{turn}"]
            for game_id in games:
                self.add_start_job(game_id=game_id)
            results = self.results(2 * (turn + 1))[-2:]
            self.assertEqual(sorted(each["error_code"] for each in results), ["", "conflict"])
            records = self.rows("SELECT game_id FROM runtime_records WHERE game_id = ANY (%s)", games)
            self.assertEqual(len(records), 1)

    def test_a_removed_game_gives_its_name_away_and_is_refused_itself(self) -> None:
        self.start_runtime(DOCKER_HOST=daemon.host())
        self.post("start", {"image_ref": self.engine.ref})
        self.post("stop", {"reason": "finished"})
        start = {"image_ref": self.engine.ref}
        self.refused(self.call("POST", "/start", start, game_id=self.namesake), 409, "conflict")
        self.succeed(self.call("DELETE", "/container"))
        self.post("start", start, game_id=self.namesake)
        self.refused(self.call("POST", "/start", start), 409, "conflict")

    def test_a_pair_of_an_earlier_release_goes_on_and_is_reported(self) -> None:
        self.start_runtime(DOCKER_HOST=daemon.host()).stop()
        with self.services.database.connect() as connection:
            for game_id in (self.game_id, self.namesake):
                connection.execute(PUT_STOPPED, {"game_id": game_id, "image_ref": self.engine.ref})
        (self.state_root.folder("games") / self.game_id).mkdir()  # an empty root would count as not mounted
        self.start_runtime(DOCKER_HOST=daemon.host())
        self.assertRegex(self.log.read_text(), f"games have one name .*{self.namesake} and {self.game_id}")
        for game_id in (self.game_id, self.namesake):
            self.assertEqual(self.post("restart", game_id=game_id)["status"], "running")
            self.assertEqual(self.post("stop", {"reason": "finished"}, game_id=game_id)["status"], "stopped")
            self.post("start", {"image_ref": self.engine.ref}, game_id=game_id)
        self.wait_until_ready()


PUT_STOPPED = b"""
    INSERT INTO runtime_records (game_id, status, current_image_ref, engine_endpoint, state_path, docker_network,
                                 stopped_at, last_op_at, created_at)
    VALUES (%(game_id)s, 'stopped', %(image_ref)s, 'http://nowhere', '/nowhere', 'nowhere', now(), now(), now())"""


class Frozen(ProxiedTestCase):
    """The manager is frozen during a request, which arrives after the thaw."""

    def setUp(self) -> None:
        super().setUp()
        self.first = self.start_process(GAME_LEASE_TTL_SECONDS=LEASE)

    def freeze(self, request: Held) -> None:
        """Freeze the first instance when it has sent the request, and start another one."""
        self.assertTrue(request.arrived.wait(30), f"{request.mark!r} was not asked for")
        self.first.send("STOP")
        stat = Path(f"/proc/{self.first.pid}/stat")
        self.wait_until("the process to be frozen", lambda: stat.read_text().rpartition(") ")[2].startswith("T"))
        self.second = self.start_second()

    def start_second(self) -> ManagerProcess:
        services = self.services
        return self.start_process(
            GAME_LEASE_TTL_SECONDS=LEASE,
            POSTGRES_PRIMARY_DSN=services.database.dsn,
            REDIS_MASTER_ADDR=services.redis.address,
            DOCKER_HOST=daemon.host(),
        )

    def thaw(self, request: Held) -> None:
        """Thaw the first instance and release its request; returns when it has given up the operation."""
        before = len(self.log.read_text())
        request.release()
        self.first.send("CONT")
        self.wait_until_let_go(before)

    def test_a_start_that_arrives_late_makes_no_second_container(self) -> None:
        [start] = self.docker_proxy.hold("/start HTTP")
        self.add_start_job()
        self.freeze(start)
        [result] = self.results()

        self.thaw(start)

        [container] = self.containers()
        self.assertEqual((container["Id"], container["State"]["Running"]), (result["container_id"], True))
        self.add_stop_job()
        self.assertEqual([each["error_code"] for each in self.results(2)], ["", ""])
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])

    def test_a_stop_that_arrives_late_ends_no_container_but_the_one_it_was_meant_for(self) -> None:
        started = self.post("start", {"image_ref": self.engine.ref})
        [stop] = self.docker_proxy.hold(f"/containers/{started['current_container_id']}/stop")
        self.add_stop_job()
        self.freeze(stop)
        [stopped] = self.results()
        self.assertEqual(stopped["outcome"], "success")
        self.add_start_job()
        again = self.results(2)[1]

        self.thaw(stop)

        [container] = [each for each in self.containers() if each["State"]["Running"]]
        self.assertEqual(container["Id"], again["container_id"])
        self.assertEqual(self.record()["status"], "running")
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop", "start"])

    def test_an_end_that_is_written_late_is_refused(self) -> None:
        [end] = self.postgres_proxy.hold("WITH ours AS (")
        self.add_start_job()
        self.freeze(end)
        [result] = self.results()
        self.add_stop_job()
        self.results(2)

        self.thaw(end)

        self.assertEqual(self.record()["status"], "stopped")
        self.assertEqual(len(self.results(2)), 2)
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])
        self.assertEqual(len(self.containers()), 1)
        self.assertEqual(result["container_id"], self.containers()[0]["Id"], "the container of the first was taken")
