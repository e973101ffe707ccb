"""Reduces Docker's JSON while it arrives, so that its size in memory does not depend on what others put into it.

Labels, environments and commands come from images and have no upper bound. A text of ordinary size passes as it is;
a longer one loses what this service never reads, and long strings are cut, before anything is parsed.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rtmanager.domain.container import (
    LABEL_CPU_QUOTA,
    LABEL_GAME_ID,
    LABEL_IMAGE_REF,
    LABEL_KIND,
    LABEL_MEMORY,
    LABEL_OWNER,
    LABEL_PIDS_LIMIT,
)

#: Bytes of one text, entry or line that are parsed as they are.
ORDINARY = 1 << 16
#: Bytes of one string that are kept of a longer text.
LONGEST_STRING = 2048
#: Bytes that a reduced text may have; it is unreadable when more is left.
LONGEST_REDUCED = 1 << 20
#: Bytes that are read at once.
PIECE = 1 << 16

#: The labels that are read, as JSON.
LABELS = frozenset(
    json.dumps(name).encode()
    for name in (
        LABEL_OWNER,
        LABEL_KIND,
        LABEL_GAME_ID,
        LABEL_IMAGE_REF,
        LABEL_CPU_QUOTA,
        LABEL_MEMORY,
        LABEL_PIDS_LIMIT,
    )
)
_NOTHING: frozenset[bytes] = frozenset()
#: Objects and lists by their key, with the members that are kept.
_REDUCED: Mapping[bytes, frozenset[bytes]] = {
    b'"Labels"': LABELS,
    # `signal` tells that a label has Docker's own name.
    b'"Attributes"': LABELS | {b'"signal"'},
    **dict.fromkeys(
        (
            b'"Args"',
            b'"Binds"',
            b'"Cmd"',
            b'"Entrypoint"',
            b'"Env"',
            b'"ExposedPorts"',
            b'"History"',
            b'"Layers"',
            b'"Log"',
            b'"Mounts"',
            b'"OnBuild"',
            b'"Ports"',
            b'"RepoDigests"',
            b'"RepoTags"',
            b'"Volumes"',
        ),
        _NOTHING,
    ),
}

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
#: Whole members of an object, or entries of a list, of which none is kept: passed over at once.
_OTHERS = re.compile(rb'(?:"(?!com\.galaxy\.|signal")(?:[^"\\]++|\\.)*+"(?::"(?:[^"\\]++|\\.)*+")?,)*+', re.DOTALL)
_PLAIN = re.compile(rb'[^"]+')
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_OPENING, _CLOSING, _COLON, _COMMA = frozenset(b"{["), frozenset(b"}]"), ord(":"), ord(",")

#: Where an entry of Docker's list of containers ends and the next begins. A string cannot hold it: its quotes are
#: escaped. A list within an entry could.
_NEXT_ENTRY = b'},{"Id":"'
#: As many such marks are looked behind for the end of one entry.
MOST_PARTS = 16


class Skim:
    """Copies one JSON object or list that arrives in pieces, without what is not read; for one thread.

    Raises `ValueError` when too much is left. What is no JSON stays none: who parses the copy finds out.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._rest = b""
        self._depth = 0
        self._key = b""
        self._value_follows = False
        #: The beginning of a string that is longer than is kept, while its end has not come.
        self._cut: bytes | None = None
        #: The depth of the object or list that is reduced now, the members that are kept of it, and where in it we are.
        self._reduced_at = 0
        self._wanted = _NOTHING
        self._member: bytes | None = None
        self._kept_members = 0

    @property
    def text(self) -> bytes:
        """What is kept so far."""
        return bytes(self._kept)

    @property
    def is_in_string(self) -> bool:
        """Whether a string has begun and not ended."""
        return self._cut is not None or self._rest.startswith(b'"')

    def feed(self, piece: bytes) -> bytes | None:
        """Take what arrived. When the object or list has ended: what came behind it, else None."""
        buffer, position = self._rest + piece, 0
        while position < len(buffer):
            if self._cut is not None:
                position = self._skip(buffer, position)
                if self._cut is not None:
                    break
            elif buffer[position] == _QUOTE:
                if self._reduced_at == self._depth and self._member is None:
                    others = _OTHERS.match(buffer, position)
                    if others is not None and others.end() > position:
                        position = others.end()
                        continue
                whole = _STRING.match(buffer, position)
                if whole is None:
                    if len(buffer) - position <= LONGEST_STRING:
                        break
                    self._cut = _shortened(buffer[position : position + LONGEST_STRING])
                    position += 1
                    continue
                self._take_string(whole[0] if len(whole[0]) <= LONGEST_STRING else _shortened(whole[0]))
                position = whole.end()
            else:
                plain = _PLAIN.match(buffer, position)
                assert plain is not None  # the byte there is no quote
                end = self._take_plain(plain[0])
                if end is not None:
                    return buffer[position + end :]
                position = plain.end()
            if len(self._kept) > LONGEST_REDUCED:
                raise ValueError(f"more than {LONGEST_REDUCED} bytes without what is not read")
        self._rest = buffer[position:]
        return None

    def _skip(self, buffer: bytes, position: int) -> int:
        """Pass over the rest of a string that is cut."""
        inside = _IN_STRING.match(buffer, position)
        end = inside.end() if inside else position
        if end < len(buffer) and buffer[end] == _QUOTE:
            cut, self._cut = self._cut or b'""', None
            self._take_string(cut)
            return end + 1
        return end  # at the end, or before a backslash whose companion has not come

    def _take_string(self, token: bytes) -> None:
        if not self._reduced_at:
            self._kept += token
            self._key = token
        elif self._depth == self._reduced_at:
            if self._member is None:
                self._member = token
            elif self._member in self._wanted:
                self._kept += b"," * bool(self._kept_members) + self._member + b":" + token
                self._kept_members += 1

    def _take_plain(self, run: bytes) -> int | None:
        """What is no string; where the whole ends, if it does."""
        for index, byte in enumerate(run):
            if byte in _OPENING:
                self._depth += 1
                if not self._reduced_at:
                    self._kept.append(byte)
                    self._begin(byte)
            elif byte in _CLOSING:
                self._depth -= 1
                if not self._reduced_at or self._depth < self._reduced_at:
                    self._kept.append(byte)
                    self._reduced_at = 0
                if self._depth <= 0:
                    return index + 1
            elif self._reduced_at:
                if byte == _COMMA and self._depth == self._reduced_at:
                    self._member = None
            else:
                self._kept.append(byte)
            self._value_follows = byte == _COLON or (self._value_follows and byte in b" \t\r\n")
        return None

    def _begin(self, opening: int) -> None:
        """An object or a list begins: is it one that is reduced?"""
        wanted = _REDUCED.get(self._key) if self._value_follows else None
        if wanted is not None:
            self._reduced_at, self._member, self._kept_members = self._depth, None, 0
            self._wanted = wanted if opening == ord("{") else _NOTHING


