"""The short form of the chaos run: one round of faults with a fixed seed. `make chaos` is the long form."""

import os
import shutil
import sys
import unittest
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.fixtures import dockerd
from harness.runs import flag
from reliability.chaos import report
from reliability.chaos.plan import Size
from reliability.chaos.run import Report, Rounds, run, until_time_is_up
from reliability.upgrade import FAULTS, REPOSITORY, Exchanges

#: Duration of the faults; starting the servers, recovery and the check take as long again.
SECONDS = 15.0
#: Of each phase of an upgrade. `make upgrade` takes two releases.
UPGRADE_S = 6.0
SEED = "7"


def setUpModule() -> None:
    flag.check()


class Chaos(unittest.TestCase):
    def run_seed(self, seed: str, seconds: float, size: Size, rounds: Rounds = until_time_is_up) -> Report:
        """Run a seed; prints its table if it found a violation."""
        # The Docker SDK leaves a socket open when it cannot reach a stopped daemon.
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)
        found = run(int(seed), seconds, size, rounds=rounds)
        if found.problems:
            sys.stderr.write(f"\n{report.table(found)}\n")
        return found

    def test_whatever_fails_nothing_is_lost_done_twice_or_published_wrongly(self) -> None:
        size = Size(managers=2, games=5, job_clients=2, callers=3, own_daemon=dockerd.why_unavailable() is None)
        found = self.run_seed(os.environ.get("RTM_CHAOS_SEED") or SEED, SECONDS, size)
        self.assertEqual(found.problems, [])
        self.assertGreater(found.results, 0)
        self.assertEqual(len(found.canaries_s), 4, "each canary was started and stopped beside a stuck game")

    def test_managers_of_two_directories_take_over_from_each_other_and_no_game_is_restarted(self) -> None:
        code = Path(self.enterContext(TemporaryDirectory()))
        shutil.copytree(REPOSITORY / "rtmanager", code / "rtmanager")
        size = Size(managers=2, games=4, job_clients=1, callers=2, kinds=FAULTS, code=str(code))
        found = self.run_seed(SEED, UPGRADE_S, size, Exchanges(str(code), UPGRADE_S, ("bb", "ab")))
        self.assertEqual((found.problems, found.rounds), ([], 2))
        self.assertGreater(found.results, 0)
