"""Port to the addresses of containers: which client of the REST API is a game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol


class Peer(Enum):
    """What an address proves about a client."""

    #: A game's container has it.
    GAME = "a game"
    #: No game can have it.
    OTHER = "no game"
    #: Nothing: a game's container may have it, or may have had it when it sent the request.
    UNPROVED = "unproved"


@dataclass(frozen=True, slots=True)
class AddressHolder:
    """The container that has an address, and whether it is a game's, of any deployment."""

    container_id: str
    is_game: bool

    @property
    def peer(self) -> Peer:
        """What its address proves."""
        return Peer.GAME if self.is_game else Peer.OTHER


@dataclass(frozen=True, slots=True)
class NetworkAddresses:
    """The addresses of one network at one moment, in their shortest form."""

    subnets: Sequence[IPv4Network | IPv6Network] = ()
    #: Addresses of the host: whoever comes through a published port has one of these.
    gateways: frozenset[str] = frozenset()
    #: The running container that has an address, also an address of another network.
    holders: Mapping[str, AddressHolder] = field(default_factory=dict)


class Addresses(Protocol):
    """The addresses of the runtime's containers. Methods raise `DependencyError`."""

    def network_addresses(self, network: str) -> NetworkAddresses:
        """Return the addresses of the network and of the containers in it."""
        ...

    def has_address(self, container_id: str, address: str) -> bool:
        """Return whether the container runs and has this address, at a cost that does not depend on other games."""
        ...
