"""The open connections by client address, and the choice of the one to close when there is no room."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from rtmanager.http.connection import Connection


class ConnectionTable:
    """At most `most` connections, at most `most_of_a_peer` from one client address. For one thread.

    Connections that wait for their client are kept in the order in which they began to wait.
    """

    def __init__(self, most: int, most_of_a_peer: int) -> None:
        self._most = most
        self._most_of_a_peer = most_of_a_peer
        self._present: dict[str, set[Connection]] = {}
        self._waiting: dict[str, dict[Connection, None]] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Connection]:
        return (connection for present in list(self._present.values()) for connection in list(present))

    def add(self, connection: Connection) -> None:
        self._present.setdefault(connection.peer, set()).add(connection)
        self._number += 1

    def remove(self, connection: Connection) -> None:
        self.forget_wait(connection)
        present = self._present[connection.peer]
        present.remove(connection)
        self._number -= 1
        if not present:
            del self._present[connection.peer]

    def note_wait(self, connection: Connection) -> None:
        """Record that the connection begins to wait for its client now."""
        waiting = self._waiting.setdefault(connection.peer, {})
        waiting.pop(connection, None)
        waiting[connection] = None

    def forget_wait(self, connection: Connection) -> None:
        """Record that the connection does not wait for its client; no change if it did not wait before."""
        waiting = self._waiting.get(connection.peer)
        if waiting is not None:
            waiting.pop(connection, None)
            if not waiting:
                del self._waiting[connection.peer]

    def waiting(self) -> list[Connection]:
        """All connections that wait for their client."""
        return [connection for waiting in self._waiting.values() for connection in waiting]

    def crowded_for(self, peer: str) -> bool:
        """Whether one more connection of this peer needs another one to be closed."""
        return self._number >= self._most or len(self._present.get(peer, ())) >= self._most_of_a_peer

    def longest_waiting(self, peer: str | None = None) -> Connection | None:
        """The connection to close for one more of `peer`: its own if it has its share, else the largest peer's."""
        if peer is not None and len(self._present.get(peer, ())) >= self._most_of_a_peer:
            return next(iter(self._waiting.get(peer, {})), None)
        if not self._waiting:
            return None
        largest = max(self._waiting, key=lambda each: len(self._present[each]))
        return next(iter(self._waiting[largest]))


def peer_of(host: str) -> str:
    """The key of one client: its IPv4 address, or its IPv6 /64 network, all of which one client may own."""
    address = address_of(host)
    return str(IPv6Address(int(IPv6Address(address)) >> 64 << 64)) if ":" in address else address


def address_of(host: str) -> str:
    """The address of a client in its shortest form, without a zone; an IPv4 address also if it came by IPv6."""
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or address)
