"""REST while a dependency is unavailable: `service_unavailable` where it is needed, the usual answer elsewhere."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness import start_services, web
from harness.rtm import unique_game_id
from integration.support.proxied import ProxiedTestCase

Answer = tuple[int, Any]


def setUpModule() -> None:
    start_services()


class Away(ProxiedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()
        self.before = self.post("start", {"image_ref": self.engine.ref})

    def operations(self) -> dict[str, Answer]:
        """The answers of every operation on the running game, requested in parallel."""
        image = {"image_ref": self.engine.patched_ref}
        calls: dict[str, tuple[str, str, object]] = {
            "start": ("POST", "/start", image),
            "stop": ("POST", "/stop", {"reason": "finished"}),
            "restart": ("POST", "/restart", None),
            "patch": ("POST", "/patch", image),
            "cleanup": ("DELETE", "/container", None),
        }
        with ThreadPoolExecutor(len(calls)) as threads:
            pending = {name: threads.submit(self.call, *call) for name, call in calls.items()}
        return {name: each.result() for name, each in pending.items()}

    def queries(self) -> dict[str, Answer]:
        """The answers of the reads."""
        runtimes = f"{self.base_url}/api/v1/internal/runtimes"
        with ThreadPoolExecutor(2) as threads:
            record, found = threads.submit(self.call, "GET", ""), threads.submit(web.call, "GET", runtimes)
        return {"record": record.result(), "list": found.result()}

    def assert_unavailable(self, answers: dict[str, Answer], dependency: str) -> None:
        for name, answer in answers.items():
            with self.subTest(name, away=dependency):
                self.assertIn(dependency, self.refused(answer, 503, "service_unavailable").lower())

    def assert_not_ready(self, *away: str) -> None:
        """Readiness names exactly these dependencies, and liveness is unaffected."""
        self.wait_until(f"readiness to name {away}", lambda: self.not_ready() == away)
        self.assertEqual(web.call("GET", f"{self.base_url}/healthz"), (200, {"status": "ok"}))

    def not_ready(self) -> tuple[str, ...]:
        """The dependencies that readiness names."""
        message = self.refused(web.call("GET", f"{self.base_url}/readyz"), 503, "service_unavailable")
        named = [part.partition(":")[0] for part in message.removeprefix("not ready: ").split("; ")]
        return tuple(name for name in named if name in ("postgres", "redis", "docker", "network"))

    def assert_untouched(self) -> None:
        self.assertEqual(self.succeed(self.call("GET", "")), self.before)
        [container] = self.containers()
        self.assertEqual(container["Id"], self.before["current_container_id"])
        self.assertTrue(container["State"]["Running"])

    def test_without_docker_whatever_needs_it_is_unavailable_and_no_record_changes(self) -> None:
        other, stopped = unique_game_id("new"), unique_game_id("stopped")
        self.post("start", {"image_ref": self.engine.ref}, game_id=stopped)
        self.post("stop", {"reason": "finished"}, game_id=stopped)
        self.docker_proxy.refuse()

        image = {"image_ref": self.engine.ref}
        answers = {
            "start": self.call("POST", "/start", image, game_id=other),
            "start again": self.call("POST", "/start", image, game_id=stopped),
            "stop": self.call("POST", "/stop", {"reason": "finished"}),
            "restart": self.call("POST", "/restart"),
            "patch": self.call("POST", "/patch", {"image_ref": self.engine.patched_ref}),
            "cleanup": self.call("DELETE", "/container", game_id=stopped),
        }

        self.assert_unavailable(answers, "docker")
        self.assertEqual([answer[0] for answer in self.queries().values()], [200, 200])
        self.assert_not_ready("docker", "network")
        self.docker_proxy.pass_on()
        self.assert_untouched()
        self.assertEqual(self.record(other), {})
        self.assertEqual(self.record(stopped)["status"], "stopped")
        codes = [row["error_code"] for row in self.log_rows()]
        self.assertEqual(codes, [None, *["service_unavailable"] * 3], "a call that was given up is in the log")
        self.assertEqual(self.entries("notification:intents"), [])

    def test_without_postgres_all_but_liveness_is_unavailable(self) -> None:
        self.postgres_proxy.refuse()

        self.assert_unavailable({**self.operations(), **self.queries()}, "postgres")
        self.assert_not_ready("postgres")

        self.postgres_proxy.pass_on()
        self.wait_until_ready()
        self.assert_untouched()
        self.assertEqual(len(self.log_rows()), 1, "nothing was accepted")

    def test_without_redis_no_operation_is_accepted_and_what_is_known_is_returned(self) -> None:
        self.redis_proxy.refuse()

        self.assert_unavailable(self.operations(), "redis")
        self.assertEqual([answer[0] for answer in self.queries().values()], [200, 200])
        self.assert_not_ready("redis")

        self.redis_proxy.pass_on()
        self.wait_until_ready()
        self.assert_untouched()
        self.assertEqual(len(self.log_rows()), 1)
        self.assertEqual(self.rows("SELECT FROM operations WHERE state <> 'done'"), [])
