"""Processor time and memory of another process, from /proc."""

import os
import time
from pathlib import Path

from bench.errors import BenchError

#: A process is at rest when it takes at most this share of a core over so many seconds.
REST_SHARE, REST_S = 0.05, 0.5
#: Seconds to wait for a process to come to rest.
RESTLESS_S = 60.0

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of processor time that the process has used so far, in steps of a hundredth."""
    # The command's name is in brackets and may hold anything; the fields after it are numbers.
    values = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / _TICKS


def rss_mb(pid: int) -> float:
    """Resident memory of the process in megabytes; raises ProcessLookupError when it has ended."""
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmRSS":
            return int(value.split()[0]) / 1024
    raise ProcessLookupError(f"process {pid} has ended")


def wait_until_at_rest(pid: int) -> None:
    """Wait until the process is at rest; raises BenchError after `RESTLESS_S`."""
    until = time.monotonic() + RESTLESS_S
    while time.monotonic() < until:
        before = cpu_s(pid)
        time.sleep(REST_S)
        if cpu_s(pid) - before <= REST_SHARE * REST_S:
            return
    raise BenchError(f"process {pid} is still at work after {RESTLESS_S:g} s")
