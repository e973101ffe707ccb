"""Who may call the REST interface: an attack from inside a game, its neighbours, tokens and their rotation."""

import json
from collections.abc import Sequence
from typing import Any

from harness import start_services, web
from harness.fixtures.container import Container
from harness.rtm import RuntimeTestCase
from harness.rtm.in_process import LiveRuntime
from integration import test_rest

RUNTIMES = "/api/v1/internal/runtimes"
GM, ADMIN, READ = "gm-token-of-the-suite", "admin-token-of-the-suite", "read-token-of-the-suite"

#: Sends requests from inside a container, each as [method, path, body, headers]; prints a list of status and body.
_CALLS = """
import http.client, json, sys
host, port, requests = sys.argv[1:]
answers = []
for method, path, body, headers in json.loads(requests):
    if body is not None:
        body, headers["Content-Type"] = json.dumps(body), "application/json"
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answers.append([answer.status, answer.read().decode()])
print(json.dumps(answers))
"""

#: Method, path and body.
Call = tuple[str, str, object]


def setUpModule() -> None:
    start_services()


class AccessTestCase(RuntimeTestCase):
    def write_tokens(self, **tokens: str) -> str:
        """Write tokens by role, each for the caller `suite`; return their directory."""
        directory = self.state_root.folder("tokens")
        for role, token in tokens.items():
            file = directory / f"{role}.suite"
            file.touch(0o600)
            file.write_text(f"{token}\n")
        return str(directory)

    def start_reachable(self, **changes: str) -> LiveRuntime:
        """Start a manager that containers reach; `call` reaches it by the loopback address."""
        return self.start_runtime(INTERNAL_HTTP_ADDR=":0", **changes)

    def calls_from(self, container: Container, calls: Sequence[Call], **headers: str) -> list[tuple[int, str]]:
        """Send requests to the manager from inside a container, by the network of the games."""
        port = self.base_url.rpartition(":")[2]
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        requests = json.dumps([[*call, given] for call in calls])
        code, output = container.exec(
            ["python3", "-S", "-c", _CALLS, self.network.gateway, port, requests], timeout_s=60
        )
        self.assertEqual(code, 0, output)
        return [(status, body) for status, body in json.loads(output)]

    def call_from(
        self, container: Container, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any]:
        """Send one request from inside a container."""
        [(status, answer)] = self.calls_from(container, [(method, path, body)], **headers)
        return status, json.loads(answer)

    def start_game(self, game_id: str) -> Container:
        authorized = {"Authorization": f"Bearer {GM}"}
        path = f"{self.base_url}{RUNTIMES}/{game_id}/start"
        record = self.succeed(web.call("POST", path, {"image_ref": self.engine.ref}, authorized))
        return Container(record["current_container_id"], self.docker)

    def start_neighbour(self) -> Container:
        """Start a container in the network of the games that is none."""
        return self.start_container(self.engine.ref, entrypoint=["sleep", "600"], network=self.network.name)

    def audits(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if "  audit=" in line]


class FromInsideAGame(AccessTestCase):
    def state(self) -> list[object]:
        """All that an attack could change."""
        tables = ("operations", "operation_log", "runtime_records")
        rows = [self.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables]
        label = "com.galaxy.kind=game-engine"
        running = sorted(each["Id"] for each in self.docker.containers(filters={"label": label}))
        return [*rows, [each for each in running if each in self.network.containers()]]

    def attack(self, game: Container, victim: str, **headers: str) -> None:
        """Try what a game must not do; nothing may come of it."""
        before = self.state()
        calls: list[Call] = [
            ("GET", RUNTIMES, None),
            ("GET", "/metrics", None),
            ("GET", f"{RUNTIMES}/{victim}/operations", None),
            ("POST", f"{RUNTIMES}/intruder/start", {"image_ref": self.engine.ref}),
            ("POST", f"{RUNTIMES}/{victim}/restart", None),
            ("POST", f"{RUNTIMES}/{victim}/stop", {"reason": "finished"}),
            ("DELETE", f"{RUNTIMES}/{victim}/container", None),
        ]
        for call, (status, answer) in zip(calls, self.calls_from(game, calls, **headers), strict=True):
            with self.subTest(call[1], headers=headers):
                self.assertEqual(status, 403, answer)
                self.assertIn("a game", self.refused((status, json.loads(answer)), 403, "invalid_request"))
        self.assertEqual(self.state(), before)

    def require_address(self, container: Container, address: str) -> None:
        """Skip the rest of the test unless Docker gave the container this free address."""
        if container.ip(self.network.name) != address:
            self.skipTest("this Docker does not reuse addresses at once")

    def test_a_game_can_do_nothing_and_its_neighbour_can(self) -> None:
        live = self.start_reachable()
        victim = f"victim-{self.game_id[-10:]}"
        self.start_game(victim)
        game = self.start_game(self.game_id)
        self.attack(game, victim)
        self.attack(game, victim, X_Galaxy_Caller="gm")

        neighbour = self.start_neighbour()
        self.assertEqual(self.call_from(neighbour, "GET", RUNTIMES)[0], 200)
        stop = self.call_from(
            neighbour, "POST", f"{RUNTIMES}/{victim}/stop", {"reason": "finished"}, X_Galaxy_Caller="gm"
        )
        self.assertEqual(self.succeed(stop)["status"], "stopped")
        address, its = game.ip(self.network.name), neighbour.ip(self.network.name)
        audits = self.audits()
        refused = [line for line in audits if "audit=refused" in line and f"address={address} " in line]
        self.assertGreaterEqual(len([line for line in refused if "method=POST" in line]), 6, audits)
        self.assertTrue([line for line in audits if "audit=allowed" in line and f"address={its} " in line], audits)

        live.stop()
        self.start_reachable(HTTP_TOKENS_DIR=self.write_tokens(gm=GM, read=READ))
        self.attack(game, victim, Authorization=f"Bearer {GM}")
        self.assertEqual(self.call_from(neighbour, "GET", RUNTIMES)[0], 401)
        self.assertEqual(self.call_from(neighbour, "GET", RUNTIMES, Authorization=f"Bearer {READ}")[0], 200)

    def test_a_game_that_gets_the_address_of_a_neighbour_is_refused_and_the_other_way_round(self) -> None:
        self.start_reachable()
        neighbour = self.start_neighbour()
        address = neighbour.ip(self.network.name)
        self.assertEqual(self.call_from(neighbour, "GET", RUNTIMES)[0], 200)
        neighbour.remove()
        game = self.start_game(self.game_id)
        self.require_address(game, address)
        self.refused(self.call_from(game, "GET", RUNTIMES), 403, "invalid_request")

        self.post("stop", {"reason": "finished"})
        neighbour = self.start_neighbour()
        self.require_address(neighbour, address)
        self.wait_until("an answer", lambda: self.call_from(neighbour, "GET", RUNTIMES)[0] == 200, 5)


