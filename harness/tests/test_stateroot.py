"""State roots: a test's own directory, removed, or kept for inspection."""

import os
import tempfile
import unittest
from unittest import mock

from harness.fixtures import certificates, stateroot
from harness.runs import identity


class StateRootTest(unittest.TestCase):
    def setUp(self) -> None:
        base = self.enterContext(tempfile.TemporaryDirectory())
        self.enterContext(mock.patch.dict(os.environ, {"RTM_IT_STATE_DIR": base}))

    def test_it_names_its_runner_until_it_is_kept(self) -> None:
        root = stateroot.create("mine")
        self.assertEqual(stateroot.owner(root.directory), identity.current())
        self.assertTrue(root.keep().is_dir())
        self.assertIsNone(stateroot.owner(root.directory))

    def test_what_was_kept_is_listed_with_its_test_until_it_is_removed(self) -> None:
        root, other = stateroot.create("mine"), stateroot.create("other")
        root.keep("shop.Shop.test_it")
        self.assertEqual(
            [(each.directory, each.why) for each in stateroot.kept()], [(root.directory, "shop.Shop.test_it")]
        )
        root.remove()
        self.assertEqual(stateroot.kept(), [])
        self.assertEqual(stateroot.directories(), [other.directory])

    def test_one_without_a_record_is_listed_when_it_is_old(self) -> None:
        lost = stateroot.base_directory() / "lost"
        lost.mkdir()
        self.assertEqual(stateroot.kept(), [])
        os.utime(lost, (1, 1))
        self.assertEqual([each.directory for each in stateroot.kept()], [lost])

    def test_the_umask_does_not_close_it_to_containers(self) -> None:
        self.addCleanup(os.umask, os.umask(0o077))
        root = stateroot.create()
        for directory in (root.directory, root.folder("games"), root.logs):
            self.assertEqual(directory.stat().st_mode & 0o777, 0o755)

    def test_nor_certificates_to_servers(self) -> None:
        self.addCleanup(os.umask, os.umask(0o077))
        with certificates.create() as authority:
            server = authority.issue("server", hosts=("127.0.0.1",))
            modes = {each.stat().st_mode & 0o777 for each in (authority.ca, server.cert, server.key)}
            self.assertEqual((authority.directory.stat().st_mode & 0o777, modes), (0o755, {0o644}))

    def test_it_is_left_where_it_was_kept_and_removed_otherwise(self) -> None:
        kept, other, of_kept_run = stateroot.create(), stateroot.create(), stateroot.create()
        kept.keep()
        with mock.patch.dict(os.environ, {identity.KEEP_VARIABLE: "1"}):
            of_kept_run.leave()
        for each in (kept, other):
            each.leave()
        self.assertEqual(set(stateroot.directories()), {kept.directory, of_kept_run.directory})

    def test_two_of_one_name_are_two(self) -> None:
        self.assertNotEqual(stateroot.create("a").directory, stateroot.create("a").directory)

    def test_it_is_removed_with_what_is_in_it(self) -> None:
        root = stateroot.create()
        (root.folder("games") / "g1").mkdir()
        (root.folder("games") / "g1" / "game.json").write_text("{}")
        root.remove()
        self.assertFalse(root.directory.exists())
