"""The fake runtime passes the port's contract, and injects faults on request."""

from __future__ import annotations

import itertools
import unittest
from concurrent.futures import ThreadPoolExecutor

from rtmanager.domain.container import ContainerState
from rtmanager.domain.errors import Unavailable
from rtmanager.fakes import FakeImage, FakeRuntime
from rtmanager.ports.runtime import ContainerNotFound, LaunchFailed, PullPolicy
from rtmanager.tests.runtime_contract import RuntimeContract


class FakeRuntimeTest(RuntimeContract, unittest.TestCase):
    network = "galaxy-net"

    def setUp(self) -> None:
        labels = {"com.galaxy.memory": "32m"}
        self.runtime: FakeRuntime = FakeRuntime([self.network])
        self.games = itertools.count(1)
        self.runtime.present = {
            self.image("waits"): FakeImage(labels),
            self.image("latest"): FakeImage(labels),
            self.image("ignores-signals"): FakeImage(labels, ignores_signals=True),
            self.image("exits"): FakeImage(labels, exits=3),
            self.image("without-command"): FakeImage(labels, has_command=False),
        }

    def image(self, behaviour: str) -> str:
        return f"galaxy/tiny:{behaviour}"

    def spare_image(self) -> str:
        reference = f"galaxy/tiny:spare-{next(self.games)}"
        self.runtime.present[reference] = FakeImage({"com.galaxy.memory": "32m"})
        return reference

    def game_id(self) -> str:
        return f"g{next(self.games)}"

    def state_path(self) -> str:
        return "/state"

    def double_network(self) -> None:
        self.runtime.ambiguous_networks.add(self.network)

    def pause(self, container_id: str) -> None:
        self.runtime.change(container_id, ContainerState.PAUSED)

    def kill(self, container_id: str) -> None:
        self.runtime.exit(container_id, 137)

    def test_away_it_answers_nothing_and_forgets_nothing(self) -> None:
        container_id = self.runtime.launch(self.spec())
        self.runtime.available = False
        with self.assertRaises(Unavailable):
            self.runtime.inspect(container_id)
        self.runtime.available = True
        self.assertEqual(self.state(container_id), ContainerState.RUNNING)

    def test_a_lost_answer_still_did_what_was_requested(self) -> None:
        spec = self.spec()
        self.runtime.lose_answer("launch")
        with self.assertRaises(Unavailable):
            self.runtime.launch(spec)
        self.assertEqual(self.state(spec.name), ContainerState.RUNNING)

    def test_a_launch_can_be_made_to_fail_once(self) -> None:
        spec = self.spec()
        self.runtime.fail_launch(spec.game_id, "no space left")
        with self.assertRaisesRegex(LaunchFailed, "no space left"):
            self.runtime.launch(spec)
        self.runtime.launch(spec)

    def test_held_calls_wait_and_others_do_not(self) -> None:
        slow, quick = self.spec(), self.spec()
        with ThreadPoolExecutor(1) as thread, self.runtime.holding("launch", slow.game_id) as held:
            launch = thread.submit(self.runtime.launch, slow)
            held.wait_for(1)
            self.runtime.launch(quick)
            self.assert_absent(slow.name)
            held.release()
            self.assertEqual(launch.result(), self.runtime.inspect(slow.name).container_id)

    def test_close_ends_a_held_call(self) -> None:
        container_id = self.runtime.launch(self.spec())
        with ThreadPoolExecutor(1) as thread, self.runtime.holding("stop") as held:
            stop = thread.submit(self.runtime.stop, container_id, 30)
            held.wait_for(1)
            self.runtime.close()
            self.assertIsInstance(stop.exception(), Unavailable)

    def test_one_pull_is_shared_by_all_who_wait(self) -> None:
        self.runtime.registry["galaxy/game:2.0.0"] = FakeImage()
        with ThreadPoolExecutor(3) as threads, self.runtime.holding("pull") as held:
            pulls = [
                threads.submit(self.runtime.ensure_image, "galaxy/game:2.0.0", PullPolicy.ALWAYS) for _ in range(3)
            ]
            held.wait_for(1)
            while len(self.runtime.called("request_image")) < 3:
                pass
            held.release()
            images = [pull.result() for pull in pulls]
        self.assertEqual(len({image.image_id for image in images}), 1)

    def test_the_world_changes_without_calls(self) -> None:
        container_id = self.runtime.launch(self.spec())
        self.runtime.exit(container_id, 137, oom_killed=True)
        view = self.runtime.inspect(container_id)
        self.assertEqual((view.state, view.exit_code, view.oom_killed), (ContainerState.EXITED, 137, True))
        self.runtime.vanish(container_id)
        with self.assertRaises(ContainerNotFound):
            self.runtime.inspect(container_id)
        self.assertEqual(self.runtime.called("inspect"), [(container_id,), (container_id,)])
