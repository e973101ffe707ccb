"""A manager that is not root: CAP_CHOWN alone suffices, or none where it owns the games' directories itself."""

import itertools
import json
import os
import stat
import unittest
from pathlib import Path

from harness.rtm.stack import ENGINE_USER
from harness.runs import flag
from harness.tests import plain_user
from integration.support.lives import STRANGER

#: Prepares each directory of `games` in `root` for an owner, and prints the result.
PREPARE = """
import json, sys
from rtmanager.adapters.state_directories import HostStateDirectories
from rtmanager.ports.runtime import StateDirectoryInvalid

root, games, mode, uid, gid = json.loads(sys.argv[1])
directories = HostStateDirectories(root, mode, uid, gid)
prepared = {}
for game in games:
    try:
        directories.check_root()
        prepared[game] = directories.prepare(game)
    except StateDirectoryInvalid as error:
        prepared[game] = f"refused: {error}"
print(json.dumps(prepared))
"""


class PlainUserTestCase(unittest.TestCase):
    def setUp(self) -> None:
        flag.check()
        plain_user.check()
        self.folder = plain_user.folder(self)
        self.folder.chmod(0o755)

    def run_python(self, *arguments: str, capabilities: tuple[str, ...] = ("chown",)) -> str:
        """Run Python as the plain user, with exit code 0; return its output."""
        run = plain_user.python(
            *arguments,
            cwd=plain_user.ROOT,
            environment={"RTM_INTEGRATION": "require", "TMPDIR": str(self.folder)},
            capabilities=capabilities,
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return run.stdout


class Directories(PlainUserTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.root = self.folder / "games"
        self.root.mkdir()
        os.chown(self.root, plain_user.UID, plain_user.GID)

    def existing(self, name: str, owner: int, group: int, mode: int) -> Path:
        """Create a game's directory with content."""
        made = self.root / name
        made.mkdir()
        (made / "turn-1").write_text("state")
        os.chown(made, owner, group)
        made.chmod(mode)
        return made

    def prepare(
        self, *games: str, mode: int = 0o750, owner: int = ENGINE_USER, capabilities: tuple[str, ...] = ("chown",)
    ) -> dict[str, str]:
        arguments = json.dumps([str(self.root), games, mode, owner, owner])
        prepared: dict[str, str] = json.loads(self.run_python("-c", PREPARE, arguments, capabilities=capabilities))
        return prepared

    def found(self, path: Path) -> tuple[int, int, int]:
        now = path.stat()
        return now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)

    def test_with_cap_chown_every_directory_gets_owner_and_mode_whatever_it_had(self) -> None:
        owners, modes = (
            (ENGINE_USER, STRANGER, plain_user.UID, 0),
            (0, 0o500, 0o700, 0o750, 0o777, 0o2750, 0o1777, 0o4711),
        )
        games = {"new": self.root / "new"}
        for number, (owner, group, mode) in enumerate(itertools.product(owners, owners, modes)):
            games[f"g{number}"] = self.existing(f"g{number}", owner, group, mode)
        for mode in (0o750, 0o700, 0o777):
            prepared = self.prepare(*games, mode=mode)
            self.assertEqual(prepared, {game: str(path) for game, path in games.items()})
            self.assertEqual({self.found(path) for path in games.values()}, {(ENGINE_USER, ENGINE_USER, mode)})
        kept = {(path / "turn-1").read_text() for game, path in games.items() if game != "new"}
        self.assertEqual(kept, {"state"})

    def test_without_a_capability_the_own_user_is_a_good_owner(self) -> None:
        self.existing("mine", plain_user.UID, plain_user.GID, 0o700)
        prepared = self.prepare("new", "mine", owner=plain_user.UID, capabilities=())
        self.assertEqual(set(prepared), {"new", "mine"})
        for path in self.root.iterdir():
            self.assertEqual(self.found(path), (plain_user.UID, plain_user.GID, 0o750))

    def test_without_a_capability_another_owner_is_refused_with_what_to_do_and_what_is_right_is_used(self) -> None:
        right = self.existing("right", ENGINE_USER, ENGINE_USER, 0o750)
        wrong = self.existing("wrong", STRANGER, STRANGER, 0o750)
        prepared = self.prepare("new", "right", "wrong", capabilities=())
        self.assertEqual(prepared["right"], str(right))
        for game in ("new", "wrong"):
            self.assertRegex(prepared[game], rf"user {plain_user.UID}.*CAP_CHOWN.*RTMANAGER_GAME_STATE_OWNER_UID")
        self.assertEqual(self.found(wrong), (STRANGER, STRANGER, 0o750))

    def test_a_link_is_refused_and_what_it_leads_to_keeps_its_owner(self) -> None:
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(mode=0o700)
        (self.root / "g1").symlink_to(elsewhere)
        self.assertIn("symbolic link", self.prepare("g1")["g1"])
        self.assertEqual(self.found(elsewhere), (0, 0, 0o700))

    def test_a_root_of_another_user_is_refused_with_its_name_and_the_user(self) -> None:
        os.chown(self.root, 0, 0)
        self.assertRegex(self.prepare("g1")["g1"], rf"{self.root}: this process \(user {plain_user.UID}\) has no perm")


class Lives(PlainUserTestCase):
    def test_with_cap_chown_alone_a_game_of_another_owner_lives_through_every_operation(self) -> None:
        self.run_python("-m", "unittest", "integration.support.lives.WithCapChown")

    def test_without_a_capability_a_game_of_the_own_user_does_and_a_check_says_that_no_other_can(self) -> None:
        self.run_python("-m", "unittest", "integration.support.lives.WithNothing", capabilities=())
