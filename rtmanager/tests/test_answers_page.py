"""The generated answers page is up to date with the adapters' tables."""

import unittest
from pathlib import Path

from rtmanager import failpoints
from rtmanager.adapters.docker.answers import CALLS
from rtmanager.tests.answers_page import page

PAGE = Path(__file__).parents[2] / "docs" / "generated" / "answers.md"


class AnswersPage(unittest.TestCase):
    def test_the_page_in_docs_is_the_one_that_the_tables_make(self) -> None:
        remedy = "run python -m rtmanager.tests.answers_page > docs/generated/answers.md"
        self.assertEqual(PAGE.read_text(encoding="utf-8"), page(), remedy)

    def test_every_call_of_the_daemon_stands_in_the_table(self) -> None:
        calls = {name.partition(".")[2] for name in failpoints.EFFECTS if name.startswith("docker.")}
        self.assertEqual(set(CALLS), calls)
