"""The bounds of the HTTP server, in bytes, seconds and numbers."""

from __future__ import annotations

import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """The bounds of one lane: requests handled at once, and requests that wait for a thread."""

    threads: int
    queue: int


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The bounds of the server. A connection that waits for its client costs memory and a descriptor, no thread."""

    #: Connections at once, and those of one client address. To make room for one more, the server closes the
    #: connection that has waited longest for its client. `open_files` may lower both.
    connections: int = 1024
    connections_of_a_peer: int = 768
    backlog: int = 1024
    #: Request line and header fields together; larger ones are answered with 431.
    head_bytes: int = 16 * 1024
    header_fields: int = 100
    #: Larger bodies are answered with 413.
    body_bytes: int = 64 * 1024
    #: From the first byte of a request to its last; later requests are answered with 408. Also how long a new client
    #: may take to begin its first request.
    receive_s: float = 10.0
    #: How long a connection may stay without a further request.
    idle_s: float = 75.0
    #: How long the client may take to receive an answer.
    send_s: float = 10.0
    #: Unsent bytes of all answers together; above this the server closes the connection of the slowest reader.
    unsent_bytes: int = 32 << 20
    #: How long a connection that the server ends stays half open. Closing a socket with unread data resets it, and
    #: the client loses the answer (RFC 9112, 9.6).
    linger_s: float = 1.0

    def within(self, open_files: int) -> tuple[int, int]:
        """Connections at once, in all and of one peer; at most half of the files that the process may open."""
        most = max(8, min(self.connections, open_files // 2))
        share = self.connections_of_a_peer * most // self.connections if most < self.connections else most
        return most, max(1, min(self.connections_of_a_peer, share))


def open_files() -> int:
    """The number of files that this process may have open (soft limit)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
