"""docs/generated/harness.md is equal to the page made from the docstrings."""

import unittest
from pathlib import Path

import harness
from harness.tests.reference_page import page

PAGE = Path(__file__).parents[2] / "docs" / "generated" / "harness.md"


class ReferencePageTest(unittest.TestCase):
    def test_the_page_is_the_one_that_is_made_from_the_docstrings(self) -> None:
        remedy = "run python -m harness.tests.reference_page > docs/generated/harness.md"
        self.assertEqual(PAGE.read_text(), page(), remedy)

    def test_everything_that_the_harness_exports_has_a_section(self) -> None:
        headings = [line[3:] for line in page().splitlines() if line.startswith("## ")]
        self.assertEqual([each for each in harness.__all__ if each not in headings], [])
