"""A manager one of whose workers fails by a defect for as long as a file is there.

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
    """Serve."""
    step: Callable[..., Any] = Relay.step

    def defective(relay: Relay) -> Any:
        if file.exists():
            raise NotImplementedError("a date style\nthat nobody foresaw")
        return step(relay)

    with mock.patch.object(Relay, "step", defective):
        return cli.main(["serve"])


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
