"""The table is markdown, and the file holds every run."""

import json
import tempfile
import unittest
from pathlib import Path

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

    def test_a_measure_says_what_was_requested_and_whether_it_was_reached(self) -> None:
        measures = [Measure("size", 81.4, "MB", at_most=80, games=1000), Measure("published", 1234.0, "times")]

        *_, size, published = measures_table(measures).splitlines()

        self.assertEqual(size, "| size | 1,000 | 81.4 MB | ≤ 80.0: **missed** |")
        self.assertEqual(published, "| published |  | 1,234 times |  |")

    def test_a_measure_beyond_its_limit_on_a_disturbed_machine_is_open_and_one_within_it_is_reached(self) -> None:
        found = [
            Measure("small", 1.0, "MB", at_most=2, disturbed="CPU 30% faster afterwards"),
            Measure("large", 3.0, "MB", at_most=2, disturbed="CPU 30% faster afterwards"),
        ]

        *_, small, large = measures_table(found).splitlines()

        self.assertEqual(small, "| small |  | 1.00 MB (CPU 30% faster afterwards) | ≤ 2.00: reached |")
        self.assertEqual(large, "| large |  | 3.00 MB (CPU 30% faster afterwards) | ≤ 2.00: open |")
