"""Registries and credential helpers that fail, hang or send garbage: each start is answered, others do not wait."""

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from harness import scripted_registry, start_services
from harness.fixtures import listening
from harness.fixtures.scripted_registry import Answer
from harness.images.recipe import inspect
from harness.rtm import RuntimeTestCase, unique_game_id
from integration.support import images
from rtmanager.fakes import tiny_image

#: Starts that wait for a silent registry.
WAITING = 14
#: Seconds for anything prompt, on a busy machine.
SOON_S = 20.0


def setUpModule() -> None:
    start_services()


class Failing(RuntimeTestCase):
    def setUp(self) -> None:
        super().setUp()
        if not listening.shares_our_network():
            self.skipTest("the daemon does not reach this process, so there is no registry of a test's own")
        layer = tiny_image.archive(str(self.docker.version()["Arch"]), "waits")
        self.shop = scripted_registry.start(layer, tiny_image.COMMAND)
        self.at_end(self.shop.close)
        self.at_end(self.network.remove)  # containers of an image are removed before it
        home = tempfile.TemporaryDirectory()
        self.at_end(home.cleanup)
        self.home = Path(home.name)
        path = f"{home.name}:{os.environ['PATH']}"
        patch = mock.patch.dict(os.environ, {"DOCKER_CONFIG": home.name, "PATH": path})
        patch.start()
        self.at_end(patch.stop)

    def configure(self, content: object) -> None:
        """Write Docker's config.json."""
        (self.home / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))

    def install(self, name: str, script: str) -> None:
        """Install a credential helper."""
        program = self.home / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def pull_failed(self, ref: str) -> str:
        return self.refused(self.call("POST", "/start", {"image_ref": ref}), 500, "image_pull_failed")


class Refusals(Failing):
    def test_each_is_one_answer_with_the_registrys_message_and_not_too_many_of_them(self) -> None:
        answers: dict[str, tuple[str, Answer]] = {
            "denied": ("manifest", scripted_registry.refusal(403, "DENIED", "no")),
            "docker login": ("manifest", scripted_registry.login("user", "word")),
            "limits pulls": ("manifest", scripted_registry.refusal(429, "TOOMANYREQUESTS", "slow down")),
            "was pushed": ("manifest", scripted_registry.refusal(404, "MANIFEST_UNKNOWN", "manifest unknown")),
            "in the manager's log": ("manifest", scripted_registry.plain(500, b"<html>oh dear</html>")),
            "no progress for 1 s": ("manifest", scripted_registry.silence),
        }
        self.start_runtime(IMAGE_PULL_PROGRESS_TIMEOUT="1s")
        for number, (text, (kind, answer)) in enumerate(answers.items()):
            with self.subTest(text):
                self.shop.answer(kind, answer)
                self.assertIn(text, self.pull_failed(self.shop.reference(f"game{number}:1")))
                self.shop.heal()
        self.post("start", {"image_ref": self.shop.reference("game0:1")})

    def test_a_layer_that_breaks_off_or_is_wrong_fails_and_a_good_one_later_does_not(self) -> None:
        self.start_runtime(IMAGE_PULL_PROGRESS_TIMEOUT="2s")
        for kind, answer in (("config", scripted_registry.wrong_digest), ("layer", scripted_registry.cut(100))):
            self.shop.answer(kind, answer)
            self.pull_failed(self.shop.reference(f"{kind}:1"))
            self.shop.heal()
        self.post("start", {"image_ref": self.shop.reference("layer:1")})


class Silence(Failing):
    def test_a_silent_registry_delays_only_the_games_that_need_it(self) -> None:
        other = scripted_registry.start(
            tiny_image.archive(str(self.docker.version()["Arch"]), "waits"), tiny_image.COMMAND
        )
        self.at_end(other.close)
        self.at_end(self.network.remove)
        self.shop.answer("any", scripted_registry.silence)
        self.start_runtime(MAX_PARALLEL_OPERATIONS="4", PULLS_PER_REGISTRY="3")
        silent = [unique_game_id(f"silent{number}") for number in range(WAITING)]
        before = threading.active_count()
        for number, game_id in enumerate(silent):
            self.add_start_job(self.shop.reference(f"game{number}:1"), game_id)
        self.wait_until("all claimed", lambda: self.claimed() == WAITING)

        present, pulled = unique_game_id("present"), unique_game_id("pulled")
        began = time.monotonic()
        self.add_start_job(images.tiny("waits"), present)
        self.add_start_job(other.reference(), pulled)
        results = {each["game_id"]: each["outcome"] for each in self.results(2)}

        self.assertEqual(results, {present: "success", pulled: "success"})
        self.assertLess(time.monotonic() - began, SOON_S)
        self.assertLess(threading.active_count() - before, 30, "a waiting start needs no thread")
        self.add_stop_job(game_id=present)
        self.assertEqual({each["game_id"] for each in self.results(3)}, {present, pulled})
        self.refused(self.call("POST", "/stop", {"reason": "cancelled"}, game_id=silent[0]), 409, "conflict")

        self.shop.heal()
        outcomes = [each["outcome"] for each in self.results(WAITING + 3)]
        self.assertEqual(outcomes, ["success"] * (WAITING + 3))

    def claimed(self) -> int:
        [row] = self.rows("SELECT count(*) FROM operations WHERE state = 'running'")
        return int(row["count"])

    def test_a_manager_stops_in_time_while_starts_wait_and_the_next_one_does_them(self) -> None:
        self.shop.answer("any", scripted_registry.silence)
        process = self.start_process(SHUTDOWN_TIMEOUT="300ms", PULLS_PER_REGISTRY="2")
        games = [unique_game_id(f"g{number}") for number in range(6)]
        for number, game_id in enumerate(games):
            self.add_start_job(self.shop.reference(f"game{number}:1"), game_id)
        self.wait_until("all claimed", lambda: self.claimed() == len(games))
        began = time.monotonic()
        self.assertEqual(process.terminate(), 0)
        self.assertLess(time.monotonic() - began, SOON_S)
        self.shop.heal()
        self.start_runtime()
        self.assertEqual([each["outcome"] for each in self.results(len(games))], ["success"] * len(games))


