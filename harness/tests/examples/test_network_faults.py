"""A fault proxy between a program and its server."""

import unittest

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as TooLate
from redis.retry import Retry

from harness import check_flag, faults, start_redis


class LostAnswer(unittest.TestCase):
    def test_a_lost_answer_does_not_mean_that_nothing_was_done(self) -> None:
        check_flag()
        with (
            start_redis() as server,
            server.client() as direct,
            faults.before((server.host, server.port)) as proxy,
            Redis(host=proxy.host, port=proxy.port, socket_timeout=0.5, retry=Retry(NoBackoff(), 0)) as client,
        ):
            client.ping()
            proxy.half_open()
            with self.assertRaises(TooLate):
                client.incr("n")
            self.assertEqual(direct.get("n"), "1")
            proxy.pass_on()
            self.assertEqual(client.incr("n"), 2)
