"""The table is markdown, and the file holds every run."""

import json
import tempfile
import unittest
from pathlib import Path

from bench.calibration import CPU
from bench.comparison import Contest, Side, timed
from bench.measure import Measure
from bench.report import Result, measures_table, table, write_json


class ReportTest(unittest.TestCase):
    def setUp(self) -> None:
        nothing = timed(lambda: None)
        self.result = Result.of(Contest("nothing", Side("ours", nothing), [Side("theirs", nothing)]), rounds=4)

    def test_the_table_has_a_row_for_each_figure_and_as_many_cells_as_its_head(self) -> None:
        head, line, row = table(self.result.figures()).splitlines()

        self.assertIn("nothing: the whole", row)
        self.assertEqual({text.count("|") for text in (head, line, row)}, {8})

    def test_the_file_holds_every_run_and_the_conditions(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "new", "bench.json")
            write_json(
                path, "some", [self.result], [Measure("idle", 0.3, "% of a core", at_most=1)], {"Docker": "20.10"}
            )
            kept = json.loads(path.read_text())

        self.assertEqual(
            {side: len(runs) for side, runs in kept["seconds"]["nothing"].items()}, {"ours": 4, "theirs": 4}
        )
        self.assertEqual(kept["notes"], {"Docker": "20.10"})
        self.assertEqual(kept["figures"][0]["rounds"], 4)
        self.assertEqual([each["reached"] for each in kept["measures"]], [True])
        self.assertIn("| idle |", kept["markdown"])

    def test_a_measure_says_what_was_asked_and_whether_it_was_reached(self) -> None:
        measures = [Measure("size", 81.4, "MB", at_most=80, games=1000), Measure("told", 1234.0, "times")]

        *_, size, told = measures_table(measures).splitlines()

        self.assertEqual(size, "| size | 1,000 | 81.4 MB | ≤ 80.0: **missed** |")
        self.assertEqual(told, "| told |  | 1,234 times |  |")


class HeldAgainTest(unittest.TestCase):
    def held(self, *speeds: float) -> tuple[int, str]:
        """How often a contest of one round is held on a machine of these speeds, and why it is not measured."""
        runs: list[int] = []
        contest = Contest("it", Side("ours", timed(lambda: runs.append(1))), [Side("theirs", timed(lambda: None))])
        seen = iter(speeds)
        result = Result.of(contest, 1, lambda: {CPU: next(seen)})
        return len(runs), result.figures()[0].unmeasured

    def test_once_when_the_machine_stays_the_same(self) -> None:
        once, _ = self.held(1.0, 1.1)
        self.assertEqual(self.held(1.0, 2.0, 1.0, 1.1), (2 * once, ""))

    def test_three_times_at_most(self) -> None:
        once, _ = self.held(1.0, 1.1)
        self.assertEqual(
            self.held(1.0, 2.0, 1.0, 2.0, 1.0, 2.0),
            (3 * once, "1 of 1 rounds disturbed, the last: CPU 100% slower afterwards"),
        )
