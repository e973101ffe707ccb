"""The protections can still be removed from this source; see reliability/protections."""

import tempfile
import unittest
from pathlib import Path

from reliability.mutants.trial import ROOT
from reliability.protections.catalogue import PROTECTIONS
from reliability.protections.cli import Trial, _said
from reliability.protections.protection import Edit, Protection, cells
from rtmanager.failpoints import POINTS

ONE = Protection("a name", "a loss", [Edit("README.md", "old", "new")], cells("stop job", "docker.stop.after"))


class CatalogueTest(unittest.TestCase):
    def test_the_old_text_of_each_edit_stands_once_in_the_source(self) -> None:
        self.assertEqual([problem for each in PROTECTIONS if (problem := each.problem(ROOT))], [])

    def test_each_has_a_name_of_its_own(self) -> None:
        self.assertEqual(len({each.name for each in PROTECTIONS}), len(PROTECTIONS))

    def test_the_points_that_are_to_notice_exist(self) -> None:
        asked = [each.noticed_by.arguments for each in PROTECTIONS]
        points = {arguments[arguments.index("--point") + 1] for arguments in asked if "--point" in arguments}
        self.assertEqual(points - POINTS, set())


class TrialTest(unittest.TestCase):
    def test_a_row_tells_what_noticed_said(self) -> None:
        row = Trial(ONE, True, "I1: a | b", 1.0).row()
        self.assertEqual(row, "| a name | a loss | crash matrix: stop job, docker.stop.after=exit | I1: a \\| b |")

    def test_what_was_taken_out_unnoticed_stands_out(self) -> None:
        self.assertIn("**unnoticed**", Trial(ONE, False, "OK", 1.0).row())

    def test_the_telling_line_of_a_log_is_quoted(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            log.write_text("begin\nwaited 25 s for rest; last seen: I1: job 5 has no result\nend\n")
            self.assertEqual(_said(log), "I1: job 5 has no result")
            log.write_text("begin\nend\n")
            self.assertEqual(_said(log), "end")
