"""A server on this machine's network: its port is its own, and stays."""

import socket
import unittest
from unittest import mock

from harness import daemon
from harness.errors import WaitFailed
from harness.fixtures import listening, postgres, redis
from harness.fixtures.container import Container
from harness.runs import flag
from harness.waiting import wait_until


def setUpModule() -> None:
    flag.check()


def _containers() -> int:
    return len(daemon.client().containers(all=True, filters={"label": f"rtm-harness.pid={_pid()}"}))


def _pid() -> int:
    from harness.runs import identity

    return identity.current().pid


class FreePortTest(unittest.TestCase):
    def test_a_port_is_given_once_and_is_none_that_an_outgoing_connection_may_get(self) -> None:
        ports = [listening.free_port() for _ in range(200)]
        self.assertEqual(len(set(ports)), len(ports))
        self.assertLess(max(ports), listening._first_port_of_system())

    def test_a_port_that_was_given_is_given_to_nobody_else_and_a_server_may_listen_on_it_again_and_again(self) -> None:
        port = listening.free_port()
        self.assertIsNone(listening._reserved(port))
        for _ in range(2):
            with socket.create_server((listening.LOOPBACK, port)):
                self.assertIsNone(listening._reserved(port))
        self.assertIsNone(listening._reserved(port))

    def test_where_the_system_chooses_from_all_ports_one_of_its_choice_is_given(self) -> None:
        with mock.patch.object(listening, "_first_port_of_system", return_value=1024):
            self.assertGreater(listening.free_port(), 0)


class SharedNetworkTest(unittest.TestCase):
    def setUp(self) -> None:
        if not listening.shares_our_network():
            self.skipTest("containers of this daemon cannot share the network of this process")
        self.before = _containers()

    def test_a_port_that_was_taken_meanwhile_is_replaced_by_another(self) -> None:
        for service in (redis, postgres):
            with self.subTest(service.__name__), socket.socket() as other:
                other.bind((listening.LOOPBACK, 0))
                other.listen()
                ports = [other.getsockname()[1], listening.free_port()]
                with mock.patch.object(listening, "free_port", side_effect=ports), service.start() as server:
                    self.assertEqual(server.port, ports[1])

    def test_another_server_on_the_port_is_not_taken_for_ours(self) -> None:
        with redis.start() as others:
            ports = [others.port, listening.free_port()]
            with mock.patch.object(listening, "free_port", side_effect=ports), redis.start() as ours:
                self.assertEqual(ours.port, ports[1])

    def test_a_server_keeps_its_address_through_a_restart(self) -> None:
        for service in (redis, postgres):
            with self.subTest(service.__name__), service.start() as server:
                server.container.restart()
                wait_until("its old address", lambda: self.connects(server.host, server.port))

    def connects(self, host: str, port: int) -> bool:
        socket.create_connection((host, port), timeout=1).close()
        return True

    def test_a_server_that_never_answers_is_not_left_there(self) -> None:
        def never(running: Container, at: listening.Endpoint) -> None:
            raise WaitFailed("no answer")

        with self.assertRaises(WaitFailed):
            listening.start("redis", _image(), 6379, lambda at: ["--port", str(at.port)], never)
        self.assertEqual(_containers(), self.before)


class PublishedPortTest(unittest.TestCase):
    def test_elsewhere_the_port_is_published(self) -> None:
        with mock.patch.object(listening, "shares_our_network", return_value=False):
            for service in (redis, postgres):
                with self.subTest(service.__name__), service.start() as server:
                    self.assertNotEqual(server.container.inspect()["HostConfig"]["NetworkMode"], "host")


def _image() -> str:
    from harness import images

    return images.redis()
