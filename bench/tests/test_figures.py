"""A ratio compares what ran in one round; a percentile is a value that was seen."""

import unittest

from bench.contest import Contest, Side
from bench.figures import Spread, figures, percentile


def unused() -> dict[str, float]:
    raise AssertionError("a figure is made of samples, nothing is run")


class FiguresTest(unittest.TestCase):
    contest = Contest("starting", Side("ours", unused), [Side("theirs", unused)])

    def test_the_ratio_is_taken_within_each_round(self) -> None:
        # A machine that gets ten times slower from round to round: each round says "twice as quick".
        samples = {
            "ours": [{"ready": 0.1}, {"ready": 1.0}, {"ready": 10.0}],
            "theirs": [{"ready": 0.2}, {"ready": 2.0}, {"ready": 15.0}],
        }

        [figure] = figures(self.contest, samples)

        self.assertEqual((figure.times_as_quick, figure.at_least, figure.rounds), (2.0, 1.5, 3))
        self.assertEqual(figure.ours, Spread(median_ms=1000, p95_ms=10000, longest_ms=10000))

    def test_every_phase_has_a_figure_of_its_own(self) -> None:
        samples = {"ours": [{"ready": 1.0, "gone": 4.0}], "theirs": [{"ready": 3.0, "gone": 2.0}]}

        found = {figure.phase: figure.times_as_quick for figure in figures(self.contest, samples)}

        self.assertEqual(found, {"ready": 3.0, "gone": 0.5})

    def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(self) -> None:
        values = [float(number) for number in range(1, 21)]

        self.assertEqual([percentile(values, each) for each in (5, 50, 95, 100)], [1, 10, 19, 20])
        self.assertEqual(percentile([7.0], 95), 7)
