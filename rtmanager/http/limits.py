"""How much one client may ask of the server, in bytes, seconds and numbers."""

from __future__ import annotations

import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """The bounds of one lane: requests that are handled at once, and those that wait for that."""

    threads: int
    queue: int


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The bounds of the server. A connection that waits for its client costs memory and a descriptor, no thread."""

    #: Connections at once, and those of one client address. For one more, the connection closes that has waited
    #: longest for its client. `open_files` may lower both.
    connections: int = 1024
    connections_of_a_peer: int = 768
    backlog: int = 1024
    #: Request line and header fields together; more is answered 431.
    head_bytes: int = 16 * 1024
    header_fields: int = 100
    #: More is answered 413.
    body_bytes: int = 64 * 1024
    #: From the first byte of a request to its last, however it trickles; then 408. Also how long a new client
    #: may take to begin its first request.
    receive_s: float = 10.0
    #: How long a connection may stay without a further request.
    idle_s: float = 75.0
    #: How long the client may take to receive an answer.
    send_s: float = 10.0
    #: Bytes of answers that wait for slow readers, all together; beyond them the slowest reader is closed.
    unsent_bytes: int = 32 << 20
    #: How long a connection that the server ends stays half open, so that the client can read the answer: a
    #: socket closed on unread data is reset, and the answer with it (RFC 9112, 9.6).
    linger_s: float = 1.0

    def within(self, open_files: int) -> tuple[int, int]:
        """Connections at once, in all and of a peer, when the process may open so many files: half of them at most."""
        most = max(8, min(self.connections, open_files // 2))
        share = self.connections_of_a_peer * most // self.connections if most < self.connections else most
        return most, max(1, min(self.connections_of_a_peer, share))


def open_files() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
