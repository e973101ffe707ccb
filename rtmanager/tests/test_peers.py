"""What an address proves about a client: a game's, another container's, the host's, or nothing."""

from __future__ import annotations

import logging
import threading
import unittest
from collections.abc import Callable
from ipaddress import ip_network
from time import monotonic
from typing import Any
from unittest import mock

from rtmanager.adapters.docker import DockerRuntime
from rtmanager.domain.container import KIND, KIND_TRIAL, LABEL_KIND, LABEL_OWNER, OWNER
from rtmanager.domain.errors import Unavailable
from rtmanager.ports.peers import AddressHolder, NetworkAddresses, Peer
from rtmanager.tests.fake_daemon import FakeDaemon
from rtmanager.workers import peers
from rtmanager.workers.loop import Loop
from rtmanager.workers.peers import PeerWatch

GAME, MASTER, FREE, GATEWAY, OUTSIDE = "172.20.0.5", "172.20.0.9", "172.20.0.77", "172.20.0.1", "10.1.2.3"
NETWORK = "galaxy-net"


class Containers:
    """Addresses as a test sets them; counts the queries."""

    def __init__(self) -> None:
        self.holders = {GAME: AddressHolder("g", True), MASTER: AddressHolder("m", False)}
        self.lists = self.inspections = 0
        self.before_list: Callable[[], object] = lambda: None
        self.broken: Exception | None = None

    def network_addresses(self, network: str) -> NetworkAddresses:
        self.lists += 1
        self.before_list()
        if self.broken:
            raise self.broken
        subnets = [ip_network("172.20.0.0/16"), ip_network("fd00:20::/64")]
        return NetworkAddresses(subnets, frozenset({GATEWAY}), dict(self.holders))

    def has_address(self, container_id: str, address: str) -> bool:
        self.inspections += 1
        if self.broken:
            raise self.broken
        holder = self.holders.get(address)
        return holder is not None and holder.container_id == container_id

    def take(self, address: str, container_id: str, *, is_game: bool) -> None:
        """Give an address to another container."""
        self.holders = {**self.holders, address: AddressHolder(container_id, is_game)}


