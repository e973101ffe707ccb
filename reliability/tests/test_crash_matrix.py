"""The list of cells of the crash matrix; `integration/test_crashes.py` runs some of them."""

import unittest

from reliability.crashes.cells import Cell
from reliability.crashes.matrix import MOST_TIMES, QUESTIONS, Reached, sample
from rtmanager.failpoints import EFFECTS, POINTS

FOUND = Reached(
    {
        "stop": ["postgres.record.before", "postgres.record.after", "docker.stop.before", "docker.stop.after"],
        "restart": ["docker.stop.before", "docker.stop.after"] * (MOST_TIMES + 1),
    }
)


class Cells(unittest.TestCase):
    def test_every_point_is_a_cell_of_every_operation_that_reaches_it(self) -> None:
        cells = FOUND.cells(["exit"])
        self.assertEqual(
            [cell for cell in cells if cell.scenario == "stop"],
            [Cell("stop", point) for point in ("docker.stop.after", "docker.stop.before", "postgres.record.after")],
        )

    def test_an_effect_that_comes_again_is_a_cell_each_time(self) -> None:
        hits = [
            cell.hit
            for cell in FOUND.cells(["raise"])
            if cell == Cell("restart", "docker.stop.after", "raise", cell.hit)
        ]
        self.assertEqual(hits, list(range(1, MOST_TIMES + 1)))

    def test_what_an_idle_manager_reaches_is_tried_in_some_operations_only(self) -> None:
        found = Reached(
            {"stop": ["docker.stop.after", "docker.list.after"], "restart": ["docker.list.after"]},
            {"docker.list.after"},
        )
        self.assertEqual(
            found.cells(["exit"]), [Cell("stop", "docker.stop.after"), Cell("restart", "docker.list.after")]
        )
        self.assertEqual(len(found.cells(["exit"], every=True)), 3)

    def test_what_only_reads_is_an_effect_of_the_service(self) -> None:
        self.assertEqual(QUESTIONS - EFFECTS, set())

    def test_points_that_nothing_reaches_are_named(self) -> None:
        self.assertEqual(FOUND.never(), POINTS - {point for each in FOUND.by_scenario.values() for point in each})

    def test_a_sample_has_each_point_once_and_is_the_seeds(self) -> None:
        cells = FOUND.cells()
        for seed in range(20):
            chosen = sample(cells, 3, seed)
            self.assertEqual(len({cell.point for cell in chosen}), 3)
            self.assertEqual(chosen, sample(cells, 3, seed))
        self.assertGreater(len({tuple(sample(cells, 3, seed)) for seed in range(20)}), 1)
