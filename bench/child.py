"""Runs a module in a child process, so that its work does not count as the measured process's.

The child writes one line when it is ready. It exits when its standard input closes, which also happens when the
parent is killed.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.errors import BenchError

#: Seconds until a child that does not exit is killed.
END_S = 5.0


@contextmanager
def running(module: str, *arguments: str) -> Iterator[str]:
    """Start `python -m module`; yields the line that it wrote. Raises BenchError when it exits without one."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C goes to the parent only; the child exits with it
    )
    with process:
        try:
            line = process.stdout.readline().strip() if process.stdout else ""
            if not line:
                raise BenchError(f"{module} did not come up; it says why above")
            yield line
        finally:
            _end(process)


def ready(line: str) -> None:
    """Write the line to standard output, and block until standard input closes. Called in the child."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _end(process: "subprocess.Popen[str]") -> None:
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
