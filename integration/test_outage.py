"""PostgreSQL or Redis is away or silent: callers are told in time, nothing is lost, a stop ends all the same."""

import time

from harness import web
from harness.case import RuntimeTestCase, start_services
from harness.waiting import wait_until

#: A silent server is given up after eight seconds; a call may wait for it twice.
TOLD_WITHIN_S = 20.0


def setUpModule() -> None:
    start_services()


class Outage(RuntimeTestCase):
    def test_a_silent_postgres_is_told_to_callers_and_loses_no_job(self) -> None:
        self.start_process()
        postgres = self.services.postgres.container
        postgres.pause()
        try:
            self.add_start_job()
            began = time.monotonic()
            self.refused(self.call("GET", ""), 503, "service_unavailable")
            self.refused(self.call("POST", "/stop", {"reason": "finished"}), 503, "service_unavailable")
            self.assertLess(time.monotonic() - began, 2 * TOLD_WITHIN_S)
            status, answer = web.call("GET", f"{self.base_url}/readyz")
            self.assertEqual(status, 503)
            self.assertIn("postgres", answer["error"]["message"])
            self.assertEqual(web.call("GET", f"{self.base_url}/healthz")[0], 200)
        finally:
            postgres.unpause()

        self.assertEqual(self.results()[0]["outcome"], "success")
        wait_until("readiness", lambda: web.call("GET", f"{self.base_url}/readyz")[0] == 200, timeout_s=20)

    def test_a_manager_ends_though_postgres_is_silent(self) -> None:
        process = self.start_process(SHUTDOWN_TIMEOUT="1s")
        postgres = self.services.postgres.container
        postgres.pause()
        try:
            self.assertEqual(process.terminate(timeout_s=30), 0)
        finally:
            postgres.unpause()

    def test_while_redis_is_silent_no_call_is_accepted_and_afterwards_all_goes_on(self) -> None:
        self.start_process()
        redis = self.services.redis.container
        redis.pause()
        try:
            message = self.refused(
                self.call("POST", "/start", {"image_ref": self.engine.ref}), 503, "service_unavailable"
            )
            self.assertIn("redis", message)
            self.assertEqual(self.log_rows(), [])
            self.assertEqual(web.call("GET", f"{self.base_url}/api/v1/internal/runtimes")[0], 200)
        finally:
            redis.unpause()
        self.add_start_job()

        self.assertEqual(self.results()[0]["outcome"], "success")
        self.assertNotIn('"dependency": "postgres"', self.log.read_text(), "nobody blames what answers")

    def test_redis_that_comes_back_empty_and_a_lost_group_are_made_good(self) -> None:
        self.start_process()
        self.redis.flushall()
        self.add_start_job()
        self.results(1)
        self.redis.xgroup_destroy("runtime:stop_jobs", "rtmanager")
        self.add_stop_job()

        self.assertEqual([each["error_code"] for each in self.results(2)], ["", ""])

    def test_a_signal_that_comes_while_the_process_is_frozen_is_not_lost(self) -> None:
        process = self.start_process()
        for signal in ("STOP", "TERM", "CONT"):
            process.send(signal)

        self.assertEqual(process.process.wait(20), 0)

    def test_a_container_that_a_person_started_again_is_not_forgotten(self) -> None:
        self.start_runtime()
        self.post("start", {"image_ref": self.engine.ref})
        stopped = self.post("stop", {"reason": "finished"})
        self.docker.start(stopped["current_container_id"])

        self.refused(self.call("DELETE", "/container"), 409, "conflict")
        patched = self.post("patch", {"image_ref": self.engine.patched_ref})

        self.assertEqual([each["Id"] for each in self.containers()], [patched["current_container_id"]])
