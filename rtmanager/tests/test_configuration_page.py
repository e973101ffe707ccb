"""The generated configuration page is up to date with the table of variables."""

import re
import unittest
from pathlib import Path

from rtmanager.config.variables import VARIABLES
from rtmanager.tests.configuration_page import page

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


class ConfigurationPage(unittest.TestCase):
    def test_the_page_in_docs_is_the_one_that_the_table_makes(self) -> None:
        remedy = "run python -m rtmanager.tests.configuration_page > docs/configuration.md"
        self.assertEqual(PAGE.read_text(encoding="utf-8"), page(), remedy)


class NamesOfVariables(unittest.TestCase):
    """A remedy must not name a variable that does not exist."""

    def test_every_variable_that_the_code_and_the_docs_name_exists(self) -> None:
        root = PAGE.parents[1]
        files = [root / "README.md", *(root / "docs").rglob("*.md")]
        files += [each for each in (root / "rtmanager").rglob("*.py") if "tests" not in each.parts]
        known = {variable.name for variable in VARIABLES}
        for file in files:
            named = set(re.findall(r"RTMANAGER_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_*…{])", file.read_text(encoding="utf-8")))
            with self.subTest(file=file.name):
                self.assertEqual(named - known, set())
