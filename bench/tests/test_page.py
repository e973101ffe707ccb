"""The generated page has the tables of the last runs, and counts its goals from these tables."""

import json
import re
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from bench import page
from bench.errors import BenchError
from bench.measure import Measure
from bench.report import measures_table

#: The page that is written by hand, in the parent of the generated page's folder.
HAND_WRITTEN = page.PAGE.parents[1] / "performance.md"

_PATH = {"markdown": "| 1 |", "notes": {"rows": "10,000"}}


class PageTest(unittest.TestCase):
    def test_a_bench_has_its_table_and_its_notes_under_its_name(self) -> None:
        text = page.page({}, {"path": _PATH})

        self.assertIn(
            "## path\n\nJobs that need no Docker, from the stream of jobs to that of results.\n\n"
            "<!-- bench path -->\n\n| 1 |\n\n- rows: 10,000\n\n<!-- end -->\n",
            text,
        )
        self.assertEqual(set(page.parts(text)), {"path"})

    def test_the_part_of_a_bench_that_was_not_run_stays(self) -> None:
        earlier = page.parts(page.page({}, {"path": _PATH, "rest": {**_PATH, "markdown": "| 2 |"}}))
        later = page.parts(page.page(earlier, {"rest": {**_PATH, "markdown": "| 3 |"}}))

        self.assertEqual(later["path"], earlier["path"])
        self.assertIn("| 3 |", later["rest"])

    def test_a_page_without_a_new_run_is_the_same_page(self) -> None:
        text = page.page({}, {"path": _PATH})
        self.assertEqual(page.page(page.parts(text), {}), text)

    def test_the_part_of_a_bench_that_is_gone_goes(self) -> None:
        self.assertEqual(page.parts(page.page({"gone": "old\n"}, {})), {})

    def test_goals_are_counted_and_what_is_not_reached_is_named(self) -> None:
        found = [
            Measure("small", 1.0, "MB", at_most=2, games=1000),
            Measure("large", 3.0, "MB", at_most=2, games=1000),
            Measure("torn", 3.0, "MB", at_most=2, disturbed="CPU 30% faster afterwards"),
            Measure("no goal", 3.0, "MB"),
        ]
        text = page.page({}, {"idle": {"markdown": measures_table(found), "notes": {}}})

        self.assertIn(
            "\nGoals reached: 1 of 3.\n\n- `idle`: large, 1,000 games: missed\n- `idle`: torn: open\n\n##", text
        )

    def test_where_no_bench_was_run_the_first_is_named_and_the_page_left_as_it_is(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder, "performance.md")
            written.write_text("as it was")
            with mock.patch.object(page, "PAGE", written), self.assertRaisesRegex(BenchError, "python -m bench start"):
                page.write(Path(folder))

            self.assertEqual(written.read_text(), "as it was")

    def test_a_page_that_is_renewed_keeps_the_history_too(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            written, kept = Path(folder, "generated", "performance.md"), Path(folder, "generated", "history.tsv")
            content: dict[str, object] = {
                "bench": "path",
                "markdown": "| 1 |",
                "notes": {},
                "date": "2026-12-01T00:00:00Z",
                "commit": "c",
            }
            figure = {"contest": "jobs", "phase": "the whole", "reference": "a loop", "ratio": 1.25}
            content |= {"asked_rounds": None, "figures": [figure], "measures": []}
            Path(folder, "bench-path.json").write_text(json.dumps(content))
            with mock.patch.multiple(page, PAGE=written, HISTORY=kept, _draw=lambda _: None):
                page.write(Path(folder))

            self.assertIn("| 1 |", written.read_text())
            self.assertEqual(
                kept.read_text().splitlines()[1:],
                ["2026-12-01T00:00:00Z\tc\tpath\tjobs: the whole / a loop\t1.250"],
            )


class RealPagesTest(unittest.TestCase):
    def test_the_generated_page_is_what_the_generator_makes_of_its_parts(self) -> None:
        text = page.PAGE.read_text()
        self.assertEqual(page.page(page.parts(text), {}), text)

    def test_each_goal_on_the_page_written_by_hand_is_a_goal_of_its_bench(self) -> None:
        generated = page.parts(page.PAGE.read_text())
        rows = re.findall(r"^\| `([a-z]+)` \|.*\| ((?:≤|≥) [^|]+) \|$", HAND_WRITTEN.read_text(), re.MULTILINE)
        self.assertGreater(len(rows), 10)
        for bench, wanted in rows:
            with self.subTest(bench=bench, goal=wanted):
                for goal in wanted.split(", "):
                    self.assertRegex(generated[bench], f"{re.escape(goal)}[:,]")
