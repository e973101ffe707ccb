"""The two servers: where they are, and what they have used of the processors."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.comparison import Sample

#: The phase that is no time that passed.
CPU = "the server's CPU"

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """One process that answers."""

    name: str
    port: int
    pid: int

    def cpu_s(self) -> float:
        """Seconds of processor time that all of its threads have used; the kernel counts in hundredths."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        return (user + system) / _TICKS

    def loaded(self, work: Callable[[], Sample]) -> Sample:
        """What `work` measured, and what that has cost this server."""
        before = self.cpu_s()
        sample = work()
        return {**sample, CPU: self.cpu_s() - before}
