"""Runs the program's commands as a user does: each in a process that ends by itself."""

import os
import subprocess
import sys
import unittest
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.rtm import RuntimeTestCase, manager

needs_mount = unittest.skipUnless(os.geteuid() == 0, "only root may mount a file system")
#: Timeout of a command, in seconds.
LIMIT_S = 60


class CommandTestCase(RuntimeTestCase):
    def command(
        self,
        command: str,
        environment: dict[str, str],
        *options: str,
        only_stdout: bool = False,
        before: Sequence[str] = (),
    ) -> tuple[int, str]:
        """Run a command that must end by itself, with no other settings than these; return exit code and output.

        `command` may contain options; `before` is a program that runs it.
        """
        ended = subprocess.run(
            [*before, sys.executable, "-m", "rtmanager", *command.split(), *options],
            env=manager.whole_environment(environment),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return ended.returncode, ended.stdout + ("" if only_stdout else ended.stderr)

    def commands(self, command: str, *environments: dict[str, str]) -> list[tuple[int, str]]:
        """Run `command` in parallel, once for each environment."""
        with ThreadPoolExecutor(len(environments)) as threads:
            return list(threads.map(lambda each: self.command(command, each), environments))
