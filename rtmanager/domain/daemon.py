"""Identifies the container runtime that a database belongs to.

| its id    | the recorded network's id on it | it is                                       |
| --------- | ------------------------------- | ------------------------------------------- |
| different | any                             | another daemon                              |
| the same  | found                           | the daemon on record                        |
| the same  | a network of that name, new id  | another daemon, or the network is a new one |
| the same  | no network of that name         | not confirmed: it may be a copy             |

Neither id is enough alone. Docker before 24 keeps its id in `/etc/docker/key.json`. Two daemons of one host share that
file, and so do hosts that were cloned after Docker's first start. The network is created later, on each host
separately. A host name can change while the daemon stays the same, so it appears in messages only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rtmanager.domain.errors import Unavailable


class NoSuchNetwork(Unavailable):
    """The game network does not identify the daemon: none has its name, or several have."""

    def __init__(self, seen: SeenDaemon, network: str) -> None:
        found = len(seen.network_ids)
        super().__init__(
            "docker", f"{found} networks are called {network!r} on {seen}, and one is expected", untouched=True
        )
        self.remedy = f"docker network ls --filter name={network}, then docker network create or docker network rm"


class Match(StrEnum):
    """How the daemon that answers compares with the one on record."""

    SAME = "same"
    OTHER = "other"
    #: The id agrees, but the network that would confirm it is gone.
    NETWORK_GONE = "network_gone"


@dataclass(frozen=True, slots=True)
class SeenDaemon:
    """The daemon that answers: its id, its host's name, and the ids of the networks of the requested name."""

    daemon_id: str
    name: str
    network_ids: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name or 'a host without a name'} (id {self.daemon_id})"


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon on record."""

    daemon_id: str
    name: str
    network: str
    network_id: str

    @classmethod
    def of(cls, seen: SeenDaemon, network: str) -> Daemon:
        """Return the record of a daemon that was inspected with `network`. Raises `NoSuchNetwork`."""
        if len(seen.network_ids) != 1:
            raise NoSuchNetwork(seen, network)
        (network_id,) = seen.network_ids
        return cls(seen.daemon_id, seen.name, network, network_id)

    def __str__(self) -> str:
        return f"{self.name or 'a host without a name'} (id {self.daemon_id})"

    def compare(self, seen: SeenDaemon) -> Match:
        """Compare the daemon that answers with this one; `seen` has the networks of the recorded name."""
        if seen.daemon_id != self.daemon_id:
            return Match.OTHER
        if not seen.network_ids:
            return Match.NETWORK_GONE
        return Match.SAME if self.network_id in seen.network_ids else Match.OTHER


def difference(recorded: Daemon, seen: SeenDaemon) -> str:
    """Describe how the daemon that answers differs from the one on record; names both."""
    if seen.daemon_id != recorded.daemon_id:
        return f"the records are about the containers of {recorded}, and {seen} answers"
    name, network_id = recorded.network, recorded.network_id[:12]
    if not seen.network_ids:
        return (
            f"the records are about the containers of {recorded} with the network {name!r} {network_id}, and {seen} "
            "answers, which has no such network: it may be a copy of the host"
        )
    others = ", ".join(sorted(each[:12] for each in seen.network_ids))
    return (
        f"the records are about the containers of {recorded} with the network {name!r} {network_id}, and {seen} "
        f"answers, whose network {name!r} is {others}: a copy of the host, or the network was created anew"
    )
