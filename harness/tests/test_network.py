"""Networks when Docker has no addresses left: a wait, then an error with the remedy. With a stand-in for the daemon."""

import unittest
from typing import Any
from unittest import mock

from docker.errors import APIError

from harness.errors import HarnessError
from harness.fixtures import network

FULL = "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"


class NoAddressesTest(unittest.TestCase):
    def create(self, *answers: Any) -> network.Network:
        client = mock.Mock()
        client.create_network.side_effect = answers
        with (
            mock.patch("harness.daemon.client", return_value=client),
            mock.patch.object(network, "ROOM_TIMEOUT_S", 0.5),
        ):
            return network.create("crowded")

    def refusal(self, text: str) -> APIError:
        return APIError("500 Server Error", explanation=text)

    def test_it_is_made_as_soon_as_another_test_leaves_room(self) -> None:
        made = self.create(self.refusal(FULL), {"Id": "n1"})
        self.assertEqual((made.name, made.network_id), ("crowded", "n1"))

    def test_without_room_the_failure_names_the_network_and_the_remedy(self) -> None:
        newer = "all predefined address pools have been fully subnetted"
        with self.assertRaisesRegex(HarnessError, "(?s)network crowded.*harness sweep.*network prune"):
            self.create(*[self.refusal(newer)] * 20)

    def test_another_refusal_is_passed_on_at_once(self) -> None:
        with self.assertRaisesRegex(APIError, "permission"):
            self.create(self.refusal("permission denied"), {"Id": "n1"})
