"""What a test costs besides its own work: network, state root, Lobby, manager, and their removal."""

import os
import secrets
import time
import unittest

from bench.comparison import WHOLE, Contest, Sample, Side, timed
from bench.errors import BenchError
from harness import daemon
from harness.rtm.case import RuntimeTestCase
from harness.runs import flag, identity

ROUNDS = 8


class _Empty(RuntimeTestCase):
    """A test that does nothing."""

    def runTest(self) -> None:
        """Do nothing."""


class _Served(RuntimeTestCase):
    """A test that starts a Runtime Manager and does nothing with it."""

    def runTest(self) -> None:
        """Start a manager."""
        self.start_runtime()


def contests() -> list[Contest]:
    """Compare a test without a manager, and one with it, with creating and removing a Docker network."""
    os.environ[flag.VARIABLE] = "require"  # fail instead of skipping: a bench needs Docker
    bare = Side("Docker's own work: a network made and removed", timed(_bare_network))
    return [
        Contest("an empty test", Side("harness", lambda: _tested(_Empty())), [bare], rounds=ROUNDS),
        Contest("an empty test with a manager", Side("harness", lambda: _tested(_Served())), [bare], rounds=ROUNDS),
    ]


def _tested(test: unittest.TestCase) -> Sample:
    result = unittest.TestResult()
    suite = unittest.TestSuite([test])
    began = time.perf_counter()
    suite.run(result)
    took = time.perf_counter() - began
    if not result.wasSuccessful() or result.skipped:
        raise BenchError(f"{test.id()} did not pass: {[*result.errors, *result.failures, *result.skipped]}")
    return {WHOLE: took}


def _bare_network() -> None:
    client = daemon.client()
    name = f"rtm-bench-{secrets.token_hex(5)}"
    made = client.create_network(name, driver="bridge", labels=identity.current().labels())
    client.remove_network(made["Id"])
