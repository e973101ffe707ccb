"""A short form of each fuzz run, with a fixed seed, so that a failure is reproducible."""

from __future__ import annotations

from harness import DockerTestCase
from reliability.fuzz.__main__ import load, names

#: Inputs of the short form, by run; the test fails for a run that is missing here.
SHORT: dict[str, int] = {
    "containers": 40,
    "entries": 250,
    "http": 400,
    "odd_answers": 15,
    "references": 400,
    "refused_jobs": 30,
    "slow_clients": 66,
}
SEED = 20261201


class ShortRuns(DockerTestCase):
    def test_no_run_finds_a_violation(self) -> None:
        self.assertEqual(sorted(SHORT), names())
        for name, count in SHORT.items():
            with self.subTest(run=name):
                self.assertEqual(load(name).run(SEED, count, lambda _: None), [])
