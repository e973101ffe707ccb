"""Checks the host that a request names, and whether a browser sent it for a page of another origin. Pure.

A page can send requests to any address that its browser reaches, but the browser adds `Origin` and `Sec-Fetch-Site`.
With DNS rebinding the page's own name resolves to this service. Then the browser treats the request as same-origin, but
`Host` still has the page's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::([0-9]{0,5}))?")
_DEFAULT_PORT = {"http": "80", "https": "443"}
#: `Sec-Fetch-Site` of a request that the user made, or a page of this service.
_OWN = frozenset({"same-origin", "none"})
_LARGEST_PORT = 65535
#: A name has at most 253 characters; longer texts are refused.
_LONGEST = 300


@lru_cache(maxsize=256)
def split_authority(text: str) -> tuple[str, str] | None:
    """Host and port of `host[:port]`, in lower case, without IPv6 brackets and a final dot; None: malformed.

    An empty text is an empty host (RFC 9112). User information is refused (RFC 9110).
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None or len(text) > _LONGEST:
        return None
    host, port = match[1].lower(), match[2] or ""
    if port and int(port) > _LARGEST_PORT:
        return None
    if host.startswith("["):
        host = host[1:-1]
        return (host, port) if _is_address(host, IPv6Address) else None
    if host and (host == "." or ".." in host or host.startswith(".")):
        return None
    return host.removesuffix("."), port


def _is_address(text: str, kind: type[IPv4Address] | type[IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=256)
def host_is_ours(authority: str, listed: frozenset[str]) -> bool:
    """Whether the host is an IP address, a name without dots, or one of `listed` (in lower case, no final dot)."""
    found = split_authority(authority)
    if found is None or not found[0]:
        return False
    host = found[0]
    return ":" in host or "." not in host or host in listed or _is_address(host, IPv4Address)


def foreign_origin(headers: Mapping[str, str]) -> str | None:
    """The header and value that show that a page of another origin sent the request; None when none does."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and not _same_origin(origin, headers.get("host", "")):
        return f"Origin {origin!r}"
    if site is None or site.lower() in _OWN or (site.lower() == "same-site" and origin is not None):
        return None
    return f"Sec-Fetch-Site {site!r}"


def _same_origin(origin: str, host: str) -> bool:
    """Whether `origin` names the host and port of the header Host; the scheme may differ behind a TLS proxy."""
    scheme, _, authority = origin.partition("://")
    default = _DEFAULT_PORT.get(scheme.lower())
    theirs, ours = split_authority(authority), split_authority(host)
    if default is None or theirs is None or ours is None or not ours[0]:
        return False
    return (theirs[0], theirs[1] or default) == (ours[0], ours[1] or default)
