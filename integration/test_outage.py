"""A dependency becomes silent or unreachable during work: nothing is lost, and no request waits for ever."""

import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness import start_services, web
from harness.rtm import RuntimeTestCase
from integration.support.proxied import SILENCE, ProxiedTestCase, keep_pool_quiet

#: Less than the time of the first answer with the default timeout of eight seconds.
REFUSED_WITHIN_S = 8.0

#: Bytes of address space with which a manager cannot create another thread.
LITTLE_MEMORY = 200_000_000


def setUpModule() -> None:
    start_services()


class StateRoot(RuntimeTestCase):
    def test_a_root_that_is_gone_ends_a_start_at_once_and_shows_in_readiness(self) -> None:
        self.start_runtime()
        games = self.state_root.folder("games")
        away = games.rename(games.with_name("away"))
        self.add_start_job()

        [result] = self.results()
        self.assertEqual((result["outcome"], result["error_code"]), ("failure", "start_config_invalid"))
        message = self.refused(web.call("GET", f"{self.base_url}/readyz"), 503, "service_unavailable")
        self.assertRegex(message, f"state root: state directory {games}: it does not exist")

        away.rename(games)
        self.wait_until_ready()
        self.add_start_job()
        self.assertEqual(self.results(2)[1]["outcome"], "success")


class Silence(RuntimeTestCase):
    """Frozen servers: their connections stay open, and they send nothing."""

    def setUp(self) -> None:
        super().setUp()
        keep_pool_quiet(self)

    def test_a_silent_postgres_is_reported_in_time_keeps_no_manager_from_ending_and_loses_no_job(self) -> None:
        other = self.start_runtime(SILENCE_TIMEOUT=SILENCE, SHUTDOWN_TIMEOUT="500ms")
        self.start_runtime(SILENCE_TIMEOUT=SILENCE)
        postgres = self.services.postgres.container
        with ThreadPoolExecutor(4) as threads:
            postgres.pause()
            try:
                ending = threads.submit(_seconds, other.stop)
                self.add_start_job()
                self.assert_refused_in_time(threads)
                self.assertLess(ending.result(), 2 * REFUSED_WITHIN_S)
            finally:
                postgres.unpause()

        self.assertEqual(self.results()[0]["outcome"], "success")
        self.wait_until_ready()

    def assert_refused_in_time(self, threads: ThreadPoolExecutor) -> None:
        began = time.monotonic()
        calls = (
            threads.submit(self.call, "GET", ""),
            threads.submit(self.call, "POST", "/stop", {"reason": "finished"}),
            threads.submit(web.call, "GET", f"{self.base_url}/readyz"),
        )
        self.assertEqual(web.call("GET", f"{self.base_url}/healthz")[0], 200)
        for each in calls:
            self.assertIn("postgres", self.refused(each.result(), 503, "service_unavailable"))
        self.assertLess(time.monotonic() - began, REFUSED_WITHIN_S)

    def test_while_redis_is_silent_no_call_is_accepted_and_afterwards_all_goes_on(self) -> None:
        self.start_runtime(SILENCE_TIMEOUT=SILENCE)
        redis = self.services.redis.container
        redis.pause()
        try:
            answer = self.call("POST", "/start", {"image_ref": self.engine.ref})
            self.assertIn("redis", self.refused(answer, 503, "service_unavailable"))
            self.assertEqual(self.rows("SELECT FROM operations"), [])
            self.assertEqual(web.call("GET", f"{self.base_url}/api/v1/internal/runtimes")[0], 200)
            self.wait_until("the ingest to notice", lambda: "dependency=redis" in self.log.read_text())
        finally:
            redis.unpause()
        self.add_start_job()

        self.assertEqual(self.results()[0]["outcome"], "success")
        self.assertNotIn("dependency=postgres", self.log.read_text(), "nobody blames what answers")

    def test_a_redis_that_lost_everything_and_a_group_that_is_gone_are_made_good(self) -> None:
        self.start_runtime()
        self.redis.flushall()
        self.add_start_job()
        self.results()
        self.redis.xgroup_destroy("runtime:stop_jobs", "rtmanager")
        self.add_stop_job()

        self.assertEqual([each["error_code"] for each in self.results(2)], ["", ""])


