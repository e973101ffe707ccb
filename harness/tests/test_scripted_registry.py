"""A registry whose answers a test defines, as the real daemon sees it."""

import threading
import unittest
from typing import Any

from harness import daemon
from harness.errors import HarnessError
from harness.fixtures import scripted_registry
from harness.fixtures.scripted_registry import Answer, ScriptedRegistry
from harness.images.recipe import inspect
from harness.runs import flag

#: The error of a pull, by the kind of request and the answer to it.
REFUSED: tuple[tuple[str, Answer, str], ...] = (
    # First: Docker does not request again what it once received correctly.
    ("config", scripted_registry.wrong_digest, "verification|unexpected|mismatch|digest"),
    ("manifest", scripted_registry.refusal(404, "MANIFEST_UNKNOWN", "not here"), "not here|not found"),
    ("manifest", scripted_registry.refusal(403, "DENIED", "not for you"), "denied|not for you"),
    ("manifest", scripted_registry.refusal(429, "TOOMANYREQUESTS", "slow down"), "slow down|toomanyrequests"),
    ("manifest", scripted_registry.login("user", "word"), "(?i)unauthorized|authentication|no basic auth"),
    ("manifest", scripted_registry.plain(200, b"<html>hello</html>"), "(?i)invalid character|unsupported|media ?type"),
    ("manifest", scripted_registry.redirect("http://127.0.0.1:1/elsewhere"), "refused"),
    ("manifest", scripted_registry.plain(500, b"oh dear"), "500"),
    ("manifest", scripted_registry.refusal(400, "UNKNOWN", "x" * 300_000), "xxx"),
)


def setUpModule() -> None:
    flag.check()


class ScriptedRegistryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.shop = scripted_registry.start()
        self.addCleanup(self.shop.close)

    def pull(self, ref: str, **how: Any) -> str:
        """Docker's error; empty when the pull succeeded."""
        from docker.errors import APIError

        repository, _, tag = ref.rpartition(":")
        try:
            for event in daemon.client().pull(repository, tag, stream=True, decode=True, **how):
                if "error" in event:
                    return str(event["error"])
        except APIError as error:
            return str(error.explanation)
        return ""

    def test_every_name_is_there(self) -> None:
        for name in ("game:1.0.0", "another/game:2"):
            self.assertEqual(self.pull(self.shop.reference(name)), "")
        self.assertIsNotNone(inspect(daemon.client(), self.shop.reference("another/game:2")))
        self.assertEqual({each.kind for each in self.shop.requests}, {"ping", "manifest", "config", "layer"})

    def test_it_refuses_as_it_is_scripted_and_is_good_again_when_it_is_healed(self) -> None:
        for number, (kind, answer, pattern) in enumerate(REFUSED):
            with self.subTest(pattern=pattern, kind=kind):
                ref = self.shop.reference(f"game{number}:1")
                self.shop.answer(kind, answer)
                message = self.pull(ref)
                self.shop.heal()
                self.assertRegex(message, pattern)
                self.assertEqual(self.pull(ref), "")

    def test_credentials_are_requested_and_seen(self) -> None:
        self.shop.answer("any", scripted_registry.login("user", "word"))
        self.assertEqual(self.pull(self.shop.reference(), auth_config={"username": "user", "password": "word"}), "")
        self.assertTrue(all(each.credentials for each in self.shop.requests if each.kind == "manifest"))

    def test_what_is_silent_or_slow_goes_on_when_it_is_healed(self) -> None:
        for kind, answer in (("manifest", scripted_registry.silence), ("layer", scripted_registry.slow(1))):
            with self.subTest(kind):
                self.assert_goes_on(kind, answer)

    def assert_goes_on(self, kind: str, answer: Answer) -> None:
        self.shop.answer(kind, answer)
        ends: list[str] = []
        pulling = threading.Thread(target=lambda: ends.append(self.pull(self.shop.reference(f"{kind}:1"))))
        pulling.start()
        self.shop.wait_for_requests(kind)
        self.assertTrue(pulling.is_alive())
        self.shop.heal()
        pulling.join(60)
        self.assertEqual(len(ends), 1)

    def test_a_kind_that_there_is_not_is_named(self) -> None:
        with self.assertRaisesRegex(HarnessError, "'blob' is no kind of request: ping, manifest"):
            self.shop.answer("blob", scripted_registry.silence)

    def test_its_images_go_with_it(self) -> None:
        with ScriptedRegistry() as shop:
            ref = shop.reference()
            self.assertEqual(self.pull(ref), "")
        self.assertIsNone(inspect(daemon.client(), ref))