class PeersTest(unittest.TestCase):
    def setUp(self) -> None:
        self.containers = Containers()
        self.later = 0.0
        self.watch = PeerWatch(self.containers, NETWORK, lambda: monotonic() + self.later)
        self.logger = logging.Logger("peers-test")
        self.logger.addHandler(logging.NullHandler())

    def begin(self) -> None:
        """Run the steps on a thread, as the manager does."""
        watch = self.watch
        loop = Loop("peers", watch.step, period_s=60, wake=watch.wake, interrupt=watch.interrupt, logger=self.logger)
        loop.start()
        self.addCleanup(loop.close)
        self.peer(OUTSIDE)  # waits for the first list

    def peer(self, address: str, *, wait: bool = True) -> Peer:
        return self.watch.peer(address, wait=wait)

    def test_an_address_belongs_to_a_game_or_to_another_container_or_to_neither(self) -> None:
        self.containers.take("fd00:20::5", "g", is_game=True)
        self.begin()
        for address, peer in (
            (GAME, Peer.GAME),
            (MASTER, Peer.OTHER),
            (GATEWAY, Peer.OTHER),
            (OUTSIDE, Peer.OTHER),
            ("127.0.0.1", Peer.OTHER),
            ("::1", Peer.OTHER),
            ("fd00:20::5", Peer.GAME),
            ("fd00:20::6", Peer.UNPROVED),
            ("fe80::42:acff:fe14:5", Peer.UNPROVED),
            (FREE, Peer.UNPROVED),
        ):
            with self.subTest(address):
                self.assertIs(self.peer(address), peer)

    def test_many_requests_cost_an_inspection_a_second_and_no_list(self) -> None:
        self.begin()
        for _ in range(100):
            self.peer(MASTER)
            self.peer(GAME)
        self.assertEqual((self.containers.lists, self.containers.inspections), (1, 0))
        for _ in range(3):
            self.later += peers.CONFIRMED_S
            for _ in range(100):
                self.peer(MASTER)
        self.assertEqual((self.containers.lists, self.containers.inspections), (1, 3))

    def test_many_requests_from_an_address_without_a_container_cost_a_list_a_second(self) -> None:
        self.begin()
        other = "172.20.0.78"
        for _ in range(50):
            self.assertIs(self.peer(FREE), Peer.UNPROVED)
            self.assertIs(self.peer(other), Peer.UNPROVED)
        self.assertLessEqual(self.containers.lists, 3)

    def test_a_game_that_started_since_the_last_list_is_known_before_its_first_request_is_decided(self) -> None:
        self.begin()
        self.containers.take(FREE, "new", is_game=True)
        self.assertIs(self.peer(FREE), Peer.GAME)

    def test_another_container_that_started_since_is_served_by_its_first_request(self) -> None:
        self.begin()
        self.containers.take(FREE, "new", is_game=False)
        self.assertIs(self.peer(FREE), Peer.OTHER)

    def test_an_address_that_proved_nothing_is_known_a_second_after_its_container(self) -> None:
        self.begin()
        self.assertIs(self.peer(FREE), Peer.UNPROVED)
        for is_game, peer in ((False, Peer.OTHER), (True, Peer.GAME)):
            self.containers.take(FREE, str(peer), is_game=is_game)
            self.later += peers.CONFIRMED_S
            self.assertIs(self.peer(FREE), peer)

    def test_an_address_that_another_container_reuses_is_noticed_within_a_second(self) -> None:
        self.begin()
        self.containers.take(GAME, "m2", is_game=False)
        self.containers.take(MASTER, "g2", is_game=True)
        self.later += peers.CONFIRMED_S
        self.assertIs(self.peer(GAME), Peer.OTHER)
        self.assertIs(self.peer(MASTER), Peer.GAME)

    def test_a_start_of_this_instance_lets_no_earlier_confirmation_count(self) -> None:
        self.begin()
        self.assertIs(self.peer(MASTER), Peer.OTHER)
        self.watch.changed()
        self.containers.take(MASTER, "g2", is_game=True)
        self.assertIs(self.peer(MASTER), Peer.GAME)

    def test_a_container_that_has_ended_proves_nothing_any_more(self) -> None:
        self.begin()
        self.containers.holders = {}
        self.later += peers.CONFIRMED_S
        self.assertIs(self.peer(GAME), Peer.UNPROVED)
        self.assertIs(self.peer(MASTER), Peer.UNPROVED)

    def test_without_docker_what_is_known_counts_at_once_and_the_rest_is_unavailable(self) -> None:
        self.begin()
        self.containers.broken = Unavailable("docker", "gone fishing")
        self.later += 3600
        self.assertIs(self.peer(GAME), Peer.GAME)
        began = monotonic()
        self.assertIs(self.peer(MASTER), Peer.OTHER)
        self.assertIs(self.peer(OUTSIDE), Peer.OTHER)
        with self.assertRaisesRegex(Unavailable, f"{FREE}.*gone fishing"):
            self.peer(FREE)
        self.assertLess(monotonic() - began, peers.WAIT_S / 2, "an outage must not cost each request a wait")
        self.containers.broken = None
        until = monotonic() + 10
        while self.containers.lists < 3 and monotonic() < until:
            threading.Event().wait(0.05)
            self.watch.wake.set()
        self.assertIs(self.peer(FREE), Peer.UNPROVED)

    def test_a_docker_that_hangs_holds_a_request_up_for_a_limited_time_and_later_ones_not_at_all(self) -> None:
        self.begin()
        release = threading.Event()
        self.addCleanup(release.set)
        self.containers.before_list = lambda: release.wait(20)
        with mock.patch.object(peers, "WAIT_S", 0.3):
            began = monotonic()
            with self.assertRaises(Unavailable):
                self.peer(FREE)
            self.assertLess(monotonic() - began, 3)
            began = monotonic()
            with self.assertRaises(Unavailable):
                self.peer(FREE)
            self.later += peers.CONFIRMED_S
            self.assertIs(self.peer(MASTER), Peer.OTHER)
            self.assertLess(monotonic() - began, 0.3)
        release.set()

    def test_probes_wait_for_nothing(self) -> None:
        self.assertIs(self.peer(GAME, wait=False), Peer.UNPROVED)
        self.watch.step()
        self.assertIs(self.peer(GAME, wait=False), Peer.GAME)
        self.later += 3600
        self.assertIs(self.peer(GAME, wait=False), Peer.GAME)
        self.assertEqual((self.containers.lists, self.containers.inspections), (1, 0))


