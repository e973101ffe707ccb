"""The source of a game's image: the three policies, and registries that reject, are gone or hang in the middle.

The registry is real, and its own log proves the requests. The images only wait: Docker has one of them under another
name already, and the others add a small layer that Docker must fetch.
"""

import json
import time
import unittest

from harness import start_services
from harness.fixtures import listening, registry
from harness.fixtures.registry import Registry
from harness.fixtures.stalling import Stalling
from harness.images.recipe import inspect
from harness.images.variant import variant
from harness.rtm import RuntimeTestCase, unique_game_id
from harness.runs import identity
from integration.support import images

#: Seconds on a busy machine in which a pull with an idle timeout of a second times out; the default is a minute.
GIVEN_UP_WITHIN_S = 30.0

#: Seconds on a busy machine in which a manager with 300 ms to finish operations has ended.
ENDED_WITHIN_S = 20.0

SHOP: Registry


def setUpModule() -> None:
    global SHOP
    start_services()
    SHOP = registry.start()
    if not identity.keeps():
        unittest.addModuleCleanup(SHOP.close)


class Pull(RuntimeTestCase):
    def name(self, version: str = "1.0.0") -> str:
        """A name in a registry that no other test uses."""
        return f"{self.game_id.lower()}:{version}"

    def publish(self, shop: Registry | None = None) -> tuple[str, str]:
        """Push an image to a registry; return its id and its reference there."""
        plain = images.tiny("waits")
        ref = (shop or SHOP).push(plain, self.name())
        return str((inspect(self.docker, plain) or {})["Id"]), ref

    def publish_another(self, version: str = "1.0.0") -> str:
        """Push an image that only the registry has, replacing the previous one of that name; return its id."""
        made = variant(images.tiny("waits"), self.name(version))
        SHOP.push(made, self.name(version))
        return made

    def own_registry(self) -> Registry:
        """A registry that the test may end. Containers of its images are removed before it."""
        own = registry.start()
        self.at_end(own.close)
        self.at_end(self.network.remove)
        return own

    def start(self, ref: str) -> str:
        """Start the game on `ref`; return the id of its container's image."""
        self.post("start", {"image_ref": ref})
        return self.running_image()

    def start_again(self, ref: str) -> str:
        """Stop the game, and start it in a new container; return the id of its image."""
        self.post("stop", {"reason": "finished"})
        return self.start(ref)

    def running_image(self) -> str:
        [container] = self.containers()
        self.assertTrue(container["State"]["Running"])
        return str(container["Image"])

    def pull_failed(self, answer: tuple[int, object], *texts: str) -> None:
        message = self.refused(answer, 500, "image_pull_failed")
        for each in texts:
            self.assertIn(each, message)


class Retention(Pull):
    """The manager removes an image that it pulled when nothing refers to it; other images stay."""

    def make_old(self) -> None:
        with self.services.database.connect() as connection:
            connection.execute("UPDATE pulled_images SET unnamed_since = unnamed_since - interval '2 hours'")

    def is_here(self, ref: str) -> bool:
        return inspect(self.docker, ref) is not None

    def test_a_pulled_image_goes_when_its_game_is_removed_and_one_that_was_there_stays(self) -> None:
        made, ref = self.publish_another(), SHOP.reference(self.name())
        self.start_runtime(CLEANUP_INTERVAL="300ms", IMAGE_RETENTION="1h")
        self.assertEqual(self.start(ref), made)
        other = unique_game_id("other")
        self.post("start", {"image_ref": self.engine.ref}, game_id=other)
        self.assertEqual([row["image_ref"] for row in self.rows("SELECT image_ref FROM pulled_images")], [ref])

        self.post("stop", {"reason": "finished"})
        time.sleep(1.0)  # several passes
        self.assertEqual(self.rows("SELECT 1 FROM pulled_images WHERE unnamed_since IS NOT NULL"), [])
        self.assertTrue(self.is_here(ref), "a game that is stopped may be restarted")

        self.succeed(self.call("DELETE", "/container"))
        unnamed = "SELECT 1 FROM pulled_images WHERE unnamed_since IS NOT NULL"
        self.wait_until("a pass to find that nothing names it", lambda: bool(self.rows(unnamed)))
        self.make_old()
        self.wait_until("the image to go", lambda: not self.is_here(ref))
        self.wait_until("the note to go", lambda: not self.rows("SELECT 1 FROM pulled_images"))
        self.post("stop", {"reason": "finished"}, game_id=other)
        self.succeed(self.call("DELETE", "/container", game_id=other))
        self.assertTrue(self.is_here(self.engine.ref))
        self.assertEqual(self.start(ref), made, "it is pulled again")


