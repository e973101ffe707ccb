"""A game's directory is created safely, with its owner and mode, and its content is never touched."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import tempfile
import threading
import unittest
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from rtmanager.adapters import state_directories
from rtmanager.adapters.free_space import Free
from rtmanager.adapters.state_directories import FINAL, TRIAL, HostStateDirectories
from rtmanager.adapters.state_root import MIN_INODES
from rtmanager.domain.errors import InvalidValue, TemporaryAnswer, Unavailable
from rtmanager.domain.game import check_game_id
from rtmanager.ports.runtime import StateDirectoryInvalid, StateRootUnfit
from rtmanager.tests.making import LogCapture
from rtmanager.tests.operating import wait_until
from rtmanager.workers.state_root import StateRootWatch


class HostStateDirectoriesTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.base = Path(directory.name).resolve()
        self.root = self.base / "games"
        self.root.mkdir()
        self.directories = HostStateDirectories(str(self.root), 0o750, os.getuid(), os.getgid())

    def mode(self, path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    def assert_refused(self, *parts: str, game_id: str = "g1") -> None:
        with self.assertRaises(StateDirectoryInvalid) as caught:
            self.directories.prepare(game_id)
        for part in parts:
            self.assertIn(part, str(caught.exception))

    def assert_deferred(self, *parts: str) -> None:
        with self.assertRaises(TemporaryAnswer) as caught:
            self.directories.prepare("g1")
        self.assertEqual(caught.exception.code, "start_config_invalid")
        for part in parts:
            self.assertIn(part, str(caught.exception))

    def test_a_new_directory_has_the_configured_mode_whatever_the_umask(self) -> None:
        self.addCleanup(os.umask, os.umask(0o077))
        path = self.directories.prepare("g1")
        self.assertEqual(path, str(self.root / "g1"))
        self.assertEqual(self.mode(self.root / "g1"), 0o750)

    def test_a_directory_that_is_there_gets_its_mode_and_keeps_its_content(self) -> None:
        (self.root / "g1").mkdir(mode=0o700)
        (self.root / "g1" / "turn-1").write_text("state")
        os.chmod(self.root / "g1" / "turn-1", 0o600)
        self.directories.prepare("g1")
        self.directories.prepare("g1")
        self.assertEqual(self.mode(self.root / "g1"), 0o750)
        self.assertEqual((self.root / "g1" / "turn-1").read_text(), "state")
        self.assertEqual(self.mode(self.root / "g1" / "turn-1"), 0o600)

    @unittest.skipUnless(os.geteuid() == 0, "only root can give a directory to another user")
    def test_a_directory_gets_the_configured_owner(self) -> None:
        self.directories = HostStateDirectories(str(self.root), 0o770, 12345, 23456)
        self.directories.prepare("g1")
        found = (self.root / "g1").stat()
        self.assertEqual((found.st_uid, found.st_gid), (12345, 23456))
        self.assertEqual(self.mode(self.root / "g1"), 0o770)

    def test_a_set_group_id_bit_of_the_root_is_not_inherited(self) -> None:
        self.root.chmod(0o2755)
        self.directories.prepare("g1")
        self.assertEqual(self.mode(self.root / "g1"), 0o750)

    def test_a_directory_that_is_right_needs_no_privilege(self) -> None:
        self.directories.prepare("g1")
        with (
            mock.patch("os.chown", side_effect=PermissionError),
            mock.patch("os.chmod", side_effect=PermissionError),
        ):
            self.directories.prepare("g1")

    def test_missing_privilege_is_named(self) -> None:
        self.directories = HostStateDirectories(str(self.root), 0o750, os.getuid() + 1, os.getgid())
        with mock.patch("os.chown", side_effect=PermissionError(1, "Operation not permitted")):
            self.assert_refused(str(self.root / "g1"), "owner and mode", "as root, chattr -i")

    def test_a_link_is_refused_and_what_it_points_to_stays_as_it_is(self) -> None:
        elsewhere = self.base / "elsewhere"
        elsewhere.mkdir(mode=0o700)
        (self.root / "g1").symlink_to(elsewhere)
        self.assert_refused(str(self.root / "g1"), "symbolic link")
        self.assertEqual(self.mode(elsewhere), 0o700)

    def test_a_dangling_link_is_refused_and_creates_nothing(self) -> None:
        (self.root / "g1").symlink_to(self.base / "nowhere")
        self.assert_refused("symbolic link")
        self.assertFalse((self.base / "nowhere").exists())

    def test_a_file_is_refused_and_kept(self) -> None:
        (self.root / "g1").write_text("keep me")
        self.assert_refused(str(self.root / "g1"), "not a directory")
        self.assertEqual((self.root / "g1").read_text(), "keep me")

    def test_a_link_in_place_of_the_root_is_refused(self) -> None:
        link = self.base / "link"
        link.symlink_to(self.root)
        self.directories = HostStateDirectories(str(link), 0o750, os.getuid(), os.getgid())
        self.assert_refused(str(link), "symbolic link")
        self.assertEqual(list(self.root.iterdir()), [])

    def test_links_that_lead_to_a_directory_of_the_system_are_refused(self) -> None:
        (self.base / "link").symlink_to("/")
        for root, system in (("link/etc", "/etc"), ("link/var/lib", "/var/lib")):
            self.directories = HostStateDirectories(str(self.base / root), 0o750, os.getuid(), os.getgid())
            self.assert_refused(str(self.base / root), f"lead to {system},", "RTMANAGER_GAME_STATE_ROOT")
            with self.assertRaisesRegex(StateDirectoryInvalid, f"lead to {system}"):
                self.directories.check_root()
            self.assertFalse(Path(system, "g1").exists())

    def test_a_link_above_the_root_to_anywhere_else_is_followed(self) -> None:
        (self.base / "link").symlink_to(self.base)
        self.directories = HostStateDirectories(str(self.base / "link" / "games"), 0o750, os.getuid(), os.getgid())
        self.directories.prepare("g1")
        self.assertEqual(self.mode(self.root / "g1"), 0o750)

    def test_a_missing_root_is_named_and_not_created(self) -> None:
        self.root.rmdir()
        self.assert_refused(str(self.root), "does not exist", "RTMANAGER_GAME_STATE_ROOT")
        with self.assertRaisesRegex(StateDirectoryInvalid, "does not exist"):
            self.directories.check_root()
        self.assertFalse(self.root.exists())

    def test_a_name_that_would_leave_the_root_is_refused(self) -> None:
        for game_id in ("..", "../g1", "a/b", "", ".", "a\0b"):
            with self.subTest(game_id=game_id):
                self.assert_refused("malformed", game_id=game_id)

    def test_a_read_only_file_system_is_named(self) -> None:
        self.directories.prepare("g1")
        with mock.patch("os.fstatvfs", return_value=mock.Mock(f_flag=os.ST_RDONLY)):
            self.assert_refused(str(self.root / "g1"), "read-only")
            with self.assertRaisesRegex(StateDirectoryInvalid, "read-only"):
                self.directories.check_root()

    def test_no_permission_is_named(self) -> None:
        with mock.patch("os.mkdir", side_effect=PermissionError(13, "Permission denied")):
            self.assert_refused(str(self.root), "no permission")
        (self.root / "g1").mkdir(mode=0o700)
        with mock.patch("os.chmod", side_effect=PermissionError(13, "Permission denied")):
            self.assert_refused(str(self.root / "g1"), "no permission")
        with (
            mock.patch("os.access", return_value=False),
            self.assertRaisesRegex(StateDirectoryInvalid, "no permission"),
        ):
            self.directories.check_root()

    def test_what_the_process_lacks_is_no_fault_of_the_directory(self) -> None:
        for call in ("os.open", "os.mkdir", "os.fstatvfs"):
            for number, remedy in (
                (errno.EMFILE, "ulimit -n"),
                (errno.ENFILE, "fs.file-max"),
                (errno.ENOMEM, "ulimit -v"),
            ):
                with self.subTest(call, number=number), mock.patch(call, side_effect=OSError(number, "")):
                    with self.assertRaisesRegex(Unavailable, remedy) as caught:
                        self.directories.prepare("g1")
                    self.assertNotIsInstance(caught.exception, TemporaryAnswer)
                    self.assertTrue(caught.exception.untouched)

    def test_what_a_person_has_to_mend_is_final_and_the_rest_is_tried_again(self) -> None:
        lacks = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
        numbers = {*errno.errorcode, 0, 12345} - lacks - {errno.EEXIST}
        for call, path, passing in (("os.mkdir", self.root, set()), ("os.chmod", self.root / "g1", {errno.ENOENT})):
            for number in numbers:
                with self.subTest(call, number=number), mock.patch(call, side_effect=OSError(number, "refused")):
                    judge = self.assert_refused if number in FINAL - passing else self.assert_deferred
                    judge(f"{path}: ")
        with mock.patch("os.mkdir", side_effect=OSError(errno.EPERM, "refused")):
            self.assert_refused("lsattr")

    def test_who_can_give_a_directory_to_its_owner_is_not_warned(self) -> None:
        status = Path("/proc/self/status").read_bytes()
        for effective, uid, warned in (
            (b"0000000000000001", os.getuid() + 1, False),
            (b"00000000fffffffe", os.getuid() + 1, True),
            (b"0000000000000000", os.getuid(), False),
        ):
            text = re.sub(rb"(?m)^CapEff:.*$", b"CapEff:\t" + effective, status)
            self.directories = HostStateDirectories(str(self.root), 0o750, uid, os.getgid())
            with mock.patch("builtins.open", side_effect=lambda *_, text=text: io.BytesIO(text)):
                self.assertEqual("CAP_CHOWN" in self.directories.warning(), warned)

    def test_a_trial_makes_a_directory_as_a_games_and_removes_it(self) -> None:
        for _ in range(2):
            with self.directories.trial() as path:
                self.assertEqual(self.mode(Path(path)), 0o750)
                self.assertRaises(InvalidValue, check_game_id, Path(path).name)
            self.assertEqual(list(self.root.iterdir()), [])

    def test_a_trial_takes_over_what_a_killed_one_left(self) -> None:
        (self.root / TRIAL).mkdir(mode=0)
        with self.directories.trial() as path:
            self.assertEqual(self.mode(Path(path)), 0o750)
        self.assertEqual(list(self.root.iterdir()), [])

    def test_a_trial_removes_nothing_that_somebody_put_there(self) -> None:
        (self.root / TRIAL).mkdir()
        (self.root / TRIAL / "file").write_text("keep me")
        with self.assertRaisesRegex(StateDirectoryInvalid, f"{TRIAL}: it holds something"), self.directories.trial():
            pass
        self.assertEqual((self.root / TRIAL / "file").read_text(), "keep me")

    def test_a_trial_waits_for_another_one_and_not_for_ever(self) -> None:
        other = HostStateDirectories(str(self.root), 0o700, os.getuid(), os.getgid())
        with self.directories.trial(), mock.patch.object(state_directories, "LIMIT_S", 0.01):
            with self.assertRaisesRegex(Unavailable, "another check has .* and does not end"), other.trial():
                self.fail("two at once")
            self.assertTrue((self.root / TRIAL).exists())
        with other.trial() as path:
            self.assertEqual(self.mode(Path(path)), 0o700)

    def test_a_file_system_without_locks_needs_none(self) -> None:
        with mock.patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "")), self.directories.trial() as path:
            self.assertTrue(Path(path).exists())

    def test_in_a_sticky_root_the_trial_of_another_owner_is_removed_as_its_owner(self) -> None:
        removed = mock.Mock(side_effect=[PermissionError(1, ""), None])
        with mock.patch("os.rmdir", removed), mock.patch("os.chown") as given, self.directories.trial():
            pass
        self.assertEqual((removed.call_count, given.call_args.args[:2]), (2, (TRIAL, os.geteuid())))
        self.assertFalse(given.call_args.kwargs["follow_symlinks"])

    def test_the_room_is_what_its_file_system_has_free_for_everybody(self) -> None:
        seen = {"f_bavail": 7, "f_bfree": 9, "f_frsize": 4096, "f_favail": 5, "f_files": 100}
        with mock.patch("os.fstatvfs", return_value=mock.Mock(**seen)):
            self.assertEqual(self.directories.room(), Free(7 * 4096, 5))
        with mock.patch("os.fstatvfs", return_value=mock.Mock(**{**seen, "f_files": 0})):
            self.assertEqual(self.directories.room(), Free(7 * 4096, None), "it makes inodes as it needs them")

    def test_a_directory_is_missing_only_when_nothing_stands_in_its_place(self) -> None:
        self.assertTrue(self.directories.is_missing("g1"))
        self.assertEqual(list(self.root.iterdir()), [], "nothing was made")
        self.directories.prepare("g1")
        self.assertFalse(self.directories.is_missing("g1"), "it is empty, and it is there")
        (self.root / "g2").write_text("")
        (self.root / "g3").symlink_to("nowhere")
        for game_id in ("g2", "g3"):
            self.assertFalse(self.directories.is_missing(game_id))
        self.root.rename(self.root.with_name("away"))
        with self.assertRaisesRegex(StateDirectoryInvalid, "does not exist"):
            self.directories.is_missing("g1")
        with self.assertRaisesRegex(StateDirectoryInvalid, "game_id '../g1'"):
            self.directories.is_missing("../g1")

    def test_a_directory_that_is_just_being_made_is_not_missing(self) -> None:
        thaw, mkdir = threading.Event(), os.mkdir
        self.addCleanup(thaw.set)

        def frozen(*how: Any, **where: Any) -> None:
            thaw.wait()
            mkdir(*how, **where)

        with mock.patch("os.mkdir", side_effect=frozen), mock.patch.object(state_directories, "LIMIT_S", 0.05):
            with self.assertRaises(Unavailable):
                self.directories.prepare("g1")
            with self.assertRaises(Unavailable):
                self.directories.is_missing("g1")
            thaw.set()
            with mock.patch.object(state_directories, "LIMIT_S", 15.0):
                self.assertFalse(self.directories.is_missing("g1"))

    def test_a_good_root_passes_the_check_untouched(self) -> None:
        self.directories.check_root()
        self.assertEqual(list(self.root.iterdir()), [])

    def test_a_root_that_a_game_found_full_is_a_problem_until_there_is_room(self) -> None:
        for number in (errno.ENOSPC, errno.EDQUOT):
            with mock.patch("os.mkdir", side_effect=OSError(number, "")):
                self.assert_refused(str(self.root))
                self.assertIn(str(self.root), self.directories.problem())
            with mock.patch.object(state_directories, "FULL_FOR_S", 0.0):
                self.assertEqual(self.directories.problem(), "", "nobody has met it lately")
            self.directories.prepare("g1")
            self.assertEqual(self.directories.problem(), "")
        (self.root / "g1").chmod(0o700)
        with mock.patch("os.chmod", side_effect=OSError(errno.EIO, "")):
            self.assert_deferred("disk fails")
        self.assertEqual(self.directories.problem(), "", "that is one game's")

    def test_a_file_system_that_hangs_is_silence_and_holds_up_nobody(self) -> None:
        thaw, mkdir = threading.Event(), os.mkdir
        self.addCleanup(thaw.set)

        def frozen(*how: Any, **where: Any) -> None:
            thaw.wait()
            mkdir(*how, **where)

        with (
            mock.patch.multiple(state_directories, LIMIT_S=0.05, MOST_HANGING=3),
            mock.patch("os.mkdir", side_effect=frozen) as made,
        ):
            for game_id in ("g1", "g1", "g1", "g2", "g3", "g4", "g5"):
                with self.assertRaisesRegex(Unavailable, "game g1 has not ended for 0 s; look at its file") as caught:
                    self.directories.prepare(game_id)
                self.assertNotIsInstance(caught.exception, TemporaryAnswer)
            self.assertEqual(made.call_count, 3, "no second call for a game, and a bounded number of all")
            self.assertIn("does not answer", self.directories.problem())
            thaw.set()
            wait_until(lambda: not self.directories.problem(), "the thaw")
        for game_id in ("g1", "g4"):
            self.assertEqual(self.mode(Path(self.directories.prepare(game_id))), 0o750)

    def test_a_root_that_hangs_fails_its_check_in_time(self) -> None:
        thaw = threading.Event()
        self.addCleanup(thaw.set)
        with (
            mock.patch.object(state_directories, "LIMIT_S", 0.05),
            mock.patch("os.fstatvfs", side_effect=lambda _: thaw.wait()),
            self.assertRaisesRegex(Unavailable, "opening it has not ended"),
        ):
            self.directories.check_root()

    def test_many_threads_may_prepare_the_same_game_and_leave_no_descriptor(self) -> None:
        games = [f"g{number}" for number in range(20)]
        before = len(os.listdir("/proc/self/fd"))
        with ThreadPoolExecutor(8) as threads:
            paths = list(threads.map(self.directories.prepare, games * 8))
        self.assertEqual(len(paths), 160)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual({self.mode(path) for path in self.root.iterdir()}, {0o750})


class RootThatMayTakeNoGame(unittest.TestCase):
    """A root without free space, or on another file system than the games' directories."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name).resolve() / "games"
        self.root.mkdir()
        self.kept: list[str] = []
        self.checks = 0
        self.directories = self.manager()

    def manager(self, min_free_bytes: int = 1 << 20) -> HostStateDirectories:
        """The directories of a manager that has just started."""
        return HostStateDirectories(
            str(self.root), 0o750, os.getuid(), os.getgid(), min_free_bytes=min_free_bytes, kept_games=self.games
        )

    def games(self) -> Sequence[str]:
        self.checks += 1
        return self.kept

    def assert_unfit(self, *parts: str) -> None:
        before = sorted(self.root.iterdir())
        for call in (lambda: self.directories.prepare("new"), self.directories.check_root):
            with self.assertRaises(StateRootUnfit) as caught:
                call()
            for part in (str(self.root), *parts):
                self.assertIn(part, str(caught.exception))
        self.assertEqual(sorted(self.root.iterdir()), before, "nothing is made in it")

    def remount(self) -> None:
        """Replace the root with an empty directory, as an unmount does."""
        self.root.rename(self.root.with_name(f"away-{self.checks}"))
        self.root.mkdir()

    def has(self, **found: int) -> Any:
        """Simulate a file system with so much free space."""
        much = {"f_flag": 0, "f_frsize": 4096, "f_blocks": 1 << 30, "f_bavail": 1 << 20, "f_files": 1 << 20}
        return mock.patch("os.fstatvfs", return_value=mock.Mock(**{**much, "f_favail": 1 << 20, **found}))

    def test_a_root_without_free_bytes_or_inodes_takes_no_game(self) -> None:
        with self.has(f_bavail=255):
            self.assert_unfit("1044480 bytes", "at least 1048576", "RTMANAGER_GAME_STATE_MIN_FREE")
        with self.has(f_favail=MIN_INODES - 1):
            self.assert_unfit(f"{MIN_INODES - 1} inodes")
        self.directories.prepare("new")

    def test_what_a_file_system_does_not_report_or_no_setting_checks_is_enough(self) -> None:
        with self.has(f_blocks=0, f_bavail=0, f_files=0, f_favail=0):
            self.directories.check_root()
        with self.has(f_bavail=0, f_favail=0):
            self.manager(min_free_bytes=0).prepare("new")

    def test_a_root_in_which_no_game_on_record_has_its_directory_takes_none(self) -> None:
        self.kept = ["g1", "g2", "g3", "g4"]
        self.assert_unfit("g1, g2, g3", "mount", "RTMANAGER_GAME_STATE_ROOT")
        (self.root / "lost+found").mkdir()
        self.assert_unfit("g1, g2, g3")
        (self.root / "g4").mkdir()
        self.directories.check_root()
        self.directories.prepare("new")

    def test_a_root_that_is_unmounted_while_games_run_takes_none_until_it_is_back(self) -> None:
        self.directories.prepare("g1")
        self.kept = ["g1"]
        mounted = self.root.with_name("away-1")
        self.remount()
        self.assert_unfit("no game on record")
        self.root.rmdir()
        mounted.rename(self.root)
        self.directories.check_root()
        self.assertEqual(self.directories.prepare("g1"), str(self.root / "g1"))

    def test_one_lost_directory_among_others_or_in_a_root_that_is_known_is_made_again(self) -> None:
        self.directories.prepare("g1")
        self.kept = ["g1"]
        (self.root / "g1").rmdir()
        self.directories.prepare("g1")
        (self.root / "g1").rmdir()
        (self.root / "g2").mkdir()
        self.kept = ["g1", "g2"]
        self.manager().prepare("g1")

    def test_the_records_are_read_once_for_each_file_system(self) -> None:
        for game_id in ("g1", "g2"):
            self.directories.prepare(game_id)
            self.directories.check_root()
        self.assertEqual(self.checks, 1)
        self.remount()
        self.directories.check_root()
        self.assertEqual(self.checks, 2)

    def test_records_that_cannot_be_read_delay_a_game_and_mean_nothing_for_the_root(self) -> None:
        with mock.patch.object(self, "games", side_effect=Unavailable("postgres", "away")):
            self.directories = self.manager()
        self.directories.check_root()
        with self.assertRaisesRegex(Unavailable, "away"):
            self.directories.prepare("g1")
        self.assertEqual(list(self.root.iterdir()), [])

    def test_a_watch_logs_each_change_once(self) -> None:
        captured = LogCapture()
        watch = StateRootWatch(self.directories.check_root, captured.logger)
        for free, usable in ((1 << 20, True), (0, False), (0, False), (1 << 20, True)):
            with self.has(f_bavail=free):
                self.assertFalse(watch.step())
            self.assertEqual(watch.usable, usable)
        self.assertEqual([record.levelname for record in captured.records], ["ERROR", "INFO"])
