"""Taking away what killed runs left behind, and nothing of a run that is alive.

Every container, network and state root of the harness names its runner. It is left over when that process
has surely ended. What a Runtime Manager under test started carries no such label, but sits on a test's
network, and goes with it.
"""

from dataclasses import dataclass, field
from pathlib import Path

from harness import container, daemon, network, stateroot
from harness.runner import PREFIX, Runner


@dataclass
class Swept:
    """What was taken away, by name."""

    containers: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    state_roots: list[Path] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.containers) + len(self.networks) + len(self.state_roots)


def sweep() -> Swept:
    """Take away what runs that have ended left behind; raises DaemonUnavailable."""
    swept = Swept()
    ours = {"label": f"{PREFIX}run"}
    client = daemon.client()
    for found in client.containers(all=True, filters=ours):
        if _left_over(found.get("Labels")):
            container.remove(client, found["Id"])
            swept.containers.append(found["Names"][0].lstrip("/") if found["Names"] else found["Id"][:12])
    for found in client.networks(filters=ours):
        if _left_over(found.get("Labels")):
            network.remove(client, found["Id"], found["Name"])
            swept.networks.append(found["Name"])
    # Last: the engines that wrote there are gone by now.
    for directory in stateroot.base_directory().iterdir():
        left_by = stateroot.owner(directory)
        if left_by is not None and left_by.is_gone():
            stateroot.remove(directory)
            swept.state_roots.append(directory)
    return swept


def _left_over(labels: dict[str, str] | None) -> bool:
    left_by = Runner.from_labels(labels or {})
    return left_by is not None and left_by.is_gone()
