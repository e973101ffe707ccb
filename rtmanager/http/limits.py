"""How much one client may ask of the server, in bytes, seconds and numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The bounds of the server; each connection has a thread of its own, so they bound threads as well."""

    #: Connections at once. One more waits, as do those behind it in the backlog, until there is room; for it the
    #: connection that has been idle longest is closed.
    connections: int = 128
    backlog: int = 128
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
    #: How long a connection that the server ends stays half open, so that the client can read the answer: a
    #: socket closed on unread data is reset, and the answer with it (RFC 9112, 9.6).
    linger_s: float = 1.0
