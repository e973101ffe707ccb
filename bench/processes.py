"""What Linux says of another process: its processor time, its memory."""

import os
import time
from pathlib import Path

from bench.errors import BenchError

#: A process that takes no more of a core than this over so many seconds is at rest.
REST_SHARE, REST_S = 0.05, 0.5
#: One that is not after so many seconds has something to do.
RESTLESS_S = 60.0

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of processor time that the process has taken so far, in steps of a hundredth."""
    # The command's name stands in brackets and may hold anything; what follows it is numbers.
    values = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / _TICKS


def rss_mb(pid: int) -> float:
    """Megabytes of its memory that are in the machine's."""
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmRSS":
            return int(value.split()[0]) / 1024
    raise ProcessLookupError(f"process {pid} has ended")


def wait_until_at_rest(pid: int) -> None:
    """Wait until it has done what there was to do; raises BenchError when that has no end."""
    until = time.monotonic() + RESTLESS_S
    while time.monotonic() < until:
        before = cpu_s(pid)
        time.sleep(REST_S)
        if cpu_s(pid) - before <= REST_SHARE * REST_S:
            return
    raise BenchError(f"process {pid} is still at work after {RESTLESS_S:g} s")
