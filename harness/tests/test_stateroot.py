"""State roots: a test's own directory, removed, or kept for a look."""

import os
import tempfile
import unittest
from unittest import mock

from harness.fixtures import stateroot
from harness.runs import runner


class StateRootTest(unittest.TestCase):
    def setUp(self) -> None:
        base = self.enterContext(tempfile.TemporaryDirectory())
        self.enterContext(mock.patch.dict(os.environ, {"RTM_IT_STATE_DIR": base}))

    def test_it_names_its_runner_until_it_is_kept(self) -> None:
        root = stateroot.create("mine")
        self.assertEqual(stateroot.owner(root.directory), runner.current())
        self.assertTrue(root.keep().is_dir())
        self.assertIsNone(stateroot.owner(root.directory))

    def test_two_of_one_name_are_two(self) -> None:
        self.assertNotEqual(stateroot.create("a").directory, stateroot.create("a").directory)

    def test_it_is_removed_with_what_is_in_it(self) -> None:
        root = stateroot.create()
        (root.games / "g1").mkdir()
        (root.games / "g1" / "game.json").write_text("{}")
        root.remove()
        self.assertFalse(root.directory.exists())
