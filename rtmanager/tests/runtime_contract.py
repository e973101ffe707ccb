"""Contract tests of `ContainerRuntime`; run against the fake and against Docker.

A test class mixes `RuntimeContract` in and provides a runtime, a network, and images by behaviour. Since both pass it,
tests against the fake hold for Docker, too.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rtmanager.domain.container import (
    LABEL_GAME_ID,
    LABEL_IMAGE_REF,
    LABEL_KIND,
    LABEL_OWNER,
    ContainerSpec,
    ContainerState,
    Limits,
    parse_memory,
)
from rtmanager.domain.errors import Unavailable
from rtmanager.ports.runtime import (
    ContainerNotFound,
    ContainerRuntime,
    Image,
    ImageRefInvalid,
    ImageUnavailable,
    LaunchFailed,
    NameTaken,
    NetworkAmbiguous,
    PullPolicy,
    StillRunning,
)

if TYPE_CHECKING:
    from unittest import TestCase
else:  # a mixin: only its concrete subclasses are test cases
    TestCase = object

#: Grace period in seconds where the process is expected to end by itself, and where it is not.
PATIENT_S, SHORT_S = 20, 1

#: Seconds within which a pull of an unknown image ends, on a busy machine.
PULL_ENDS_S = 60.0

ABSENT_ID = "f" * 64


class RuntimeContract(TestCase):
    """The contract. Images: `waits` ends on a signal, `ignores-signals` does not, `exits` ends with code 3."""

    runtime: ContainerRuntime
    network: str
    #: A reference that no registry has.
    unknown_image = "registry.invalid/galaxy/game:1.0.0"

    def image(self, behaviour: str) -> str:
        """The reference of a present image; no container can be created from `without-command`."""
        raise NotImplementedError

    def spare_image(self) -> str:
        """The reference of a present image that no other test uses."""
        raise NotImplementedError

    def game_id(self) -> str:
        """A new game id, unique on the host."""
        raise NotImplementedError

    def state_path(self) -> str:
        """A directory that the runtime can mount."""
        raise NotImplementedError

    def pause(self, container_id: str) -> None:
        """Pause a container without the port."""
        raise NotImplementedError

    def kill(self, container_id: str) -> None:
        """Kill a container's process without the port."""
        raise NotImplementedError

    def spec(self, behaviour: str = "waits") -> ContainerSpec:
        return ContainerSpec(
            game_id=self.game_id(),
            image_ref=self.image(behaviour),
            network=self.network,
            limits=Limits(cpus=0.5, memory_bytes=parse_memory("32m"), pids=32),
            state_path=self.state_path(),
            mount_path="/var/lib/galaxy-game",
            environment={"STORAGE_PATH": "/var/lib/galaxy-game"},
            started_at_ms=1_700_000_000_000,
            log_driver="json-file",
            log_options={"max-size": "1m", "max-file": "1"},
        )

    def state(self, id_or_name: str) -> ContainerState:
        return self.runtime.inspect(id_or_name).state

    def assert_absent(self, id_or_name: str) -> None:
        with self.assertRaises(ContainerNotFound):
            self.runtime.inspect(id_or_name)

    # ── images without a use ──

    def spare(self) -> tuple[str, str]:
        """The reference and the id of a spare image."""
        reference = self.spare_image()
        return reference, self.runtime.ensure_image(reference, PullPolicy.NEVER).image_id

    def is_present(self, reference: str) -> bool:
        try:
            self.runtime.ensure_image(reference, PullPolicy.NEVER)
        except ImageUnavailable:
            return False
        return True

    def test_an_image_without_a_container_is_removed_by_its_reference(self) -> None:
        reference, image_id = self.spare()
        self.assertTrue(self.runtime.remove_image(reference, image_id))
        self.assertFalse(self.is_present(reference))
        self.assertTrue(self.runtime.remove_image(reference, image_id), "it is gone before")

    def test_an_image_of_which_a_container_was_made_is_left_also_when_that_has_ended(self) -> None:
        reference, image_id = self.spare()
        container_id = self.runtime.launch(replace(self.spec(), image_ref=reference))
        self.assertFalse(self.runtime.remove_image(reference, image_id))
        self.runtime.stop(container_id, SHORT_S)
        self.assertFalse(self.runtime.remove_image(reference, image_id))
        self.assertTrue(self.is_present(reference))
        self.runtime.remove(container_id)
        self.assertTrue(self.runtime.remove_image(reference, image_id))

    def test_a_reference_that_names_another_image_by_now_is_left(self) -> None:
        reference, _ = self.spare()
        self.assertTrue(self.runtime.remove_image(reference, "sha256:another"))
        self.assertTrue(self.is_present(reference))

    def test_a_runtime_has_one_id(self) -> None:
        self.assertTrue(self.runtime.runtime_id())
        self.assertEqual(self.runtime.runtime_id(), self.runtime.runtime_id())

    # ── the host ──

    def test_ping_names_a_version(self) -> None:
        self.assertTrue(self.runtime.ping())

    def test_the_present_run_began_before_now_and_is_the_same_when_queried_again(self) -> None:
        run = self.runtime.present_run()
        if run.began_at is not None:
            self.assertLess(run.began_at, datetime.now(UTC))
        self.assertEqual(self.runtime.present_run(), run)

    def test_a_network_exists_by_its_exact_name_only(self) -> None:
        self.assertTrue(self.runtime.network_exists(self.network))
        for name in (self.network[:-1], self.network + "x", ".*", self.network.upper()):
            self.assertFalse(self.runtime.network_exists(name), name)

    def test_it_is_the_same_daemon_each_time_with_the_networks_of_that_very_name(self) -> None:
        seen = self.runtime.identify(self.network)
        self.assertTrue(seen.daemon_id)
        self.assertEqual(len(seen.network_ids), 1)
        self.assertEqual(self.runtime.identify(self.network), seen)
        self.assertEqual(self.runtime.network_ids(self.network), seen.network_ids)
        without = self.runtime.identify(self.network + "x")
        self.assertEqual((without.daemon_id, without.network_ids), (seen.daemon_id, frozenset()))

    def test_the_label_of_a_deployment_is_seen_in_a_list_and_by_itself(self) -> None:
        spec = replace(self.spec(), deployment="one")
        container_id = self.runtime.launch(spec)
        listed = next(view for view in self.runtime.list_games() if view.container_id == container_id)
        for view in (listed, self.runtime.inspect(container_id)):
            self.assertEqual([view.is_of_another(name) for name in ("one", "other")], [False, True], view.labels)

    def double_network(self) -> None:
        """Create a second network with the name of the first, until the test ends."""
        raise NotImplementedError

    def test_two_networks_of_one_name_are_ambiguous(self) -> None:
        self.double_network()
        with self.assertRaisesRegex(NetworkAmbiguous, f"2 Docker networks are called '{self.network}'"):
            self.runtime.network_exists(self.network)

    # ── images ──

    def test_a_present_image_is_found_with_its_labels(self) -> None:
        for policy in (PullPolicy.IF_MISSING, PullPolicy.NEVER):
            found = self.runtime.ensure_image(self.image("waits"), policy)
            self.assertTrue(found.image_id)
            self.assertEqual(found.labels["com.galaxy.memory"], "32m")

    def test_an_absent_image_is_not_pulled_under_never(self) -> None:
        with self.assertRaisesRegex(ImageUnavailable, f"{self.unknown_image}.*`never`.*load it"):
            self.runtime.ensure_image(self.unknown_image, PullPolicy.NEVER)

    def test_an_image_that_no_registry_has_is_unavailable(self) -> None:
        for policy in (PullPolicy.IF_MISSING, PullPolicy.ALWAYS):
            with self.assertRaisesRegex(ImageUnavailable, self.unknown_image):
                self.runtime.ensure_image(self.unknown_image, policy)

    def test_a_malformed_reference_is_named_as_such(self) -> None:
        with self.assertRaisesRegex(ImageRefInvalid, "Not An Image"):
            self.runtime.ensure_image("Not An Image", PullPolicy.IF_MISSING)

    def test_a_reference_without_tag_means_latest(self) -> None:
        untagged, _, _ = self.image("latest").rpartition(":")
        self.assertEqual(
            self.runtime.ensure_image(untagged, PullPolicy.NEVER),
            self.runtime.ensure_image(f"{untagged}:latest", PullPolicy.NEVER),
        )

    def test_an_image_may_be_waited_for_without_a_thread(self) -> None:
        self.assertIsInstance(self.runtime.request_image(self.image("waits"), PullPolicy.IF_MISSING), Image)
        with self.assertRaises(ImageUnavailable):
            self.runtime.request_image(self.unknown_image, PullPolicy.NEVER)
        for _ in range(2):
            pull = self.runtime.request_image(self.unknown_image, PullPolicy.IF_MISSING)
            assert not isinstance(pull, Image)
            ended = threading.Event()
            pull.when_ended(ended.set)
            self.assertTrue(ended.wait(PULL_ENDS_S))
            with self.assertRaises(ImageUnavailable):
                pull.image()

    def test_who_leaves_a_pull_keeps_nobody_from_its_outcome(self) -> None:
        first, second = (self.runtime.request_image(self.unknown_image, PullPolicy.ALWAYS) for _ in range(2))
        assert not isinstance(first, Image)
        assert not isinstance(second, Image)
        first.leave()
        with self.assertRaises(ImageUnavailable):
            second.image()
        self.assertNotIsInstance(self.runtime.request_image(self.unknown_image, PullPolicy.ALWAYS), Image)

    # ── launch ──

    def test_a_launched_container_is_what_was_requested(self) -> None:
        spec = self.spec()
        container_id = self.runtime.launch(spec)
        view = self.runtime.inspect(container_id)
        self.assertEqual(view.container_id, container_id)
        self.assertEqual(view.name, spec.name)
        self.assertEqual(view.image_ref, spec.image_ref)
        self.assertEqual(view.state, ContainerState.RUNNING)
        self.assertEqual(view.networks, {self.network})
        for label in (LABEL_OWNER, LABEL_KIND, LABEL_GAME_ID, LABEL_IMAGE_REF):  # a view may omit all others
            self.assertEqual(view.labels[label], spec.labels[label])
        self.assertIsNone(view.exit_code)
        self.assertFalse(view.oom_killed)
        self.assertTrue(view.belongs_to(spec.game_id))
        self.assertEqual(self.runtime.inspect(spec.name), view)

    def test_a_taken_name_is_reported_and_its_owner_is_left_alone(self) -> None:
        spec = self.spec()
        first = self.runtime.launch(spec)
        with self.assertRaisesRegex(NameTaken, spec.name):
            self.runtime.launch(replace(spec, image_ref=self.image("exits")))
        self.assertEqual(self.runtime.inspect(spec.name).container_id, first)
        self.assertEqual(self.state(first), ContainerState.RUNNING)

    def test_of_many_launches_of_one_game_exactly_one_wins(self) -> None:
        outcomes = _at_once(8, self.runtime.launch, self.spec())
        self.assertEqual(outcomes, {"str": 1, "NameTaken": 7})

    def test_a_refused_launch_leaves_nothing_behind(self) -> None:
        refused = {
            "image": replace(self.spec(), image_ref=self.unknown_image),
            "network": replace(self.spec(), network=f"{self.network}-absent"),
            "command": self.spec("without-command"),
            "exit code 3": self.spec("exits"),
        }
        for why, spec in refused.items():
            with self.subTest(why):
                with self.assertRaisesRegex(LaunchFailed, f"(?i){spec.name}.*{why}"):
                    self.runtime.launch(spec)
                self.assert_absent(spec.name)

    # ── replacing a container ──

    def test_the_next_container_stands_beside_the_game_and_does_not_run(self) -> None:
        spec = self.spec()
        first = self.runtime.launch(spec)
        with self.assertRaisesRegex(NameTaken, spec.name):
            self.runtime.promote(self.runtime.create_next(spec), spec)
        found = self.runtime.inspect(spec.next_name)
        self.assertTrue(found.is_unstarted_next)
        self.assertFalse(found.belongs_to(spec.game_id))
        self.assertEqual((found.state, found.made_for), (ContainerState.CREATED, self.network))
        self.assertEqual(self.state(first), ContainerState.RUNNING)
        self.assertEqual(self.runtime.inspect(first).image_id, found.image_id)
        with self.assertRaisesRegex(NameTaken, spec.next_name):
            self.runtime.create_next(spec)

    def test_a_promoted_container_is_the_games(self) -> None:
        spec = self.spec()
        first, second = self.runtime.launch(spec), self.runtime.create_next(spec)
        self.runtime.stop(first, PATIENT_S)
        self.runtime.remove(first)
        self.runtime.promote(second, spec)
        found = self.runtime.inspect(spec.name)
        self.assertEqual(found.container_id, second)
        self.assertTrue(found.runs(spec.game_id, spec.image_ref, self.network))
        self.assert_absent(spec.next_name)

    def test_a_promotion_that_is_refused_leaves_nothing_behind(self) -> None:
        for behaviour, why in (("exits", "exit code 3"), ("waits", "taken over")):
            with self.subTest(behaviour):
                spec = self.spec(behaviour)
                with self.assertRaisesRegex(LaunchFailed, why):
                    self.runtime.promote(self.runtime.create_next(spec), spec, _unless("waits" in behaviour))
                self.assert_absent(spec.name)
                self.assert_absent(spec.next_name)

    def test_a_next_container_that_is_gone_cannot_be_promoted(self) -> None:
        spec = self.spec()
        container_id = self.runtime.create_next(spec)
        self.runtime.remove(container_id)
        with self.assertRaisesRegex(ContainerNotFound, container_id):
            self.runtime.promote(container_id, spec)
        self.assert_absent(spec.name)

    def test_what_is_refused_at_a_create_is_refused_before_anything_is_promoted(self) -> None:
        refused = {
            "image": replace(self.spec(), image_ref=self.unknown_image),
            "command": self.spec("without-command"),
        }
        for why, spec in refused.items():
            with self.subTest(why):
                with self.assertRaisesRegex(LaunchFailed, f"(?i){spec.name}.*{why}"):
                    self.runtime.create_next(spec)
                self.assert_absent(spec.next_name)

    # ── stop ──

    def test_stop_ends_the_process_and_may_be_repeated(self) -> None:
        container_id = self.runtime.launch(self.spec())
        for lives in (True, False):
            self.assertIs(self.runtime.stop(container_id, PATIENT_S), lives)
            view = self.runtime.inspect(container_id)
            self.assertEqual((view.state, view.exit_code, view.alive), (ContainerState.EXITED, 143, False))

    def test_stop_kills_what_does_not_end_within_its_grace_period(self) -> None:
        container_id = self.runtime.launch(self.spec("ignores-signals"))
        self.assertTrue(self.runtime.stop(container_id, SHORT_S))
        self.assertEqual(self.runtime.inspect(container_id).exit_code, 137)

    def test_stop_ends_a_paused_container(self) -> None:
        container_id = self.runtime.launch(self.spec())
        self.pause(container_id)
        self.assertEqual(self.state(container_id), ContainerState.PAUSED)
        self.assertTrue(self.runtime.stop(container_id, SHORT_S))
        self.assertEqual(self.state(container_id), ContainerState.EXITED)

    def test_a_container_that_ended_by_itself_has_its_code_and_can_be_stopped_and_removed(self) -> None:
        container_id = self.runtime.launch(self.spec())
        self.kill(container_id)
        self.runtime.stop(container_id, PATIENT_S)  # also waits for its end
        self.assertEqual(self.runtime.inspect(container_id).exit_code, 137)
        self.runtime.remove(container_id)
        self.assert_absent(container_id)

    def test_a_stop_of_what_was_never_started_ends_nothing(self) -> None:
        spec = self.spec()
        container_id = self.runtime.create_next(spec)
        self.assertFalse(self.runtime.stop(container_id, SHORT_S))
        self.assertEqual(self.state(container_id), ContainerState.CREATED)
        self.runtime.remove(container_id)

    # ── remove ──

    def test_remove_leaves_a_live_process_alone(self) -> None:
        container_id = self.runtime.launch(self.spec())
        with self.assertRaises(StillRunning):
            self.runtime.remove(container_id)
        self.assertEqual(self.state(container_id), ContainerState.RUNNING)
        self.pause(container_id)
        with self.assertRaises(StillRunning):
            self.runtime.remove(container_id)
        self.assertEqual(self.state(container_id), ContainerState.PAUSED)

    def test_after_remove_the_name_is_free(self) -> None:
        spec = self.spec()
        first = self.runtime.launch(spec)
        self.runtime.stop(first, PATIENT_S)
        self.runtime.remove(first)
        self.assert_absent(first)
        second = self.runtime.launch(spec)
        self.assertNotEqual(first, second)

    def test_when_many_remove_one_container_all_find_it_gone(self) -> None:
        container_id = self.runtime.launch(self.spec())
        self.runtime.stop(container_id, PATIENT_S)
        outcomes = _at_once(8, self.runtime.remove, container_id)
        self.assertLessEqual(set(outcomes), {"NoneType", "ContainerNotFound"})
        self.assertGreaterEqual(outcomes["NoneType"], 1)
        self.assert_absent(container_id)

    def test_what_does_not_exist_is_not_found(self) -> None:
        for name in (ABSENT_ID, "galaxy-game-absent"):
            with self.assertRaisesRegex(ContainerNotFound, name):
                self.runtime.inspect(name)
            with self.assertRaisesRegex(ContainerNotFound, name):
                self.runtime.stop(name, SHORT_S)
            with self.assertRaisesRegex(ContainerNotFound, name):
                self.runtime.remove(name)

    # ── list, close ──

    def test_the_list_has_running_and_ended_games(self) -> None:
        running, ended = self.spec(), self.spec()
        self.runtime.launch(running)
        self.runtime.stop(self.runtime.launch(ended), PATIENT_S)
        found = {view.name: view for view in self.runtime.list_games()}
        self.assertEqual(found[running.name].state, ContainerState.RUNNING)
        self.assertEqual(found[ended.name].state, ContainerState.EXITED)
        for spec in (running, ended):
            seen = self.runtime.inspect(spec.name)
            expected = replace(seen, exit_code=None, started_at=None, finished_at=None, image_id="")
            self.assertEqual(replace(found[spec.name], exit_code=None, started_at=None, finished_at=None), expected)

    def test_after_close_every_call_is_unavailable(self) -> None:
        self.runtime.close()
        self.runtime.close()
        calls: tuple[Callable[[], object], ...] = (
            self.runtime.ping,
            self.runtime.list_games,
            lambda: self.runtime.network_exists(self.network),
            lambda: self.runtime.ensure_image(self.unknown_image, PullPolicy.ALWAYS),
            lambda: self.runtime.launch(self.spec()),
            lambda: self.runtime.create_next(self.spec()),
            lambda: self.runtime.promote(ABSENT_ID, self.spec()),
            lambda: self.runtime.stop(ABSENT_ID, SHORT_S),
            lambda: self.runtime.remove(ABSENT_ID),
            lambda: self.runtime.inspect(ABSENT_ID),
        )
        for call in calls:
            with self.assertRaises(Unavailable) as caught:
                call()
            self.assertEqual(caught.exception.dependency, "docker")


def _unless(refused: bool) -> Callable[[], None]:
    """A `confirm` that raises `LaunchFailed` when `refused` is set."""

    def confirm() -> None:
        if refused:
            raise LaunchFailed("it was taken over")

    return confirm


def _at_once(times: int, call: Callable[..., object], *arguments: object) -> Counter[str]:
    """The outcomes of concurrent calls, counted by the type of the result or the error."""

    def outcome(_: int) -> str:
        try:
            return type(call(*arguments)).__name__
        except (NameTaken, ContainerNotFound, StillRunning, LaunchFailed, Unavailable) as error:
            return type(error).__name__

    with ThreadPoolExecutor(times) as threads:
        return Counter(threads.map(outcome, range(times)))
