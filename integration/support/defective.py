"""A manager with a defect in one worker for as long as a file exists.

python -m integration.support.defective FILE
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from rtmanager import cli
from rtmanager.workers.outbox import Relay


def main(file: Path) -> int:
    """Serve, and return the exit code."""
    step: Callable[..., Any] = Relay.step

    def defective(relay: Relay) -> Any:
        if file.exists():
            raise NotImplementedError("a date style\nthat nobody foresaw")
        return step(relay)

    with mock.patch.object(Relay, "step", defective):
        return cli.main(["serve"])


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
