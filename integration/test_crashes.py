"""A sample of the crash matrix: some operations, each killed or failed at one failpoint of every kind.

`make crashes` runs all cells. The failure contains the seed; RTM_CRASHES_SEED repeats the sample.
"""

import os
import random
import secrets
import unittest
from contextlib import ExitStack

from harness import start_services
from harness.fixtures import dockerd, services
from harness.runs import flag
from reliability.crashes.cells import FAILED
from reliability.crashes.matrix import Matrix, sample
from reliability.crashes.scenarios import SCENARIOS

#: The numbers of sampled operations, of cells, and of cells in parallel, most of which wait.
OPERATIONS, CELLS, SIDE_BY_SIDE = 4, 14, 6


def setUpModule() -> None:
    start_services()


class CrashMatrix(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        flag.check()

    def test_wherever_an_operation_is_killed_or_fails_it_is_repaired(self) -> None:
        seed = int(os.environ.get("RTM_CRASHES_SEED") or secrets.randbelow(1 << 30))
        possible = [each.name for each in SCENARIOS.values() if not (each.own_daemon and dockerd.why_unavailable())]
        names = random.Random(seed).sample(sorted(possible), OPERATIONS)
        with self.subTest(seed=seed), ExitStack() as stack:
            matrix = Matrix(services.servers()[0], SIDE_BY_SIDE, stack)
            todo = sample(matrix.observe(names).cells(), CELLS, seed)
            self.assertEqual(len(todo), CELLS)
            failed = [verdict for verdict in matrix.run(todo) if verdict.outcome == FAILED]
            self.assertEqual(failed, [], "\n".join(f"{verdict.cell}: {verdict.why}" for verdict in failed))
