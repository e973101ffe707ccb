"""Who may call the REST API: roles, and the tokens that prove them. Pure.

A token is kept as its SHA-256 digest only, so that no message, log or dump of a value shows it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.game import shown
from rtmanager.domain.operation import OpSource

#: Fewest and most characters of a token.
SHORTEST_TOKEN, LONGEST_TOKEN = 16, 1024

_TOKEN = re.compile(r"[\x21-\x7e]+")
#: A caller's name has no dot, so that `gm.game-master.bak` of an editor is no second token.
_FILE_NAME = re.compile(r"(gm|admin|read)\.([A-Za-z0-9][A-Za-z0-9_-]{0,63})")


class Role(StrEnum):
    """The rights of a token."""

    GM = "gm"
    ADMIN = "admin"
    READ = "read"

    @property
    def source(self) -> OpSource | None:
        """The source of its operations; None: it may only read."""
        return _SOURCE_OF.get(self)


_SOURCE_OF = {Role.GM: OpSource.GM_REST, Role.ADMIN: OpSource.ADMIN_REST}


@dataclass(frozen=True, slots=True)
class Token:
    """One accepted token: its caller, its role, its digest."""

    caller: str
    role: Role
    digest: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.role}.{self.caller}"


@dataclass(frozen=True, slots=True)
class Tokens:
    """All accepted tokens."""

    accepted: tuple[Token, ...] = ()

    def find(self, given: str) -> Token | None:
        """Return the token with this text. Its time shows neither which one it is nor how much of it is right."""
        if not is_token(given):
            return None
        digest, found = digest_of(given), None
        for each in self.accepted:
            if hmac.compare_digest(each.digest, digest):
                found = each
        return found


def is_token(text: str) -> bool:
    """Return whether the text has the form of a token: 16 to 1,024 visible characters of ASCII."""
    return SHORTEST_TOKEN <= len(text) <= LONGEST_TOKEN and _TOKEN.fullmatch(text) is not None


def digest_of(token: str) -> bytes:
    """Return the digest by which a token is kept and compared."""
    return hashlib.sha256(token.encode()).digest()


def parse_token_file(name: str, content: bytes) -> Token:
    """Parse a token's file by its name and content. Raises `InvalidValue`, without a part of the token."""
    role, caller = parse_token_name(name)
    text = content.rstrip(b" \t\r\n\v\f").decode("ascii", "replace")
    if not text:
        raise InvalidValue(f"{shown(name)} is empty: expected a token of at least {SHORTEST_TOKEN} characters")
    if len(text) < SHORTEST_TOKEN:
        raise InvalidValue(f"{shown(name)} has {len(text)} characters: expected at least {SHORTEST_TOKEN}")
    if len(text) > LONGEST_TOKEN:
        raise InvalidValue(f"{shown(name)} has more than {LONGEST_TOKEN} characters: expected one token")
    if not is_token(text):
        raise InvalidValue(
            f"{shown(name)} has white space or other unprintable or non-ASCII characters inside: expected one token of "
            "visible ASCII characters"
        )
    return Token(caller, role, digest_of(text))


def parse_token_name(name: str) -> tuple[Role, str]:
    """Parse the name of a token's file, `<role>.<caller>`. Raises `InvalidValue`."""
    match = _FILE_NAME.fullmatch(name)
    if match is None:
        raise InvalidValue(
            f"{shown(name)} is no name of a token: expected ROLE.CALLER such as gm.game-master-1, with a role of "
            f"{', '.join(Role)} and a caller of at most 64 letters, digits, - and _"
        )
    return Role(match[1]), match[2]


def repeated(tokens: Iterable[Token]) -> list[list[Token]]:
    """Return the groups of tokens that are the same: a caller with one of them could not be identified."""
    groups: dict[bytes, list[Token]] = {}
    for token in tokens:
        groups.setdefault(token.digest, []).append(token)
    return [group for group in groups.values() if len(group) > 1]