def _seconds(action: Callable[[], object]) -> float:
    """The duration of the call."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


class Memory(RuntimeTestCase):
    def test_when_a_lack_of_memory_passes_all_goes_on_and_the_process_ends_in_order(self) -> None:
        process = self.start_process()
        games = [f"junk-{number}-{self.game_id[-10:]}" for number in range(120)]
        resource.prlimit(process.pid, resource.RLIMIT_AS, (LITTLE_MEMORY, resource.RLIM_INFINITY))
        for game_id in games:
            self.add_start_job("127.0.0.1:9/no-such-image:1.0.0", game_id=game_id)
            time.sleep(0.05)  # the process has no memory for a thread for any of these jobs
        resource.prlimit(process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        self.wait_until_ready()
        results = self.results(len(games), timeout_s=120)
        self.assertCountEqual([each["game_id"] for each in results], games)
        self.assertEqual(process.terminate(), 0)


class InTheMiddle(ProxiedTestCase):
    """Servers that become unreachable during an operation."""

    def test_a_job_that_finds_docker_away_stays_due_and_is_done_when_it_is_back(self) -> None:
        self.start_runtime()
        self.docker_proxy.refuse()
        self.add_start_job()
        self.wait_until("the job to be put off", self.put_off)

        self.wait_until("an answer with what the job waits for", self.reports_reason)

        self.assertEqual((self.entries("runtime:job_results"), self.log_rows(), self.record()), ([], [], {}))
        self.docker_proxy.pass_on()
        self.assertEqual(self.results()[0]["outcome"], "success")
        self.assertEqual([row["outcome"] for row in self.log_rows()], ["success"])

    def put_off(self) -> list[dict[str, Any]]:
        return self.rows("SELECT FROM operations WHERE deferrals > 0")

    def reports_reason(self) -> bool:
        """Whether the answer to a request names the reason; during a retry of the job there is none."""
        answer = self.call("POST", "/stop", {"reason": "finished"})
        return "waiting because Docker" in self.refused(answer, 409, "conflict")

    def test_a_restart_that_loses_docker_half_way_goes_on_by_itself(self) -> None:
        self.start_runtime()
        old = self.post("start", {"image_ref": self.engine.ref})["current_container_id"]
        [removal] = self.docker_proxy.hold(f"/containers/{old}?v=")
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(self.call, "POST", "/restart")
            self.assertTrue(removal.arrived.wait(30), "the old container was not to be removed")
            self.docker_proxy.refuse()
            message = self.refused(call.result(), 503, "service_unavailable")

        self.assertIn("goes on by itself", message)
        self.assertEqual(self.record()["current_container_id"], old, "an unreachable Docker changes no record")
        self.docker_proxy.pass_on()
        self.wait_until("the restart to end", lambda: self.record()["current_container_id"] != old)
        [container] = self.containers()
        self.assertEqual((container["Id"], self.record()["status"]), (self.record()["current_container_id"], "running"))
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop", "start", "restart"])

    def test_a_call_that_loses_postgres_half_way_answers_that_its_operation_goes_on(self) -> None:
        self.start_runtime()
        container_id = self.post("start", {"image_ref": self.engine.ref})["current_container_id"]
        [stop] = self.docker_proxy.hold(f"/containers/{container_id}/stop")
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(self.call, "POST", "/stop", {"reason": "finished"})
            self.assertTrue(stop.arrived.wait(30), "nothing was stopped")
            self.postgres_proxy.refuse()
            message = self.refused(call.result(), 503, "service_unavailable")

        self.assertIn("was accepted; how it ends is not known here", message)
        stop.release()
        self.wait_until("the end of the engine", lambda: not self.containers()[0]["State"]["Running"])
        self.assertEqual(self.record()["status"], "running", "the end cannot be written yet")
        self.postgres_proxy.pass_on()
        self.wait_until("the record", lambda: self.record()["status"] == "stopped")
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])

    def test_a_result_that_finds_redis_away_waits_and_is_published_once(self) -> None:
        self.start_runtime()
        [publication] = self.redis_proxy.hold("job_results")
        self.add_start_job()
        self.assertTrue(publication.arrived.wait(30), "there was nothing to tell")
        self.redis_proxy.refuse()
        self.assertEqual(self.record()["status"], "running")
        self.assertEqual(self.entries("runtime:job_results"), [])
        self.redis_proxy.pass_on()

        self.assertEqual(self.results()[0]["outcome"], "success")
        self.add_stop_job()
        self.assertEqual(len(self.results(2)), 2)
