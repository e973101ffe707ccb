"""The operator's policy on images, and what callers learn of a registry: on a real manager, daemon and registry."""

from functools import partial

from harness import scripted_registry, start_services
from harness.fixtures import listening
from harness.fixtures.listening import free_port
from harness.fixtures.scripted_registry import Answer, Exchange
from harness.images.recipe import inspect
from harness.rtm import RuntimeTestCase, unique_game_id
from integration.support import images
from rtmanager.fakes import tiny_image

SECRET = "S3cret"
PAGE = f"<html>{SECRET}: denied, manifest unknown, connection refused, EOF</html>".encode()
HIDDEN = "the registry's answer is in the manager's log"


def setUpModule() -> None:
    start_services()


def drip(exchange: Exchange) -> None:
    """Begin an answer that does not end by itself."""
    exchange.send_response(200)
    exchange.send_header("Content-Type", "text/html")
    exchange.end_headers()
    while not exchange.server.healed.wait(0.05):
        exchange.wfile.write(PAGE)


class RegistryTestCase(RuntimeTestCase):
    """A registry of the test's own, which counts its requests."""

    def setUp(self) -> None:
        super().setUp()
        if not listening.shares_our_network():
            self.skipTest("the daemon does not reach this process, so there is no registry of a test's own")
        layer = tiny_image.archive(str(self.docker.version()["Arch"]), "waits")
        self.shop = scripted_registry.start(layer, tiny_image.COMMAND)
        self.at_end(self.shop.close)
        self.at_end(self.network.remove)  # containers of an image are removed before it

    def start_refused(self, ref: str) -> str:
        answer = self.call("POST", "/start", {"image_ref": ref})
        return self.refused(answer, 400, "start_config_invalid")


class Policy(RegistryTestCase):
    def test_a_registry_on_the_host_itself_is_not_called_and_its_ports_look_alike(self) -> None:
        closed = free_port()
        self.start_runtime(IMAGE_ALLOW="")
        messages = set()
        for port in (self.shop.port, closed):
            for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "a.localhost"):
                registry, game_id = f"{host}:{port}", unique_game_id("job")
                message = self.start_refused(f"{registry}/x/y:1")
                messages.add(message.replace(registry, "it"))
                self.add_start_job(f"{registry}/x/y:1", game_id)
        self.assertEqual(len(messages), 1, messages)
        self.assertEqual({each["error_code"] for each in self.results(10)}, {"start_config_invalid"})
        self.assertEqual(self.shop.requests, [])

    def test_a_game_whose_image_is_refused_by_now_runs_on_and_is_stopped_as_any(self) -> None:
        near = images.tiny("waits")
        with self.start_runtime(IMAGE_ALLOW=near):
            before = self.post("start", {"image_ref": near})
        self.start_runtime(IMAGE_ALLOW="registry.example/games/**")
        self.refused(self.call("POST", "/restart"), 400, "start_config_invalid")
        self.refused(self.call("POST", "/patch", {"image_ref": self.engine.patched_ref}), 400, "start_config_invalid")
        [container] = self.containers()
        self.assertEqual(container["Id"], before["current_container_id"])
        self.assertTrue(container["State"]["Running"])
        self.post("start", {"image_ref": near})  # a replay
        self.post("stop", {"reason": "finished"})
        self.start_refused(near)

    def test_with_digests_required_a_tag_alone_is_refused_and_a_tag_with_a_digest_is_started_and_patched(self) -> None:
        self.docker.pull(self.shop.reference("game"), "1.0.0")
        name = self.shop.reference("game")
        [digest] = {
            found.partition("@")[2]
            for found in (inspect(self.docker, f"{name}:1.0.0") or {})["RepoDigests"]
            if found.startswith(self.shop.host)
        }
        self.start_runtime(IMAGE_ALLOW=f"{self.shop.host}/*/game:1.0.*", IMAGE_REQUIRE_DIGEST="on")
        self.assertIn("RTMANAGER_IMAGE_REQUIRE_DIGEST", self.start_refused(f"{name}:1.0.0"))
        self.assertIn("RTMANAGER_IMAGE_ALLOW", self.start_refused(f"{name}:1.1.0@{digest}"))
        self.post("start", {"image_ref": f"{name}:1.0.0@{digest}"})
        patched = self.post("patch", {"image_ref": f"{name}:1.0.1@{digest}"})
        self.assertEqual(patched["current_image_ref"], f"{name}:1.0.1@{digest}")
        self.refused(self.call("POST", "/patch", {"image_ref": f"{name}:1.0.2"}), 400, "start_config_invalid")


class Answers(RegistryTestCase):
    """A server that is no registry, such as an internal one, keeps its text."""

    def test_no_text_of_a_server_reaches_a_caller_a_result_a_notification_or_the_operation_log(self) -> None:
        plain, refusal = scripted_registry.plain, scripted_registry.refusal
        realm = {"WWW-Authenticate": f'Bearer realm="http://{self.shop.host}/{SECRET}",service="{SECRET}"'}
        answers: dict[str, tuple[str, Answer]] = {
            "200": (HIDDEN, plain(200, PAGE)),
            "404": (HIDDEN, plain(404, PAGE)),
            "500": (HIDDEN, plain(500, f"Traceback: {SECRET}\n\x1b[2J".encode() * 99, "text/plain")),
            "realm": (HIDDEN, plain(401, PAGE, headers=realm)),
            "login": ("unauthorized", plain(401, PAGE, headers={"WWW-Authenticate": f'Basic realm="{SECRET}"'})),
            "code": (HIDDEN, refusal(500, SECRET, SECRET)),
            "unknown": ("manifest unknown", refusal(404, "MANIFEST_UNKNOWN", SECRET)),
            "many": ("toomanyrequests", refusal(429, "TOOMANYREQUESTS", SECRET)),
            "elsewhere": (HIDDEN, scripted_registry.redirect(f"http://127.0.0.1:1/{SECRET}")),
            "page": (HIDDEN, scripted_registry.redirect(f"http://{self.shop.host}/{SECRET}")),
            "endless": ("no progress for 1 s", drip),
        }
        self.start_runtime(IMAGE_PULL_PROGRESS_TIMEOUT="1s")
        for number, (name, (expected, answer)) in enumerate(answers.items()):
            with self.subTest(name):
                self.shop.answer("any", partial(self.answer, answer))
                self.shop.answer("manifest", answer)
                ref = self.shop.reference(f"game{number}:1")
                message = self.refused(self.call("POST", "/start", {"image_ref": ref}), 500, "image_pull_failed")
                self.assertIn(expected, message)
                if name == "page":  # a job is answered as a call is
                    self.add_start_job(ref)
                    self.assertEqual([each["error_message"] for each in self.results()], [message])
                self.shop.heal()
        seen = [*self.rows("SELECT * FROM operation_log"), *self.rows("SELECT * FROM operations")]
        seen += [*self.entries("notification:intents"), *self.entries("runtime:job_results")]
        self.assertNotIn(SECRET.lower(), repr(seen).lower())
        logged = [line for line in self.log.read_text().splitlines() if "ends a pull" in line]
        self.assertTrue(any(SECRET in line for line in logged))
        self.assertTrue(all(line.isprintable() and len(line) < 6_000 for line in logged))

    @staticmethod
    def answer(answer: Answer, exchange: Exchange) -> None:
        """Answer a path that the registry does not know: what it redirected to, or its token server."""
        if SECRET in exchange.path:
            scripted_registry.plain(200, PAGE)(exchange)
        else:
            answer(exchange)