class Helpers(Failing):
    def test_after_one_that_hung_is_mended_a_new_start_succeeds_at_once(self) -> None:
        ref = self.shop.reference()
        self.install("rtm", "exec sleep 600")
        self.configure({"credHelpers": {self.shop.host: "rtm"}})
        self.start_runtime(IMAGE_PULL_PROGRESS_TIMEOUT="1s")
        self.assertIn("docker-credential-rtm had not answered after 1 s", self.pull_failed(ref))
        self.install("rtm", 'echo \'{"Username": "user", "Secret": "word"}\'')
        self.shop.answer("any", scripted_registry.login("user", "word"))
        began = time.monotonic()
        self.post("start", {"image_ref": ref})
        self.assertLess(time.monotonic() - began, SOON_S)

    def test_one_that_is_not_installed_or_has_no_entry_is_gone_without(self) -> None:
        self.install("empty", "true")
        self.install("not-found", "echo credentials not found in native keychain; exit 1")
        self.start_runtime()
        for name in ("not-installed", "empty", "not-found"):
            with self.subTest(name):
                self.configure({"credsStore": name})
                self.post("start", {"image_ref": self.shop.reference(f"{name}:1")}, game_id=unique_game_id(name))
        self.shop.answer("any", scripted_registry.login("user", "word"))
        self.configure({"credsStore": "not-installed"})
        message = self.pull_failed(self.shop.reference("private:1"))
        self.assertIn("docker-credential-not-installed is not installed", message)

    def test_whatever_is_written_into_dockers_configuration_while_it_serves_starts_go_on(self) -> None:
        writers: tuple[Callable[[], object], ...] = (
            lambda: self.configure({"proxies": None}),
            lambda: self.configure("{"),
            lambda: self.configure({"auths": None, "credHelpers": 5}),
            lambda: self.configure("\ufeff{}"),
        )
        self.start_runtime()
        for number, write in enumerate(writers):
            write()
            with self.subTest(number):
                game_id = unique_game_id(f"g{number}")
                self.post("start", {"image_ref": self.shop.reference(f"game{number}:1")}, game_id=game_id)
        (self.home / "config.json").unlink()
        (self.home / "config.json").mkdir()
        self.post("start", {"image_ref": self.shop.reference("last:1")})


class References(Failing):
    def test_what_docker_calls_malformed_is_refused_once_by_both_ways(self) -> None:
        self.start_runtime()
        malformed = ("Up/x:1", "a" * 64, "[::1]:5000/x:1", "sha256:1", "scratch", "a" * 250, "x@sha256:" + "A" * 64)
        for ref in malformed:
            self.refused(self.call("POST", "/start", {"image_ref": ref}), 400, "start_config_invalid")
            self.add_start_job(ref, unique_game_id("job"))
        results = self.results(len(malformed))
        self.assertEqual({each["error_code"] for each in results}, {"start_config_invalid"})

    def test_with_tag_and_digest_the_digest_is_pulled_run_and_recorded_as_it_was_given(self) -> None:
        self.start_runtime()
        self.docker.pull(self.shop.reference("game"), "1.0.0")
        [digest] = {
            found.partition("@")[2]
            for found in (inspect(self.docker, self.shop.reference()) or {})["RepoDigests"]
            if found.startswith(self.shop.host)
        }
        self.docker.remove_image(self.shop.reference())
        ref = f"{self.shop.reference()}@{digest}"
        self.post("start", {"image_ref": ref})
        self.assertEqual(self.record()["current_image_ref"], ref)
        self.post("restart", {})
        wrong = f"{self.shop.reference()}@sha256:{'0' * 64}"
        self.refused(self.call("POST", "/patch", {"image_ref": wrong}), 500, "image_pull_failed")
        self.post("stop", {"reason": "finished"})

    def test_a_game_whose_recorded_reference_is_refused_by_now_can_be_stopped_and_cleaned_up(self) -> None:
        self.start_runtime()
        self.post("start", {"image_ref": self.shop.reference()})
        self.rows("UPDATE runtime_records SET current_image_ref = 'Up/x:1' RETURNING game_id")
        self.refused(self.call("POST", "/restart", {}), 400, "start_config_invalid")
        self.refused(self.call("POST", "/patch", {"image_ref": self.shop.reference()}), 400, "image_ref_not_semver")
        self.post("stop", {"reason": "finished"})
        self.refused(self.call("POST", "/restart", {}), 400, "start_config_invalid")
        self.succeed(self.call("DELETE", "/container"))
