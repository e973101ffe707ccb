"""The two servers: their ports, and their processor time."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.comparison import Sample

#: The phase that is processor time, not elapsed time.
CPU = "the server's CPU"

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """One process that serves the REST interface."""

    name: str
    port: int
    pid: int

    def cpu_s(self) -> float:
        """Seconds of processor time of all its threads; the kernel counts in hundredths."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        return (user + system) / _TICKS

    def loaded(self, work: Callable[[], Sample]) -> Sample:
        """Run `work`; returns its sample with the processor time that it cost this server."""
        before = self.cpu_s()
        sample = work()
        return {**sample, CPU: self.cpu_s() - before}
