"""The history keeps the last ten measured results of each row, one line each."""

import json
import re
import tempfile
import unittest
from pathlib import Path
from typing import Any

from bench import history
from bench.comparison import Contest, Side, timed
from bench.measure import Measure
from bench.report import Result, write_json


def content(number: int, *, disturbed: str = "", asked_rounds: int | None = None) -> dict[str, Any]:
    figure = {"contest": "a job", "phase": "the whole", "reference": "bare", "ratio": 1 + number / 1000}
    measure = {"what": "CPU", "value": 0.5, "unit": "% of a core", "at_least": None, "games": 1000}
    return {
        "bench": "start",
        "date": f"2026-12-01T00:{number:02}:00Z",
        "commit": f"c{number}",
        "asked_rounds": asked_rounds,
        "figures": [figure],
        "measures": [
            {**measure, "at_most": 1.0, "reached": None if disturbed else True},
            {**measure, "what": "no limit", "at_most": None, "reached": None},
        ],
    }


class HistoryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = Path(self.enterContext(tempfile.TemporaryDirectory()), "generated", "history.tsv")

    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.path.read_text().splitlines()[1:]]

    def test_a_result_is_one_line(self) -> None:
        history.update(self.path, [content(7)])

        self.assertEqual(self.path.read_text().splitlines()[0], "date\tcommit\tbench\trow\tresult")
        self.assertEqual(
            self.lines(),
            [
                ["2026-12-01T00:07:00Z", "c7", "start", "CPU, 1,000 games", "0.5 % of a core"],
                ["2026-12-01T00:07:00Z", "c7", "start", "a job: the whole / bare", "1.007"],
            ],
        )

    def test_the_last_ten_of_each_row_stay_in_their_order(self) -> None:
        for number in range(25):
            history.update(self.path, [content(number)])

        ratios = [line[4] for line in self.lines() if line[3].startswith("a job")]
        self.assertEqual(ratios, [f"{1 + number / 1000:.3f}" for number in range(15, 25)])
        self.assertEqual(len(self.lines()), 20)

    def test_a_run_that_is_reported_twice_is_kept_once(self) -> None:
        for _ in range(3):
            history.update(self.path, [content(1)])
        self.assertEqual(len(self.lines()), 2)

    def test_what_is_open_or_with_fewer_rounds_takes_no_place(self) -> None:
        history.update(self.path, [content(1), content(2, disturbed="CPU"), content(3, asked_rounds=1), {"bench": "x"}])
        self.assertEqual({line[1] for line in self.lines() if line[3].startswith("CPU")}, {"c1"})
        self.assertEqual({line[1] for line in self.lines()}, {"c1", "c2"})

    def test_a_name_never_breaks_a_line(self) -> None:
        odd = content(1)
        odd["figures"][0]["contest"] = "a\tjob\nor two"
        history.update(self.path, [odd])
        history.update(self.path, [content(2)])
        self.assertIn("a job or two: the whole / bare", [line[3] for line in self.lines()])

    def test_what_a_bench_writes_is_what_the_history_reads(self) -> None:
        nothing = timed(lambda: None)
        contest = Contest("nothing", Side("ours", nothing), [Side("theirs", nothing)])
        result = Result.of(contest, 2)
        file = self.path.with_name("bench.json")
        write_json(file, "some", [result], [Measure("size", 3.0, "MB", at_most=4)], {})
        history.update(self.path, [json.loads(file.read_text())])

        self.assertEqual([line[3] for line in self.lines()], ["nothing: the whole / theirs", "size"])
        for line in self.lines():
            self.assertRegex(line[0], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
            self.assertRegex(line[1], r"^([0-9a-f]{12}\+?|unknown)$")

    def test_the_real_file_has_ten_of_a_row_at_most_and_nothing_of_a_machine(self) -> None:
        if not history.HISTORY.exists():
            self.skipTest("no result has been kept yet")
        text = history.HISTORY.read_text()
        found = list(history.read(text))
        self.assertEqual(history.last(found), found)
        self.assertIsNone(re.search(r"/(tmp|home|root|work)/", text))
