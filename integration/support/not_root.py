"""Runs tests as a user who is not root, has only CAP_CHOWN, and is in the group of Docker's socket.

    python -m integration.support.not_root integration.test_lifecycle …

Without arguments it runs the whole suite. Root starts it. It runs an ordinary `python -m unittest`, whose managers, in
its own process or not, have that user and that capability. Tests that need root skip.
"""

import os
import sys
import tempfile
from pathlib import Path

from harness.tests import plain_user

#: The capability that a manager needs to give a directory to the engine's user.
CAPABILITIES = ("chown",)


def main(arguments: list[str]) -> int:
    """Run the tests; return the exit code of unittest."""
    tests = arguments or ["discover", "-t", ".", "-s", "integration"]
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, plain_user.UID, plain_user.GID)
        Path(folder).chmod(0o755)
        ours = {name: value for name, value in os.environ.items() if name.startswith("RTM_")}
        run = plain_user.python(
            *("-m", "unittest", *tests),
            cwd=plain_user.ROOT,
            environment={"RTM_INTEGRATION": "1", "TMPDIR": folder, **ours},
            capabilities=CAPABILITIES,
            capture=False,
        )
    return run.returncode


if __name__ == "__main__":
    plain_user.check()
    sys.exit(main(sys.argv[1:]))
