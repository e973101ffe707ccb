"""A ratio compares runs of one round; a percentile is a measured value."""

import unittest
from dataclasses import replace

from bench.comparison import Contest, Goal, Side
from bench.figures import Spread, figures, interval, percentile


def unused() -> dict[str, float]:
    raise AssertionError("a figure is made of samples, nothing is run")


class FiguresTest(unittest.TestCase):
    contest = Contest("starting", Side("ours", unused), [Side("theirs", unused)])

    def test_the_ratio_is_taken_within_each_round(self) -> None:
        # A machine that slows down tenfold from round to round: most rounds still have the ratio 0.5.
        samples = {
            "ours": [{"ready": 0.1}, {"ready": 1.0}, {"ready": 10.0}],
            "theirs": [{"ready": 0.2}, {"ready": 2.0}, {"ready": 15.0}],
        }

        [figure] = figures(self.contest, samples)

        self.assertEqual((figure.ratio, figure.worst, figure.rounds), (0.5, 10 / 15, 3))
        self.assertEqual(figure.ours, Spread(median_ms=1000, p95_ms=10000, longest_ms=10000))

    def test_every_phase_has_a_figure_of_its_own(self) -> None:
        samples = {"ours": [{"ready": 1.0, "gone": 4.0}], "theirs": [{"ready": 3.0, "gone": 2.0}]}

        found = {figure.phase: figure.ratio for figure in figures(self.contest, samples)}

        self.assertEqual(found, {"ready": 1 / 3, "gone": 2.0})

    def test_a_goal_is_missed_by_the_median_the_p95_or_the_rate_alone(self) -> None:
        samples = {"ours": [{"ready": 1.0}] * 9 + [{"ready": 4.0}], "theirs": [{"ready": 1.0}] * 10}

        def reached(goal: Goal) -> bool | None:
            [figure] = figures(replace(self.contest, goals={"ready": goal}, amount=50), samples)
            return figure.reached

        self.assertTrue(reached(Goal(median=1.0, p95=4.0, per_second=50)))
        self.assertFalse(reached(Goal(median=0.9)))
        self.assertFalse(reached(Goal(p95=3.9)))
        self.assertFalse(reached(Goal(per_second=51)))

    def test_a_goal_inside_the_interval_is_open_and_one_below_it_is_missed(self) -> None:
        ratios = [0.90, 0.95, 1.00, 1.05, 1.20, 1.20, 1.30, 1.40]
        samples = {"ours": [{"ready": each} for each in ratios], "theirs": [{"ready": 1.0}] * 8}
        for goal, expected in ((1.20, True), (1.10, None), (0.85, False)):
            [figure] = figures(replace(self.contest, goals={"ready": Goal(median=goal)}), samples)
            self.assertEqual((figure.low, figure.high), (0.90, 1.40))
            self.assertEqual(figure.reached, expected, goal)

    def test_the_interval_of_a_median_is_that_of_the_tables(self) -> None:
        # The ranks of the textbook tables for a confidence of 95 %.
        for count, rank in ((1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (50, 18)):
            values = [float(number) for number in range(1, count + 1)]
            self.assertEqual(interval(values), (rank, count + 1 - rank), count)

    def test_a_rate_is_reported_of_the_phases_in_which_the_amount_is_done(self) -> None:
        samples = {name: [{"ready": 2.0, "slowest": 0.1}] for name in ("ours", "theirs")}
        contest = replace(self.contest, amount=50, amount_of=("ready",))

        found = {figure.phase: figure.ours_per_second for figure in figures(contest, samples)}

        self.assertEqual(found, {"ready": 25.0, "slowest": None})

    def test_only_the_first_reference_is_the_one_to_be_measured_against(self) -> None:
        contest = Contest(
            "starting",
            Side("ours", unused),
            [Side("theirs", unused), Side("floor", unused)],
            goals={"ready": Goal(1.0)},
        )
        samples = {name: [{"ready": 1.0}] for name in ("ours", "theirs", "floor")}

        found = {figure.reference: figure.reached for figure in figures(contest, samples)}

        self.assertEqual(found, {"theirs": True, "floor": None})

    def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(self) -> None:
        values = [float(number) for number in range(1, 21)]

        self.assertEqual([percentile(values, each) for each in (5, 50, 95, 100)], [1, 10, 19, 20])
        self.assertEqual(percentile([7.0], 95), 7)
