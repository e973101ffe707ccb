"""Opens the socket that the server listens on; an error names the address and the remedy."""

from __future__ import annotations

import errno
import os
import socket

from rtmanager.config.parsers import Address

_REMEDIES = {
    errno.EADDRINUSE: "another process has it: stop that one, or choose another port",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.EACCES: "a port below 1024 needs privilege: choose a higher one",
}


def listen(address: Address, backlog: int) -> socket.socket:
    """A listening socket; an empty host means every interface, of both IP versions where available.

    Raises `OSError` with the `errno` of its cause.
    """
    try:
        return _bind(address, backlog)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else str(error.strerror)
        remedy = _REMEDIES.get(number, "choose another address")
        raise OSError(number, f"cannot listen for HTTP on {address}: {reason}; {remedy}") from error


def _bind(address: Address, backlog: int) -> socket.socket:
    """A listening socket whose address the next process can bind at once (SO_REUSEADDR)."""
    if not address.host:
        return _bind_everywhere(address.port, backlog)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # Of a name with several addresses an IPv4 address, as Go's listeners choose.
    family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return socket.create_server(where, family=family, backlog=backlog)


def _bind_everywhere(port: int, backlog: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # EADDRNOTAVAIL: IPv6 is built in, but disabled
                raise
    return socket.create_server(("", port), backlog=backlog)
