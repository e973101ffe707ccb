"""Whole lives of games under managers with few rights; `test_not_root` runs them as an unprivileged user.

Each manager is a separate process, which inherits the test's capabilities.
"""

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from harness import start_services
from harness.rtm.stack import ENGINE_USER
from integration.support.commands import CommandTestCase

STRANGER = 4_711


def setUpModule() -> None:
    start_services()


class LifeTestCase(CommandTestCase):
    #: The effective capability set of the process, in hexadecimal digits.
    capabilities: ClassVar[str]
    owner: ClassVar[int]
    mode: ClassVar[str]

    def owned_by(self, owner: int) -> dict[str, str]:
        return {
            "GAME_STATE_OWNER_UID": str(owner),
            "GAME_STATE_OWNER_GID": str(owner),
            "GAME_STATE_DIR_MODE": self.mode,
        }

    def checked(self, owner: int) -> dict[str, dict[str, Any]]:
        """The results of `check`, by name."""
        _, output = self.command("check", self.environment(**self.owned_by(owner)), "--json", only_stdout=True)
        return {each["name"]: each for each in json.loads(output)["checks"]}

    def live(self) -> None:
        """Run a game through every operation, twice: the second time its directory exists and has its owner."""
        self.assertIn(f"CapEff:\t{self.capabilities}\n", Path("/proc/self/status").read_text())
        self.assertNotEqual(os.geteuid(), 0)
        self.assertEqual({each["ok"] for each in self.checked(self.owner).values()}, {True})
        self.start_process(**self.owned_by(self.owner))
        for _ in range(2):
            self.post("start", {"image_ref": self.engine.ref})
            self.engine_call("GET", "/healthz")
            self.post("restart")
            self.post("patch", {"image_ref": self.engine.patched_ref})
            self.post("stop", {"reason": "finished"})
            self.post("restart")
            self.post("stop", {"reason": "finished"})
            self.succeed(self.call("DELETE", "/container"))
        self.post("start", {"image_ref": self.engine.ref})
        races = {"races": [{"raceName": "Terrans"}]}
        self.assertEqual(self.engine_call("POST", "/api/v1/admin/init", races)[0], 200)


class WithCapChown(LifeTestCase):
    capabilities, owner, mode = f"{1:016x}", ENGINE_USER, "0750"

    def test_a_game_of_another_owner_lives(self) -> None:
        self.live()


class WithNothing(LifeTestCase):
    capabilities, owner, mode = f"{0:016x}", os.geteuid(), "0777"

    def test_a_game_of_the_own_user_lives(self) -> None:
        self.live()

    def test_a_check_says_that_no_other_can(self) -> None:
        found = self.checked(STRANGER)
        self.assertEqual([name for name, each in found.items() if each["ok"] is False], ["directory"])
        self.assertIn("CAP_CHOWN", found["directory"]["message"])
        self.assertIn("CAP_CHOWN", found["state root"]["warnings"][0])
