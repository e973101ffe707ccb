"""Knows which clients of the REST API are games, by the addresses of containers.

A request never queries Docker by itself. It waits until this worker has confirmed the address: that the container on
record still has it, one inspection a second at most, whoever calls how often. Only an address without a container on
record needs a list.

- An address that another container reuses is noticed within a second, and at once after a start of this instance.
- An address in the network that no container has in a list proves nothing: a game may have sent its request and ended.
- While Docker does not answer, what is known counts, whatever its age.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from time import monotonic

from rtmanager.domain.errors import DependencyError, Unavailable
from rtmanager.operations.wake import Wake
from rtmanager.ports.peers import Addresses, NetworkAddresses, Peer

#: Period of the list without a request that needs one.
PERIOD_S = 60.0
#: Seconds for which a confirmed address, and one that no container has, needs no further query.
CONFIRMED_S = 1.0
#: Addresses without a container that are remembered.
_REMEMBERED = 4096
#: Longest time that a request waits; a query of Docker that takes longer counts as silence.
WAIT_S = 3.0
#: Least pause before a list that a request needs; also twice the time that the last one took.
_PAUSE_S = 0.05
_SHARE = 2.0


@dataclass(slots=True)
class _Known:
    """What the last list showed, and what was confirmed since then; times are monotonic seconds."""

    addresses: NetworkAddresses
    #: When the list began, and how long it took.
    began: float
    took_s: float
    confirmed: dict[str, float] = field(default_factory=dict)

    def confirmed_at(self, address: str) -> float:
        return self.confirmed.get(address, self.began)


class PeerWatch:
    """Says what an address proves. Any thread may call `peer` and `changed`; one thread runs `step`."""

    def __init__(self, source: Addresses, network: str, clock: Callable[[], float] = monotonic) -> None:
        self._source = source
        self._network = network
        self._clock = clock
        self.wake = Wake()
        self._closing = threading.Event()
        self._condition = threading.Condition()
        self._known: _Known | None = None
        #: Addresses that a request waits for.
        self._wanted: set[str] = set()
        #: Addresses that the last lists did not have, though one was made for them.
        self._unproved: set[str] = set()
        self._changed_at = float("-inf")
        #: When the query of the present step began; and the error of the last one.
        self._busy_since: float | None = None
        self._failure: Exception | None = None

    def peer(self, address: str, *, wait: bool) -> Peer:
        """Return what the address proves. Raises `Unavailable` when Docker would have to say and does not.

        Without `wait` the answer is what is known already. Docker lists no link-local address of IPv6.
        """
        parsed = ip_address(address)
        if parsed.is_loopback:
            return Peer.OTHER
        if parsed.version == 6 and parsed.is_link_local:
            return Peer.UNPROVED
        arrived = self._clock()
        with self._condition:
            if not wait:
                return self._known_peer(address) or Peer.UNPROVED
            while (found := self._decided(parsed, arrived)) is None:
                if self._is_away(arrived):
                    return self._decided_without_docker(address)
                if address not in self._wanted:
                    self._wanted.add(address)
                    self.wake.set()
                self._condition.wait(_PAUSE_S)
            return found

    def changed(self) -> None:
        """Note that a container is about to get an address: earlier confirmations do not count."""
        with self._condition:
            self._changed_at = self._clock()

    def step(self) -> bool:
        """Confirm the addresses that requests wait for, or list all. Raises `DependencyError`."""
        with self._condition:
            known, wanted = self._known, set(self._wanted)
        if known is not None and self._needs_list(known, wanted):
            self._closing.wait(max(_PAUSE_S, _SHARE * known.took_s))
        with self._condition:
            wanted, self._wanted = self._wanted, set()
            began = self._busy_since = self._clock()
        try:
            is_confirmed = known is not None and bool(wanted) and self._confirm(known, wanted)
            found = None if is_confirmed else self._source.network_addresses(self._network)
        except Exception as error:
            self._ended(error)
            raise
        with self._condition:
            if found is not None:
                self._known = _Known(found, began, self._clock() - began)
                earlier = self._unproved if len(self._unproved) < _REMEMBERED else set()
                self._unproved = (earlier | wanted) - found.holders.keys()
            elif known is not None:
                known.confirmed.update(dict.fromkeys(wanted, began))
        self._ended(None)
        return False

    def interrupt(self) -> None:
        """End a pause of the present step, and what requests wait for; for the end of the process."""
        self._closing.set()

    def _ended(self, failure: Exception | None) -> None:
        with self._condition:
            self._busy_since, self._failure = None, failure
            self._condition.notify_all()

    def _needs_list(self, known: _Known, wanted: set[str]) -> bool:
        return not wanted <= known.addresses.holders.keys()

    def _confirm(self, known: _Known, wanted: set[str]) -> bool:
        """Whether each of these addresses still belongs to the container on record."""
        holders = known.addresses.holders
        if self._needs_list(known, wanted):
            return False
        return all(self._source.has_address(holders[address].container_id, address) for address in wanted)

    def _decided(self, parsed: IPv4Address | IPv6Address, arrived: float) -> Peer | None:
        """The answer by what is confirmed; None while it is not."""
        known, address = self._known, str(parsed)
        if known is None:
            return None
        holder = known.addresses.holders.get(address)
        if holder is not None:
            least = max(arrived - CONFIRMED_S, self._changed_at)
            return holder.peer if known.confirmed_at(address) > least else None
        if address in known.addresses.gateways or not any(parsed in subnet for subnet in known.addresses.subnets):
            return Peer.OTHER
        since = arrived - CONFIRMED_S if address in self._unproved else arrived
        return Peer.UNPROVED if known.began > max(since, self._changed_at) else None

    def _is_away(self, arrived: float) -> bool:
        """Whether no answer of Docker is to be expected in time."""
        now = self._clock()
        is_silent = self._busy_since is not None and now - self._busy_since > WAIT_S
        return self._failure is not None or is_silent or now - arrived > WAIT_S or self._closing.is_set()

    def _decided_without_docker(self, address: str) -> Peer:
        if found := self._known_peer(address):
            return found
        why = str(self._failure) if isinstance(self._failure, DependencyError) else "Docker does not answer in time"
        raise Unavailable("docker", f"whether {address} is a game's address is not known now: {why}", untouched=True)

    def _known_peer(self, address: str) -> Peer | None:
        holder = self._known.addresses.holders.get(address) if self._known else None
        return holder.peer if holder else None