class Tokens(AccessTestCase):
    def answer(self, token: str, method: str = "GET", path: str = "", body: object = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}", "X-Galaxy-Caller": "gm"}
        return web.call(method, f"{self.base_url}{RUNTIMES}{path}", body, headers)

    def test_a_token_is_rotated_while_the_manager_serves(self) -> None:
        directory = self.write_tokens(gm=GM)
        self.start_runtime(HTTP_TOKENS_DIR=directory)
        self.assertEqual((self.answer(GM)[0], self.answer(ADMIN)[0]), (200, 401))
        self.write_tokens(admin=ADMIN)
        self.wait_until("the new token", lambda: self.answer(ADMIN)[0] == 200, 5)
        self.assertEqual(self.answer(GM)[0], 200)
        (self.state_root.folder("tokens") / "gm.suite").unlink()
        self.wait_until("the end of the old token", lambda: self.answer(GM)[0] == 401, 5)
        self.assertEqual(self.answer(ADMIN)[0], 200)
        for token in (GM, ADMIN):
            self.assertNotIn(token, self.log.read_text())

    def test_the_token_decides_on_source_and_rights_and_its_caller_is_on_the_rows(self) -> None:
        self.start_runtime(HTTP_TOKENS_DIR=self.write_tokens(gm=GM, admin=ADMIN, read=READ))
        restart = ("POST", f"/{self.game_id}/restart")
        for token, status in ((GM, 404), (ADMIN, 404), (READ, 403)):
            self.assertEqual(self.answer(token, *restart)[0], status)
        self.assertEqual(web.call("GET", f"{self.base_url}/healthz"), (200, {"status": "ok"}))
        self.assertEqual(web.call("GET", f"{self.base_url}/metrics")[0], 401)
        found = [(row["op_source"], row["caller"]) for row in self.log_rows()]
        self.assertEqual(found, [("gm_rest", "suite"), ("admin_rest", "suite")])
        rows = self.rows("SELECT source, caller FROM operations ORDER BY id")
        self.assertEqual([tuple(row.values()) for row in rows], found)
        log = self.succeed(self.answer(READ, "GET", f"/{self.game_id}/operations"))
        self.assertNotIn("caller", log["items"][0], "the JSON of the operation log is a contract")


class OperationsWithTokens(test_rest.Operations):
    """The tests of every operation, with tokens in place of `X-Galaxy-Caller`."""

    def start_runtime(self, **changes: str) -> LiveRuntime:
        directory = self.state_root.folder("tokens")
        for role, token in (("gm", GM), ("admin", ADMIN)):
            (directory / f"{role}.suite").write_text(token)
        return super().start_runtime(HTTP_TOKENS_DIR=str(directory), **changes)

    def call(
        self, method: str, path: str, body: object = None, caller: str = "gm", game_id: str | None = None
    ) -> tuple[int, Any]:
        url = f"{self.base_url}{RUNTIMES}/{game_id or self.game_id}{path}"
        return web.call(method, url, body, {"Authorization": f"Bearer {GM if caller == 'gm' else ADMIN}"})
