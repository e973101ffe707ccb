"""Engines are reached by name from inside their network, by address from anywhere else."""

from __future__ import annotations

import socket
import unittest
from unittest import mock

from rtmanager.adapters.docker.probe_route import ProbeRoute
from rtmanager.domain.errors import ErrorCode, FinalAnswer, TemporaryAnswer, Unavailable
from rtmanager.fakes import FakeRuntime
from rtmanager.ports.watching import ProbeBy
from rtmanager.tests.making import NETWORK, view

OURS = "4f2d1c0b9a87" + "0" * 52


class VantageTest(unittest.TestCase):
    def setUp(self) -> None:
        self.docker = FakeRuntime([NETWORK])
        self.host_name("4f2d1c0b9a87")

    def host_name(self, name: str) -> None:
        patched = mock.patch.object(socket, "gethostname", lambda: name)
        patched.start()
        self.addCleanup(patched.stop)

    def run_in(self, *networks: str, name: str = "rtmanager", container_id: str = OURS) -> None:
        """Make this process run in such a container; Docker finds it by the beginning of its id, or by its name."""
        self.docker.add_foreign(view(container_id=container_id, name=name, networks=frozenset(networks)))
        found = self.docker.containers[0]
        self.docker.inspect = lambda _id_or_name: found  # type: ignore[method-assign, assignment]

    def by(self, setting: str = "auto") -> ProbeBy:
        return ProbeRoute(setting, NETWORK, self.docker)()

    def test_in_a_container_on_their_network_by_name(self) -> None:
        self.run_in("other", NETWORK)
        self.assertIs(self.by(), ProbeBy.ENDPOINT)

    def test_on_the_host_or_on_another_network_by_address(self) -> None:
        self.assertIs(self.by(), ProbeBy.CONTAINER_IP)
        self.run_in("other")
        self.assertIs(self.by(), ProbeBy.CONTAINER_IP)

    def test_a_host_that_is_called_like_a_container_is_not_in_it(self) -> None:
        self.host_name("rtmanager")
        self.run_in(NETWORK)
        self.assertIs(self.by(), ProbeBy.CONTAINER_IP)

    def test_a_short_host_name_that_begins_the_id_of_a_game_is_not_in_it(self) -> None:
        for name in ("4", "4f2", "4f2d1c0b9a8", "4f2d1c0b9a870", "4f2d1c0b9a87\n"):
            with self.subTest(name):
                self.host_name(name)
                self.run_in(NETWORK)
                self.assertIs(self.by(), ProbeBy.CONTAINER_IP)

    def test_an_answer_that_names_no_container_is_outside_and_a_temporary_one_is_not_kept(self) -> None:
        answers = [TemporaryAnswer("docker", "busy", answer="busy", code=ErrorCode.CONTAINER_START_FAILED)]
        vantage = ProbeRoute("auto", NETWORK, self.docker)
        self.docker.inspect = mock.Mock(side_effect=[*answers, FinalAnswer("docker", "403")])  # type: ignore[method-assign]
        self.assertEqual([vantage() for _ in range(3)], [ProbeBy.CONTAINER_IP] * 3)
        self.assertEqual(self.docker.inspect.call_count, 2)

    def test_what_was_configured_is_done_and_docker_not_queried(self) -> None:
        self.assertIs(self.by("endpoint"), ProbeBy.ENDPOINT)
        self.assertIs(self.by("container_ip"), ProbeBy.CONTAINER_IP)
        self.assertEqual(self.docker.called("inspect"), [])

    def test_it_is_found_out_once_when_docker_answers(self) -> None:
        vantage = ProbeRoute("auto", NETWORK, self.docker)
        self.docker.available = False
        self.assertRaises(Unavailable, vantage)
        self.docker.available = True
        vantage()
        vantage()
        self.assertEqual(len(self.docker.called("inspect")), 1)
