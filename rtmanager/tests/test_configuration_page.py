"""The configuration reference says what the code reads."""

import unittest
from pathlib import Path

from rtmanager.tests.configuration_page import page

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


class ConfigurationPage(unittest.TestCase):
    def test_the_page_in_docs_is_the_one_that_the_table_makes(self) -> None:
        remedy = "run python -m rtmanager.tests.configuration_page > docs/configuration.md"
        self.assertEqual(PAGE.read_text(encoding="utf-8"), page(), remedy)
