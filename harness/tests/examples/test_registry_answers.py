"""An image registry whose answers the test defines."""

import unittest

from docker.errors import APIError

from harness import check_flag, daemon, scripted_registry


class Denied(unittest.TestCase):
    def test_a_refusal_is_reported_with_the_registrys_message(self) -> None:
        check_flag()
        with scripted_registry.start() as shop:
            shop.answer("manifest", scripted_registry.refusal(403, "DENIED", "not for you"))
            with self.assertRaisesRegex(APIError, "denied"):
                daemon.client().pull(shop.reference("game"), "1.0.0")
            shop.heal()
            daemon.client().pull(shop.reference("game"), "1.0.0")
