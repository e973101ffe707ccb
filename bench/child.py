"""A process that is on the other side of what is measured, so that its work is not counted as ours.

It says one line when it is ready, and ends when its standard input does: also when we are killed.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.errors import BenchError

#: After so many seconds it is ended the hard way.
END_S = 5.0


@contextmanager
def running(module: str, *arguments: str) -> Iterator[str]:
    """Start `python -m module`; the line that it said. Raises BenchError when it says none."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us; it ends with us
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
    """In that process: say that line, and return when it is time to end."""
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