class IfMissing(Pull):
    def test_an_absent_image_is_pulled_and_a_present_one_needs_no_registry(self) -> None:
        shop = self.own_registry()
        made, ref = self.publish(shop)
        self.start_runtime()
        self.assertEqual(self.start(ref), made)
        self.assertEqual(shop.manifest_requests(ref), 1)

        shop.container.remove()

        self.assertEqual(self.start_again(ref), made)

    def test_an_image_that_changes_is_not_noticed_until_the_old_one_is_removed(self) -> None:
        first, ref = self.publish()
        self.start_runtime()
        self.assertEqual(self.start(ref), first)
        second = self.publish_another()

        self.assertEqual(self.start_again(ref), first)
        self.assertEqual(SHOP.manifest_requests(ref), 1)

        self.post("stop", {"reason": "finished"})
        self.succeed(self.call("DELETE", "/container"))
        self.docker.remove_image(ref)
        self.assertEqual(self.start(ref), second)
        self.assertEqual(SHOP.manifest_requests(ref), 2)


class Always(Pull):
    def test_each_start_and_restart_asks_the_registry_and_runs_what_it_has_now_and_a_replay_asks_nobody(self) -> None:
        first, ref = self.publish()
        self.start_runtime(IMAGE_PULL_POLICY="always")
        self.assertEqual(self.start(ref), first)
        second = self.publish_another()

        self.post("restart")
        self.assertEqual(self.running_image(), second)
        self.assertEqual(self.start_again(ref), second)
        self.assertEqual(SHOP.manifest_requests(ref), 3)

        self.assertEqual(self.start(ref), second)
        self.assertEqual(SHOP.manifest_requests(ref), 3)

    def test_without_its_registry_no_game_starts_though_its_image_is_here_and_one_that_runs_goes_on(
        self,
    ) -> None:
        shop = self.own_registry()
        made, ref = self.publish(shop)
        self.start_runtime(IMAGE_PULL_POLICY="always")
        self.start(ref)
        before = self.record()
        shop.container.remove()

        self.pull_failed(self.call("POST", "/restart"), ref, "connection refused")
        self.assertEqual(self.record(), before)
        self.assertEqual(self.running_image(), made)

        self.post("stop", {"reason": "finished"})
        self.pull_failed(self.call("POST", "/start", {"image_ref": ref}), ref, "connection refused")
        self.assertEqual(self.record()["status"], "stopped")


class Never(Pull):
    def test_an_absent_image_is_refused_with_the_remedy_and_its_registry_is_not_queried(self) -> None:
        _, ref = self.publish()
        self.start_runtime(IMAGE_PULL_POLICY="never")

        self.pull_failed(self.call("POST", "/start", {"image_ref": ref}), ref, "docker pull", "`if_missing`")

        self.assertEqual((SHOP.manifest_requests(ref), self.containers()), (0, []))

    def test_an_image_that_was_brought_here_by_hand_runs(self) -> None:
        made, ref = self.publish()
        repository, _, tag = ref.rpartition(":")
        self.docker.pull(repository, tag)
        self.start_runtime(IMAGE_PULL_POLICY="never")

        self.assertEqual(self.start(ref), made)

        self.assertEqual(SHOP.manifest_requests(ref), 1)


class Refused(Pull):
    def test_what_the_registry_does_not_have_is_answered_and_published_with_its_own_message(self) -> None:
        self.publish()
        unknown = {
            unique_game_id("tag"): SHOP.reference(self.name("9.9.9")),
            unique_game_id("repository"): SHOP.reference("nobody-knows-me:1.0.0"),
        }
        self.start_runtime()
        for game_id, ref in unknown.items():
            self.add_start_job(ref, game_id)

        results = {each["game_id"]: each for each in self.results(2)}

        messages = self.wait_until("both intents", lambda: self.intents() if len(self.intents()) == 2 else None)
        for game_id, ref in unknown.items():
            with self.subTest(ref):
                result = results[game_id]
                self.assertEqual((result["outcome"], result["error_code"]), ("failure", "image_pull_failed"))
                self.assertIn(f"image {ref} cannot be pulled: ", result["error_message"])
                self.assertIn("manifest unknown", result["error_message"])
                self.assertIn("check that the tag was pushed", result["error_message"])
                self.assertEqual(messages[game_id], result["error_message"])
                self.assertEqual(self.record(game_id), {})

    def intents(self) -> dict[str, str]:
        """The message of each intent about an image, by game."""
        payloads = [
            json.loads(each["payload_json"])
            for each in self.entries("notification:intents")
            if each["notification_type"] == "runtime.image_pull_failed"
        ]
        return {each["game_id"]: each["error_message"] for each in payloads}


