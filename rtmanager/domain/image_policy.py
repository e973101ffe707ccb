"""Which images may be started: patterns of references, and registries that need a pattern of their own.

A pattern is compared part by part, never as a prefix of a text. The registry is compared as a whole.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.game import shown
from rtmanager.domain.image_ref import OFFICIAL, PATH_PART, ImageRef, is_registry, parse_image_ref, split_name

ONE, ANY = "*", "**"

_PART = re.compile(PATH_PART)
_TAG_PATTERN = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9_.*-]{0,127}")

#: Names that hosts files give to the host itself.
_OWN_NAMES = frozenset(
    {
        *("localhost", "localhost.localdomain", "localhost4", "localhost4.localdomain4"),
        *("localhost6", "localhost6.localdomain6", "ip6-localhost", "ip6-loopback"),
    }
)
#: Unspecified (it means the host itself), loopback and link-local, where clouds serve a machine's credentials.
_NEAR = tuple(map(ip_network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "::/128", "::1/128", "fe80::/10")))


@dataclass(frozen=True, slots=True)
class ImagePattern:
    """`[registry[:port]/]path[:tag]`; of `parts`, `*` is any one, and a last `**` any one or more."""

    registry: str
    parts: tuple[str, ...]
    #: With `*` for any characters; None: any tag, or none.
    tag: str | None

    @classmethod
    def parse(cls, text: str) -> ImagePattern:
        """Parse a pattern. Raises `InvalidValue` when it could match no reference, or another than its author means."""
        name, colon, tag = text.rpartition(":")
        if not colon or "/" in tag:  # a colon before a slash belongs to a port
            name, colon, tag = text, "", ""
        first, slash, rest = name.partition("/")
        if slash and (any(mark in first for mark in ".:") or first.lower() == "localhost"):
            name = f"{first.lower()}/{rest}"
        elif not slash and ("." in first or first.lower() == "localhost"):
            raise _unclear(
                text, f"a registry needs a path: write {text}/{ANY}; an image of that name: {OFFICIAL}{text}"
            )
        registry, path = split_name(name)
        if path == f"{OFFICIAL}{ANY}" and not name.endswith(path):
            path = ANY
        if not is_registry(registry):
            raise _unclear(text, f"{shown(registry, 40)} is not a registry: it is host or host:port, without wildcards")
        *parents, last = path.split("/")
        for part in (*parents, ONE if last == ANY else last):
            if part != ONE and not _PART.fullmatch(part):
                raise _unclear(
                    text, f"{shown(part, 40)} is not a part of a path: a name, {ONE}, or {ANY} as the last one"
                )
        if colon and not _TAG_PATTERN.fullmatch(tag):
            raise _unclear(text, f"{shown(tag, 40)} is not a tag, with {ONE} for any characters")
        return cls(registry, (*parents, last), tag if colon else None)

    def matches(self, ref: ImageRef) -> bool:
        """Return whether the pattern allows this reference; without a tag it means `latest`, with a digest any."""
        if self.registry != ref.registry.lower() or not self._has_path(ref.path.split("/")):
            return False
        tag = ref.tag or ("" if ref.digest else "latest")
        return self.tag is None or not tag or _fits(self.tag, tag)

    def _has_path(self, parts: Sequence[str]) -> bool:
        own = self.parts
        if own[-1] == ANY:
            own = own[:-1]
            if len(parts) <= len(own):
                return False
            parts = parts[: len(own)]
        return len(own) == len(parts) and all(mine in (ONE, each) for mine, each in zip(own, parts, strict=True))


@dataclass(frozen=True, slots=True)
class ImagePolicy:
    """What may be started. Without patterns everything may, except from registries that are `near`."""

    allowed: tuple[ImagePattern, ...] = ()
    require_digest: bool = False

    def check(self, text: str) -> None:
        """Raise `InvalidValue` for a reference that is malformed or refused; no name is resolved, nothing is called."""
        ref = parse_image_ref(text)
        if self.require_digest and ref.digest is None:
            raise InvalidValue(
                f"image_ref {shown(text)} has no digest, and RTMANAGER_IMAGE_REQUIRE_DIGEST is on: append the image's "
                "@sha256:… (docker image inspect shows it)"
            )
        if self.allowed:
            if not any(pattern.matches(ref) for pattern in self.allowed):
                raise InvalidValue(
                    f"image_ref {shown(text)} is not allowed: no pattern of RTMANAGER_IMAGE_ALLOW matches it; name an "
                    f"allowed image, or let an operator add a pattern such as {ref.registry}/{ref.path}"
                )
        elif is_near(ref.registry.partition(":")[0]):
            raise InvalidValue(
                f"image_ref {shown(text)} is not allowed: its registry is the Docker host itself or a link-local "
                "address; name another registry, or let an operator list all images that are needed in "
                f"RTMANAGER_IMAGE_ALLOW, among them {ref.registry}/{ANY}"
            )


def is_near(host: str) -> bool:
    """Return whether a host is the machine itself or link-local by its spelling; a name is not resolved."""
    host = host.lower().strip("[]").partition("%")[0].removesuffix(".")
    if host in _OWN_NAMES or host.endswith(".localhost"):
        return True
    return any(address in network for address in _addresses(host) for network in _NEAR)


def _addresses(host: str) -> Iterator[IPv4Address | IPv6Address]:
    """Yield every address that a resolver may read: C libraries accept 127.1, 0x7f.1, 0177.0.0.1 and 2130706433."""
    with suppress(OSError):
        yield IPv4Address(socket.inet_aton(host))
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9}){3}", host):  # some read a leading 0 as decimal, not as octal
        numbers = [int(part) for part in host.split(".")]
        if max(numbers) < 256:
            yield IPv4Address(bytes(numbers))
    try:
        address = IPv6Address(host)
    except ValueError:
        return
    yield address
    if int(address) >> 32 in (0, 0xFFFF):  # IPv4-compatible and IPv4-mapped
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _fits(pattern: str, text: str) -> bool:
    """Return whether a text matches a pattern with `*` for any characters, without backtracking."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *middle, last = others
    if not (text.startswith(first) and text.endswith(last) and len(text) >= len(first) + len(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _unclear(text: str, why: str) -> InvalidValue:
    return InvalidValue(f"{shown(text)}: {why}")


def parse_patterns(text: str) -> tuple[ImagePattern, ...]:
    """Parse patterns with commas or white space between them; empty text: none. Raises `InvalidValue`."""
    found = tuple(ImagePattern.parse(each) for each in re.split(r"[\s,]+", text) if each)
    if text and not found:
        raise InvalidValue("there is none, and an empty list would allow everything")
    return found
