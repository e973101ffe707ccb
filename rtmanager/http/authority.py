"""The host that a request names, and whether a browser sent the request for a foreign page. Pure.

A page that somebody opens can send requests to any address that its browser reaches. It cannot hide where it comes
from: the browser adds `Origin` and `Sec-Fetch-Site`. With DNS rebinding the page's own name leads to this service;
then the browser takes the request for the page's own, but `Host` still has the page's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::([0-9]{0,5}))?")
_DEFAULT_PORT = {"http": "80", "https": "443"}
#: What a browser says of a request that the user made, or a page of this very service.
_OWN = frozenset({"same-origin", "none"})
_LARGEST_PORT = 65535
#: A name has at most 253 characters; what is longer is not kept in a cache.
_LONGEST = 300


@lru_cache(maxsize=256)
def split_authority(text: str) -> tuple[str, str] | None:
    """Host and port of `host[:port]`, in lower case, without the brackets of IPv6 and a final dot; None: it is none.

    An empty text is an empty host, as RFC 9112 has it. User information is refused, as RFC 9110 demands.
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
    """What shows that a page of another origin sent the request, as header and value; None when nothing does."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and not _same_origin(origin, headers.get("host", "")):
        return f"Origin {origin!r}"
    if site is None or site.lower() in _OWN or (site.lower() == "same-site" and origin is not None):
        return None
    return f"Sec-Fetch-Site {site!r}"


def _same_origin(origin: str, host: str) -> bool:
    """Whether `origin` names the host and port of the header Host; a proxy may have taken TLS off."""
    scheme, _, authority = origin.partition("://")
    default = _DEFAULT_PORT.get(scheme.lower())
    theirs, ours = split_authority(authority), split_authority(host)
    if default is None or theirs is None or ours is None or not ours[0]:
        return False
    return (theirs[0], theirs[1] or default) == (ours[0], ours[1] or default)
