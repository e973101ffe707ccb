"""A Docker daemon whose answers the test defines."""

import unittest

import docker
from docker.errors import APIError

from harness import Reply, check_flag, start_scripted_daemon


class OddAnswers(unittest.TestCase):
    def test_a_daemon_that_cannot_start_containers_now(self) -> None:
        check_flag()
        with start_scripted_daemon(behind=None) as odd:
            odd.answer("POST /containers/*/start", Reply(503, {"message": "not now"}), times=1)
            odd.answer("GET /containers/json", Reply(200, [], delay_s=0.1))
            client = docker.APIClient(odd.host, version="1.41")
            with self.assertRaisesRegex(APIError, "not now"):
                client.start("c1")
            self.assertEqual(client.containers(), [])
            self.assertEqual(odd.count("POST *"), 1)
