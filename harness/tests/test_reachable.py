"""A container on a test's network reaches PostgreSQL and Redis by name; waits end when it ends."""

import time
import unittest
from typing import Any
from unittest import mock

from harness import ServicesTestCase, WaitFailed, images, start_services
from harness.fixtures import listening
from harness.fixtures.network import Network

#: Takes an element of a list and inserts it into a table, as a worker does.
WORKER = """
greeting=$(redis-cli -h redis.test LPOP greetings) || exit 1
psql -q -v ON_ERROR_STOP=1 "$DSN" -c "INSERT INTO greetings VALUES ('$greeting')"
"""


def setUpModule() -> None:
    start_services()


class ReachableTest(ServicesTestCase):
    def work(self, network: Network, **settings: Any) -> None:
        with self.database.connect() as connection:
            connection.execute("CREATE TABLE greetings (words text)")
        self.redis.rpush("greetings", "hello")
        worker = self.start_container(
            images.postgres(),
            entrypoint=["sh", "-c", WORKER],
            env={"DSN": self.reachable_on(network).dsn},
            network=network.name,
            **settings,
        )
        self.wait_until("the greeting", lambda: self.rows("SELECT * FROM greetings") == [{"words": "hello"}])
        self.assertEqual(worker.wait_for_exit(), 0, worker.logs())

    def test_a_worker_in_a_container_reads_redis_and_writes_postgresql(self) -> None:
        network = self.create_network()
        self.assertIn("@postgres.test:5432/", self.reachable_on(network).dsn)
        self.assertEqual(self.reachable_on(network).redis_address, "redis.test:6379")
        self.work(network)

    def test_twice(self) -> None:
        """The same table again: each test starts with the template's state."""
        self.work(self.create_network(), extra_hosts={"other": "127.0.0.1"}, host_config={"init": True})

    def test_two_networks_have_their_own_way_each(self) -> None:
        one, other = self.create_network(), self.create_network()
        self.reachable_on(one)
        self.work(other)

    def test_from_a_published_port_too(self) -> None:
        """As with a daemon of another machine: the servers are on their own networks, and join the test's."""
        from harness.fixtures import services

        with (
            mock.patch.object(listening, "shares_our_network", return_value=False),
            services.running() as (server, store),
        ):
            self.services = services.Services(server, store, server.create_database(self.layout))
            self.database, own = self.services.database, self.redis
            self.redis = store.client()
            try:
                network = self.create_network()
                self.work(network)
                self.doCleanups()
                self.assertTrue(server.container.inspect()["State"]["Running"], "it left before the network went")
            finally:
                self.redis.close()
                self.redis = own

    def test_a_wait_ends_when_a_container_of_the_test_fails_and_shows_its_log(self) -> None:
        done = self.start_container(images.redis(), entrypoint=["true"])
        self.start_container(images.redis(), entrypoint=["sh", "-c", "sleep 0.5; echo all is lost; exit 3"])
        began = time.monotonic()
        with self.assertRaisesRegex(WaitFailed, r"(?s)the row: .*exit code 3.*all is lost"):
            self.wait_until("the row", lambda: False)
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(done.wait_for_exit(), 0)


class AgainTest(unittest.TestCase):
    def test_the_shared_servers_are_there_after_all_that(self) -> None:
        from harness.fixtures import services

        for each in services.servers():
            self.assertIsNone(each.container.why_ended())
