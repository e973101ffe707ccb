"""Running the program's commands as a person does: each in a process that ends by itself."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.rtm import RuntimeTestCase, manager

#: None of the commands waits for anything that takes longer.
LIMIT_S = 60


class CommandTestCase(RuntimeTestCase):
    def command(self, command: str, environment: dict[str, str]) -> tuple[int, str]:
        """Run a command, with its options, that has to end by itself; no other settings. Exit code and output."""
        ended = subprocess.run(
            [sys.executable, "-m", "rtmanager", *command.split()],
            env=manager.whole_environment(environment),
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    def commands(self, command: str, *environments: dict[str, str]) -> list[tuple[int, str]]:
        """As `command`, one beside the other."""
        with ThreadPoolExecutor(len(environments)) as threads:
            return list(threads.map(lambda each: self.command(command, each), environments))
