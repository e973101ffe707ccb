"""What Linux says of another process: its processor time, its memory."""

import os
from pathlib import Path

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
