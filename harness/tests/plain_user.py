"""Runs Python as a user who is not root and is in the group that may use Docker's socket.

The process has only the capabilities `capabilities`, and so do those that it starts (ambient).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import daemon

#: A user and group without a name, a password entry or a home.
UID = GID = 47_110

ROOT = Path(__file__).parents[2]

#: Binds the interpreter, which may lie in a directory that only root can read, to a readable path for this process
#: only.
_ENTER = 'mount --bind "$1" "$2" && umask "$3" && cd "$4" && shift 4 && exec "$@"'


def check() -> None:
    """Skip a test where this process cannot run a command as a plain user, with the cause."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("this is a plain user already: only root can become one")
    if daemon.configured_host():
        raise unittest.SkipTest("the daemon is not the one at the local socket, which a group may use")
    if missing := [each for each in ("unshare", "setpriv", "mount") if shutil.which(each) is None]:
        raise unittest.SkipTest(f"missing here: {', '.join(missing)} (util-linux)")


def folder(test: unittest.TestCase) -> Path:
    """A directory of that user, removed at the end of the test."""
    made = Path(test.enterContext(tempfile.TemporaryDirectory()))
    os.chown(made, UID, GID)
    return made


def python(
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str],
    umask: int = 0o022,
    in_group: bool = True,
    capabilities: Sequence[str] = (),
    capture: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run Python as that user, with this environment and little else, and with this interpreter's packages.

    The result holds its output; without `capture` the output goes where this process's own output goes.
    """
    group = os.stat(daemon.LOCAL_SOCKET.removeprefix("unix://")).st_gid
    with tempfile.TemporaryDirectory() as seen:
        Path(seen).chmod(0o755)
        user = [f"--reuid={UID}", f"--regid={GID}", f"--groups={group}" if in_group else "--clear-groups"]
        if capabilities:
            sets = ",".join(["-all", *(f"+{each}" for each in capabilities)])
            user += [f"--{which}={sets}" for which in ("bounding-set", "inh-caps", "ambient-caps")]
        program = Path(seen, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
        enter = ["sh", "-c", _ENTER, "sh", sys.base_prefix, seen, f"{umask:o}", str(cwd)]
        return subprocess.run(
            ["unshare", "--mount", "--propagation=private", *enter, "setpriv", *user, str(program), *arguments],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "PYTHONPATH": os.pathsep.join([str(ROOT), *(each for each in sys.path if each.endswith("-packages"))]),
                "PYTHONHOME": seen,
                "LD_LIBRARY_PATH": f"{seen}/lib",
                "PYTHONDONTWRITEBYTECODE": "1",
                **environment,
            },
            capture_output=capture,
            text=True,
            check=False,
        )