class Hanging(Pull):
    def setUp(self) -> None:
        super().setUp()
        if not listening.shares_our_network():
            self.skipTest("the daemon does not reach this process, so no registry of its own can hang")
        self.slow = Stalling(SHOP)
        self.at_end(self.slow.close)
        self.at_end(self.network.remove)  # containers of an image are removed before it

    def test_two_games_that_use_one_image_share_its_pull(self) -> None:
        made, ref = self.publish_another(), self.slow.reference(self.name())
        both = [unique_game_id("a"), unique_game_id("b")]
        self.start_runtime()
        for game_id in both:
            self.add_start_job(ref, game_id)
        self.slow.wait_until_held()
        self.add_start_job(images.tiny("waits"))
        self.results()  # by now the second pull has long begun

        self.slow.release()

        self.assertEqual({each["outcome"] for each in self.results(3)}, {"success"})
        self.assertEqual([self.containers(game_id)[0]["Image"] for game_id in both], [made] * 2)
        self.assertEqual(SHOP.manifest_requests(SHOP.reference(self.name())), 1)

    def test_while_a_pull_hangs_other_games_live_their_lives(self) -> None:
        self.publish_another()
        self.start_runtime()
        self.add_start_job(self.slow.reference(self.name()))
        self.slow.wait_until_held()

        other = unique_game_id("other")
        self.post("start", {"image_ref": self.engine.ref}, game_id=other)
        self.add_stop_job(game_id=other)
        self.assertEqual([each["game_id"] for each in self.results()], [other])

        self.slow.release()
        self.assertEqual([each["outcome"] for each in self.results(2)], ["success"] * 2)

    def test_a_pull_without_progress_is_given_up_in_time_and_a_later_one_begins_anew(self) -> None:
        made, ref = self.publish_another(), self.slow.reference(self.name())
        live = self.start_runtime(IMAGE_PULL_PROGRESS_TIMEOUT="1s")
        began = time.monotonic()
        self.add_start_job(ref)

        [result] = self.results()

        took = time.monotonic() - began
        self.assertTrue(1 <= took < GIVEN_UP_WITHIN_S, f"{took:.1f} s")
        self.assertEqual((result["outcome"], result["error_code"]), ("failure", "image_pull_failed"))
        self.assertIn(f"image {ref} cannot be pulled: no progress for 1 s", result["error_message"])
        live.stop()
        self.slow.release()
        self.start_runtime()
        self.assertEqual(self.start(ref), made)

    def test_a_patch_whose_image_does_not_come_leaves_the_game_running(self) -> None:
        first, ref = self.publish()
        self.publish_another("1.0.1")
        with self.start_runtime():
            self.start(ref)
        before = self.record()
        # Data that does arrive may take longer than a second on a busy machine.
        for limit, wanted, text in (
            ("1m", SHOP.reference(self.name("1.0.9")), "manifest unknown"),
            ("1s", self.slow.reference(self.name("1.0.1")), "no progress for 1 s"),
        ):
            with self.subTest(text), self.start_runtime(IMAGE_PULL_PROGRESS_TIMEOUT=limit):
                self.pull_failed(self.call("POST", "/patch", {"image_ref": wanted}), wanted, text)

                self.assertEqual(self.record(), before)
                self.assertEqual(self.running_image(), first)

    def test_sigterm_while_a_pull_hangs_ends_it_in_time_and_the_next_manager_does_the_job(self) -> None:
        made, ref = self.publish_another(), self.slow.reference(self.name())
        process = self.start_process(SHUTDOWN_TIMEOUT="300ms")
        self.add_start_job(ref)
        self.slow.wait_until_held()

        began = time.monotonic()
        self.assertEqual(process.terminate(), 0)
        self.assertLess(time.monotonic() - began, ENDED_WITHIN_S, "bounded by its own time, not by the pull's")
        self.assertEqual(self.entries("runtime:job_results"), [])
        self.assertIsNone(inspect(self.docker, ref))

        self.slow.release()
        self.start_runtime()
        self.assertEqual([each["outcome"] for each in self.results()], ["success"])
        self.assertEqual(self.running_image(), made)
