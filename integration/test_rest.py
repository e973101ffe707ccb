"""The REST interface: each operation's answer in each state of a game, and the common part of all answers."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from harness import start_services, web
from harness.rtm import RuntimeTestCase
from integration.support.proxied import ProxiedTestCase

JSON = "application/json; charset=utf-8"


def setUpModule() -> None:
    start_services()


class RestTestCase(RuntimeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()

    def start(self, image_ref: str = "") -> dict[str, Any]:
        return self.post("start", {"image_ref": image_ref or self.engine.ref})

    def every_operation(self, game_id: str | None = None) -> dict[str, tuple[int, Any]]:
        """The answer of each operation that needs a record, and of a read of it."""
        calls: dict[str, tuple[str, str, object]] = {
            "get": ("GET", "", None),
            "stop": ("POST", "/stop", {"reason": "finished"}),
            "restart": ("POST", "/restart", None),
            "patch": ("POST", "/patch", {"image_ref": self.engine.patched_ref}),
            "cleanup": ("DELETE", "/container", None),
        }
        return {name: self.call(method, path, body, game_id=game_id) for name, (method, path, body) in calls.items()}


class Operations(RestTestCase):
    def test_every_operation_but_start_needs_a_record(self) -> None:
        for name, answer in self.every_operation().items():
            with self.subTest(name):
                self.assertIn(self.game_id, self.refused(answer, 404, "not_found"))
        self.assertEqual({row["error_code"] for row in self.log_rows()}, {"not_found"})

    def test_a_game_whose_id_cannot_be_one_is_refused_by_every_operation(self) -> None:
        for game_id in ("with blank", "a" * 52, "-x", "käse", "..", "a/b", "a\0b"):
            path = quote(game_id, safe="")
            for name, answer in self.every_operation(path).items():
                with self.subTest(game_id, operation=name):
                    self.refused(answer, 400, "invalid_request")
        for game_id in ("with%20blank", "a" * 52, "-x"):
            with self.subTest(game_id, operation="start"):
                answer = self.call("POST", "/start", {"image_ref": self.engine.ref}, game_id=game_id)
                self.refused(answer, 400, "start_config_invalid")

    def test_what_does_not_fit_the_state_of_a_game_is_a_conflict(self) -> None:
        started = self.start()
        message = self.refused(self.call("POST", "/start", {"image_ref": self.engine.patched_ref}), 409, "conflict")
        self.assertIn(self.engine.ref, message)
        self.refused(self.call("DELETE", "/container"), 409, "conflict")
        self.assertEqual(self.succeed(self.call("GET", "")), started)
        self.post("stop", {"reason": "finished"})
        removed = self.succeed(self.call("DELETE", "/container"))
        self.refused(self.call("POST", "/restart"), 409, "conflict")
        self.refused(self.call("POST", "/patch", {"image_ref": self.engine.patched_ref}), 409, "conflict")

        self.assertEqual(self.succeed(self.call("GET", "")), removed)
        kinds = [row["op_kind"] for row in self.log_rows() if row["error_code"] == "conflict"]
        self.assertEqual(kinds, ["start", "cleanup_container", "restart", "patch"])

    def test_a_restart_whose_image_is_gone_fails_and_leaves_the_game_running(self) -> None:
        repository = f"registry.invalid/{self.game_id.lower()}"
        self.docker.tag(self.engine.image_id, repository, "1.0.0")
        before = self.start(f"{repository}:1.0.0")
        self.docker.remove_image(f"{repository}:1.0.0")

        self.refused(self.call("POST", "/restart"), 500, "image_pull_failed")

        self.assertEqual(self.succeed(self.call("GET", "")), before)
        [container] = self.containers()
        self.assertTrue(container["State"]["Running"])

    def test_what_the_store_refuses_for_good_is_an_internal_error(self) -> None:
        self.start()
        with self.services.database.connect() as connection:
            connection.execute("ALTER TABLE runtime_records ADD CONSTRAINT refused CHECK (status <> 'stopped')")
            try:
                message = self.refused(self.call("POST", "/stop", {"reason": "finished"}), 500, "internal_error")
            finally:
                connection.execute("ALTER TABLE runtime_records DROP CONSTRAINT refused")

        self.assertIn("refused", message)
        self.assertEqual(self.log_rows()[-1]["error_code"], "internal_error")
        self.assertEqual(self.post("stop", {"reason": "finished"})["status"], "stopped")


class HalfWay(ProxiedTestCase):
    def test_a_restart_that_cannot_start_leaves_the_game_stopped_with_three_rows(self) -> None:
        self.start_runtime()
        running = self.post("start", {"image_ref": self.engine.ref})["current_container_id"]
        [creation] = self.docker_proxy.hold("/containers/create")
        with ThreadPoolExecutor(1) as threads:
            restart = threads.submit(self.call, "POST", "/restart")
            self.assertTrue(creation.arrived.wait(30), "there was no container to be created")
            # Its container stays: the manager does not trust an absence while the network is gone.
            self.docker.disconnect_container_from_network(running, self.network.network_id, force=True)
            self.docker.remove_network(self.network.network_id)
            creation.release()
            message = self.refused(restart.result(), 500, "container_start_failed")

        self.assertIn("network", message)
        record = self.succeed(self.call("GET", ""))
        self.assertEqual((record["status"], record["current_container_id"]), ("stopped", None))
        self.assertEqual(record["current_image_ref"], self.engine.ref)
        rows = [(row["op_kind"], row["outcome"]) for row in self.log_rows()]
        self.assertEqual(rows[1:], [("stop", "success"), ("start", "failure"), ("restart", "failure")])
        self.assertEqual(self.containers(), [])

    def test_a_container_that_goes_first_is_nothing_to_stop_and_made_anew_by_a_restart(self) -> None:
        self.start_runtime()
        for operation, status in (("restart", "running"), ("stop", "removed")):
            with self.subTest(operation):
                before = self.post("start", {"image_ref": self.engine.ref})["current_container_id"]
                # If it ended sooner, the watch might detect it first and change the record.
                [stopping] = self.docker_proxy.hold(f"/containers/{before}/stop")
                with ThreadPoolExecutor(1) as threads:
                    done = threads.submit(self.post, operation, {"reason": "finished"} if operation == "stop" else None)
                    self.assertTrue(stopping.arrived.wait(30), "there was no container to be stopped")
                    self.docker.remove_container(before, force=True)
                    stopping.release()
                    record = done.result()

                self.assertEqual(record["status"], status)
                self.assertNotEqual(record["current_container_id"], before)
                ids = [record["current_container_id"]] if status == "running" else []
                self.assertEqual([each["Id"] for each in self.containers()], ids)


class Answers(RestTestCase):
    def request(self, method: str, path: str, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, Any]:
        """An exchange with only the given headers."""
        connection = http.client.HTTPConnection(self.base_url.removeprefix("http://"), timeout=30)
        try:
            body = b'{"reason":"finished"}' if method == "POST" else None
            typed = headers if body is None else {"Content-Type": "application/json", **headers}
            connection.request(method, path, body, typed)
            answer = connection.getresponse()
            return answer, json.loads(answer.read())
        finally:
            connection.close()

    def test_every_answer_is_json_and_every_refusal_has_code_and_message_alone(self) -> None:
        self.wait_until_ready()
        runtimes = "/api/v1/internal/runtimes"
        for method, path, status in (
            ("GET", "/healthz", 200),
            ("GET", "/readyz", 200),
            ("GET", runtimes, 200),
            ("GET", f"{runtimes}/{self.game_id}", 404),
            ("GET", f"{runtimes}?limit=0", 400),
            ("POST", f"{runtimes}/{self.game_id}/stop", 404),
            ("GET", "/nowhere", 404),
            ("PUT", "/healthz", 405),
        ):
            with self.subTest(path):
                answer, body = self.request(method, path, {})
                self.assertEqual((answer.status, answer.headers["Content-Type"]), (status, JSON))
                if status != 200:
                    self.assertEqual((list(body), list(body["error"])), (["error"], ["code", "message"]))
                    self.assertGreater(len(body["error"]["message"]), 10)

    def test_the_caller_is_the_source_of_the_operation(self) -> None:
        path = f"/api/v1/internal/runtimes/{self.game_id}/stop"
        for headers in ({"X-Galaxy-Caller": "gm"}, {"X-Galaxy-Caller": "admin"}, {"X-Galaxy-Caller": "GM?"}, {}):
            self.assertEqual(self.request("POST", path, headers)[0].status, 404)

        sources = [row["op_source"] for row in self.log_rows()]
        self.assertEqual(sources, ["gm_rest", "admin_rest", "admin_rest", "admin_rest"])

    def test_the_id_of_a_request_comes_back_and_is_the_source_ref_of_its_operation(self) -> None:
        path = f"/api/v1/internal/runtimes/{self.game_id}/stop"
        given = ("turn-17.a_b", "not an id", "")
        answered = [self.request("POST", path, {"X-Request-Id": each})[0].headers["X-Request-Id"] for each in given]

        self.assertEqual(answered[0], "turn-17.a_b")
        self.assertNotIn("not an id", answered)
        self.assertEqual(len(set(answered)), 3)
        self.assertEqual([row["source_ref"] for row in self.log_rows()], [f"rest:{each}" for each in answered])

    def test_readiness_names_what_does_not_answer_and_liveness_queries_nothing(self) -> None:
        ready = (200, {"status": "ready"})
        self.wait_until("readiness", lambda: web.call("GET", f"{self.base_url}/readyz") == ready)
        self.network.remove()

        message = self.refused(web.call("GET", f"{self.base_url}/readyz"), 503, "service_unavailable")

        named = [part.partition(":")[0] for part in message.removeprefix("not ready: ").split("; ")]
        self.assertIn("network", named, message)
        self.assertIn(self.network.name, message)
        for other in ("postgres", "redis"):
            self.assertNotIn(other, message)
        self.assertEqual(web.call("GET", f"{self.base_url}/healthz"), (200, {"status": "ok"}))