def _shortened(token: bytes) -> bytes:
    """The beginning of a string, never with half of an escape, and closed. It cannot be taken for the whole."""
    kept = token[: LONGEST_STRING - 16]
    escape = kept.rfind(b"\\", len(kept) - 6)
    while escape > 0 and kept[escape - 1] == _BACKSLASH:
        escape -= 1
    return (kept if escape < 0 else kept[:escape]) + b'\xe2\x80\xa6"'


def _whole_number(digits: str) -> int | None:
    """Python refuses to read very long numbers, and with them all that stands around one."""
    return int(digits) if len(digits) <= 20 else None


_DECODER = json.JSONDecoder(parse_int=_whole_number)


def loads(text: bytes) -> Any:
    """The value of a JSON text. Raises `ValueError`, whatever is wrong with it."""
    try:
        return _DECODER.decode(text.decode(errors="replace"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def reduced(read: Callable[[int], bytes]) -> bytes:
    """One JSON text: as it is when it is of ordinary size. `read` gives up to so many bytes, none at the end.

    Raises `ValueError` when too much is left.
    """
    text = read(ORDINARY + 1)
    if len(text) <= ORDINARY:
        return text
    skim, piece = Skim(), text
    while piece and skim.feed(piece) is None:
        piece = read(PIECE)
    while piece:  # what stands behind the end is nothing, or no JSON; the connection is to be used again
        piece = read(PIECE)
    return skim.text


def entries(pieces: Iterable[bytes]) -> Iterator[Any]:
    """The entries of a list of containers, one after the other as they arrive; None for one that cannot be read.

    Raises `ValueError` when it is no list, or breaks off.
    """
    arriving, rest, begun = iter(pieces), b"", False
    for piece in arriving:
        rest = (rest + piece).lstrip() if not begun else rest + piece
        if not begun and rest:
            if not rest.startswith(b"["):
                deque(arriving, maxlen=0)  # when it breaks off, that is what is wrong
                raise ValueError(f"expected a list, it begins with {bytes(rest[:40])!r}")
            begun, rest = True, rest[1:]
        if begun:
            rest = rest.lstrip(b", \t\r\n")
        last = rest.rfind(_NEXT_ENTRY)
        if last >= 0:
            values, left = _batch(rest[: last + 1])
            yield from values
            rest = left + rest[last + 1 :] if left else rest[last + 2 :]
        if len(rest) > ORDINARY:
            value, rest = _large_entry(rest, arriving)
            yield value
    rest = rest.strip(b", \t\r\n")
    if not begun or not rest.endswith(b"]"):
        raise ValueError("the list breaks off")
    if rest := rest[:-1].strip():
        yield from _batch(rest, whole=True)[0]


def _large_entry(begin: bytes, arriving: Iterator[bytes]) -> tuple[Any, bytes]:
    """An entry that is not of ordinary size, and what came behind it."""
    skim: Skim | None = Skim()
    waiting, ended = begin, False
    while True:
        mark = waiting.find(_NEXT_ENTRY)
        # A mark may have come by half; the closing brace before one is still of this entry.
        take = mark + 1 if mark >= 0 else len(waiting) if ended else max(0, len(waiting) - len(_NEXT_ENTRY))
        part, waiting = waiting[:take], waiting[take:]
        try:
            behind = skim.feed(part) if skim is not None else None
        except ValueError:
            skim = None
        if skim is not None and behind is not None:
            return _parsed(skim.text), behind + waiting
        if mark >= 0 and (skim is None or skim.is_in_string):
            return None, waiting  # no string can hold the mark: what is read as one is broken JSON
        if mark >= 0:
            continue
        if ended:
            if part.rstrip().endswith(b"]"):
                return None, b"]"  # the last one of the list, whose end cannot be told
            raise ValueError("the list breaks off")
        following = next(arriving, None)
        waiting, ended = waiting + (following or b""), following is None


def _parsed(text: bytes) -> Any:
    try:
        return loads(text)
    except ValueError:
        return None


def _batch(text: bytes, *, whole: bool = False) -> tuple[list[Any], bytes]:
    """Entries that arrived together: parsed at once, and one by one when that fails; and what may not be whole yet.

    With `whole` nothing follows.
    """
    try:
        return list(loads(b"[" + text + b"]")), b""
    except ValueError:
        pass
    begun, *others = text.split(_NEXT_ENTRY)
    parts = [begun, *(_NEXT_ENTRY[2:] + part for part in others)]
    parts[:-1] = [part + b"}" for part in parts[:-1]]
    values: list[Any] = []
    first = 0
    while first < len(parts):
        value, after = _first_of(parts[first : first + MOST_PARTS])
        if not after and not whole and first + MOST_PARTS >= len(parts):
            return values, b",".join(parts[first:])
        values.append(value)
        first += after or 1
    return values, b""


def _first_of(parts: list[bytes]) -> tuple[Any, int]:
    """The entry that begins with the first part, and of how many parts it is: an entry may hold what looks like the
    mark between two. None of 0 parts when that cannot be read."""
    for count in range(1, len(parts) + 1):
        try:
            return loads(b",".join(parts[:count])), count
        except ValueError:
            continue
    return None, 0


class Lines:
    """Lines that arrive in pieces, each of bounded length: a longer one is reduced as JSON."""

    def __init__(self) -> None:
        self._begin = b""
        self._skim: Skim | None = None
        self._hopeless = False

    def feed(self, piece: bytes) -> list[bytes | None]:
        """The lines that have ended; None for one that stays too long, told as soon as that is known."""
        found: list[bytes | None] = []
        *ended, rest = piece.split(b"\n")
        for part in ended:
            found.extend(self._take(part))
            found.extend(self._end())
        found.extend(self._take(rest))
        return found

    def _take(self, part: bytes) -> list[None]:
        if self._hopeless:
            return []
        if self._skim is None:
            self._begin += part
            if len(self._begin) <= ORDINARY:
                return []
            self._skim, part, self._begin = Skim(), self._begin, b""
        try:
            self._skim.feed(part)
        except ValueError:
            self._skim, self._hopeless = None, True
            return [None]
        return []

    def _end(self) -> list[bytes]:
        line = self._skim.text if self._skim is not None else self._begin
        hopeless = self._hopeless
        self._begin, self._skim, self._hopeless = b"", None, False
        return [] if hopeless or not line.strip() else [line]
