"""The page keeps its sentences; its figures come from the files of the benches."""

import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from bench import page
from bench.catalogue import BENCHES
from bench.errors import BenchError

_TEXT = "# Speed\n\nWords.\n\n<!-- bench path -->\nold figures\n<!-- end -->\n\nMore words.\n"


class PageTest(unittest.TestCase):
    def test_what_stands_between_the_marks_is_replaced_and_nothing_else(self) -> None:
        text = page.filled(_TEXT, {"path": {"markdown": "| 1 |", "notes": {"rows": "10,000"}}})

        self.assertEqual(
            text,
            "# Speed\n\nWords.\n\n<!-- bench path -->\n\n| 1 |\n\n- rows: 10,000\n\n<!-- end -->\n\nMore words.\n",
        )
        self.assertEqual(page.names(text), ["path"])

    def test_the_part_of_a_bench_that_was_not_run_stays(self) -> None:
        self.assertEqual(page.filled(_TEXT, {}), _TEXT)

    def test_where_none_was_run_the_first_is_named_and_the_page_left_as_it_is(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder, "performance.md")
            written.write_text(_TEXT)
            with mock.patch.object(page, "PAGE", written), self.assertRaisesRegex(BenchError, "python -m bench path"):
                page.write(Path(folder))

            self.assertEqual(written.read_text(), _TEXT)

    def test_a_page_that_is_renewed_keeps_the_history_too(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            written, kept = Path(folder, "performance.md"), Path(folder, "generated", "history.tsv")
            written.write_text(_TEXT)
            content: dict[str, object] = {
                "bench": "path",
                "markdown": "",
                "notes": {},
                "date": "2026-12-01T00:00:00Z",
                "commit": "c",
            }
            figure = {"contest": "jobs", "phase": "the whole", "reference": "a loop", "ratio": 1.25, "unmeasured": ""}
            content |= {"asked_rounds": None, "figures": [figure], "measures": []}
            Path(folder, "bench-path.json").write_text(json.dumps(content))
            with mock.patch.multiple(page, PAGE=written, HISTORY=kept, _draw=lambda _: None):
                page.write(Path(folder))

            self.assertEqual(
                kept.read_text().splitlines()[1:],
                ["2026-12-01T00:00:00Z\tc\tpath\tjobs: the whole / a loop\t1.250"],
            )

    def test_the_real_page_shows_only_benches_that_there_are(self) -> None:
        self.assertLessEqual(set(page.names(Path(page.PAGE).read_text())), set(BENCHES))