LABELS = {LABEL_OWNER: OWNER, LABEL_KIND: KIND}


class DockerAddressesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()
        self.runtime = DockerRuntime(self.daemon.host)
        self.addCleanup(self.runtime.close)
        config = [{"Subnet": "172.20.0.0/16", "Gateway": GATEWAY}, {"Subnet": "FD00:20:0::/64"}, {"Subnet": 7}, None]
        self.answer(
            "GET /networks",
            [
                {"Name": NETWORK, "Id": "n", "IPAM": {"Config": config}},
                {"Name": f"{NETWORK}-2", "Id": "o", "IPAM": {"Config": [{"Subnet": "10.0.0.0/8", "Gateway": OUTSIDE}]}},
            ],
        )

    def answer(self, request: str, body: object, status: int = 200) -> None:
        self.daemon.answers[request] = lambda exchange: exchange.reply(status, body)

    def entry(self, container_id: str, labels: object, **networks: object) -> dict[str, Any]:
        return {"Id": container_id, "Labels": labels, "NetworkSettings": {"Networks": networks}}

    def test_every_address_of_every_container_in_the_network_is_known(self) -> None:
        entries = [
            self.entry(
                "g", LABELS, a={"IPAddress": GAME, "GlobalIPv6Address": "FD00:20::0:5"}, b={"IPAddress": "10.9.0.5"}
            ),
            self.entry("m", {}, a={"IPAddress": MASTER, "GlobalIPv6Address": ""}),
            self.entry("t", {**LABELS, LABEL_KIND: KIND_TRIAL}, a={"IPAddress": "172.20.0.8"}),
            self.entry("odd", None, a={"IPAddress": 7, "GlobalIPv6Address": "x:y"}, b=None),
            7,
        ]
        self.answer("GET /containers/json", entries)
        found = self.runtime.network_addresses(NETWORK)
        self.assertEqual([str(each) for each in found.subnets], ["172.20.0.0/16", "fd00:20::/64"])
        self.assertEqual(found.gateways, {GATEWAY})
        game, other = AddressHolder("g", True), AddressHolder("m", False)
        expected = {GAME: game, "fd00:20::5": game, "10.9.0.5": game, MASTER: other}
        self.assertEqual(found.holders, {**expected, "172.20.0.8": AddressHolder("t", False)})

    def test_where_networks_cannot_be_read_any_address_may_be_a_containers(self) -> None:
        self.answer("GET /networks", {"message": "no"}, 403)
        self.answer("GET /containers/json", [])
        found = self.runtime.network_addresses(NETWORK)
        self.assertEqual([str(each) for each in found.subnets], ["0.0.0.0/0", "::/0"])

    def test_a_container_has_an_address_while_it_runs(self) -> None:
        self.assertFalse(self.runtime.has_address("g", GAME))
        for status, address, expected in (
            ("running", GAME, True),
            ("paused", GAME, True),
            ("running", MASTER, False),
            ("exited", GAME, False),
        ):
            networks = {NETWORK: {"IPAddress": address}}
            body = {"Id": "g", "State": {"Status": status}, "NetworkSettings": {"Networks": networks}}
            self.answer("GET /containers/g/json", body)
            self.assertEqual(self.runtime.has_address("g", GAME), expected, status)


if __name__ == "__main__":
    unittest.main()
