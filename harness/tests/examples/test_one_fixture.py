"""One fixture without a base class."""

import unittest

from harness import check_flag, start_redis


class Counter(unittest.TestCase):
    def test_it_counts(self) -> None:
        check_flag()
        with start_redis() as server, server.client() as client:
            self.assertEqual([client.incr("n"), client.incr("n")], [1, 2])
