"""The page keeps its sentences; its figures come from the files of the benches."""

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

    def test_the_real_page_shows_only_benches_that_there_are(self) -> None:
        self.assertLessEqual(set(page.names(Path(page.PAGE).read_text())), set(BENCHES))
