"""Reduces Docker's JSON while it arrives, so that content from others does not determine its size in memory.

Labels, environments, health checks, aliases and mounts have no upper bound. A text of at most `ORDINARY` bytes passes
unchanged. Of a longer one only the members in `_ANSWER` are kept, which the manager reads, and long strings are cut.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rtmanager.adapters.docker.decode import MOST_NETWORKS
from rtmanager.domain.container import (
    LABEL_CPU_QUOTA,
    LABEL_DEPLOYMENT,
    LABEL_GAME_ID,
    LABEL_IMAGE_REF,
    LABEL_KIND,
    LABEL_MEMORY,
    LABEL_OWNER,
    LABEL_PIDS_LIMIT,
)

#: Bytes of one text, entry or line that are parsed unchanged.
ORDINARY = 1 << 16
#: Bytes kept of one string in a longer text.
LONGEST_STRING = 2048
#: Bytes that a reduced text may have. One object stays below; a list of networks may exceed it.
LONGEST_REDUCED = 4 << 20
#: Members kept of an object with arbitrary names, and entries kept of a list inside an object.
MOST_MEMBERS = MOST_NETWORKS
#: Entries of a large list that is read as a whole, such as the networks that match Docker's filter.
MOST_ENTRIES = 1000
#: Bytes per read.
PIECE = 1 << 16


class _Kept:
    """The part to keep of an object or a list: the named members, or all members up to a number."""

    def __init__(self, names: Iterable[str] = (), **members: _Kept) -> None:
        self._members = {json.dumps(name).encode(): _EMPTY for name in names}
        self._members |= {json.dumps(name).encode(): kept for name, kept in members.items()}
        self._every: _Kept | None = None
        self.most = 0
        #: Matches consecutive members with string values of which none is kept.
        named = b"|".join(map(re.escape, self._members)) or b"(?!)"
        self.others = re.compile(rb"(?>(?!" + named + rb')"(?:[^"\\]++|\\.)*+":"(?:[^"\\]++|\\.)*+",)*+', re.DOTALL)

    @classmethod
    def every(cls, kept: _Kept | None, most: int = MOST_MEMBERS) -> _Kept:
        """Keep all members or entries; of each the part `kept`, or scalars when it is None."""
        found = cls()
        found._every, found.most, found.others = kept or _EMPTY, most, re.compile(b"")
        return found

    def of(self, name: bytes, kept_before: int) -> _Kept | None:
        """Return the part to keep of the member with that JSON name; None when nothing is kept."""
        if self._every is not None:
            return self._every if kept_before < self.most else None
        return self._members.get(name)


#: Keeps only the brackets of an object or a list that stands in place of a scalar.
_EMPTY = _Kept()
_LABELS = (
    LABEL_OWNER,
    LABEL_KIND,
    LABEL_DEPLOYMENT,
    LABEL_GAME_ID,
    LABEL_IMAGE_REF,
    LABEL_CPU_QUOTA,
    LABEL_MEMORY,
    LABEL_PIDS_LIMIT,
)
_SCALARS = _Kept.every(None)
#: Every member that is read of any answer: by `decode`, `versions`, `answers`, `pulling`, and the SDK's `logs` (`Tty`).
_ANSWER = _Kept(
    # A container, an image, a network; `ID` is the daemon's.
    ("ID", "Id", "Image", "Name", "RestartCount", "Status", "Created", "LiveRestoreEnabled"),
    Names=_SCALARS,
    Labels=_Kept(_LABELS),
    State=_Kept(("ExitCode", "FinishedAt", "OOMKilled", "StartedAt", "Status"), Health=_Kept(("Status",))),
    Config=_Kept(("Image", "Tty"), Labels=_Kept(_LABELS)),
    HostConfig=_Kept(("NetworkMode",)),
    NetworkSettings=_Kept(Networks=_Kept.every(_Kept(("GlobalIPv6Address", "IPAddress")))),
    IPAM=_Kept(Config=_Kept.every(_Kept(("Gateway", "Subnet")))),
    # An entry of the image list; the log drivers.
    RepoTags=_SCALARS,
    RepoDigests=_SCALARS,
    Plugins=_Kept(Log=_SCALARS),
    # An event. `signal` shows that a label has the name of Docker's own attribute.
    Type=_EMPTY,
    Action=_EMPTY,
    Actor=_Kept(("ID",), Attributes=_Kept((*_LABELS, "signal"))),
    time=_EMPTY,
    timeNano=_EMPTY,
    # Platform of an image or host; versions; a created container; a refusal; a line of a pull.
    Os=_EMPTY,
    Architecture=_EMPTY,
    Arch=_EMPTY,
    Version=_EMPTY,
    ApiVersion=_EMPTY,
    MinAPIVersion=_EMPTY,
    Warnings=_SCALARS,
    message=_EMPTY,
    status=_EMPTY,
    id=_EMPTY,
    error=_EMPTY,
    errorDetail=_Kept(("message",)),
    progressDetail=_Kept(("current", "total")),
)
#: A top-level list is complete or an error: a part must not pass for the whole.
_TOP = _Kept.every(_ANSWER, MOST_ENTRIES + 1)

# Before Python 3.11.5 a possessive repetition does not restore what its last, failed iteration consumed. An atomic
# group as its body does: `(?>…)*+`.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_FLAT = rb'[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+"'
_FLAT_VALUE = rb"[\[{](?:" + _FLAT + rb")*+[\]}]"
#: Dropped content, up to a bracket that changes the level, or to an unfinished string.
_LEVEL = re.compile(rb"(?>" + _FLAT + rb"|" + _FLAT_VALUE + rb")++", re.DOTALL)
#: Neither strings nor structure: numbers, words, space, and invalid characters.
_PLAIN = re.compile(rb'[^"\[\]{}:,]++')
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_OPENING, _CLOSING, _COLON, _COMMA = frozenset(b"{["), frozenset(b"}]"), ord(":"), ord(",")

#: The boundary between two entries of Docker's list of containers. A string cannot contain it, since its quotes are
#: escaped. A list within an entry can.
_NEXT_ENTRY = b'},{"Id":"'
#: The same from a proxy that writes JSON anew. No string contains it: a quotation mark in a string is escaped.
_SPACED_NEXT_ENTRY = re.compile(rb'\}\s*,\s*\{\s*"Id"\s*:\s*"')
#: Boundaries after which the end of one entry is tried.
MOST_PARTS = 16
#: The beginning of Docker's entries, which occurs nowhere else in a list: a broken entry ends there. And its length.
_SURE_ENTRY = re.compile(rb'\{"Id":"[0-9a-f]{64}","Names":')
_SURE_BYTES = 90


@dataclass(slots=True)
class _Level:
    """An object or a list of which a part is kept, and the position in it."""

    kept: _Kept
    is_object: bool
    #: Members or entries kept so far.
    count: int = 0
    #: JSON name of the current member; empty before it.
    name: bytes = b""
    #: Whether a value follows, the part of it to keep, and whether any of it was kept.
    at_value: bool = False
    value: _Kept | None = None
    begun: bool = False


class Skim:
    """Copies one JSON object or list that arrives in pieces, without unread content; for one thread.

    Raises `ValueError` when too much is left, or for any other value. The copy of invalid JSON is invalid, unless the
    fault is in dropped content.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._rest = b""
        #: The shortened copy of a string whose end has not arrived.
        self._cut: bytes | None = None
        self._levels: list[_Level] = []
        #: Nesting depth in an object or a list that is dropped.
        self._dropped = 0

    @property
    def text(self) -> bytes:
        """The copy so far."""
        return bytes(self._kept)

    @property
    def is_in_string(self) -> bool:
        """Whether a string has begun and not ended."""
        return self._cut is not None or self._rest.startswith(b'"')

    def feed(self, piece: bytes) -> bytes | None:
        """Process a piece; returns the bytes after the end of the object or list, else None."""
        buffer, position = self._rest + piece, 0
        while position < len(buffer):
            before = position
            if self._cut is not None:
                position = self._skip(buffer, position)
            elif passed := self._pass_over(buffer, position):
                position += passed
            elif buffer[position] == _QUOTE:
                position = self._string(buffer, position)
            elif plain := _PLAIN.match(buffer, position):
                self._take(plain[0])
                position = plain.end()
            else:
                self._structure(buffer[position : position + 1])
                position += 1
                if not self._levels:
                    return buffer[position:]
            if position == before:
                break  # the rest of a string has not arrived
            if len(self._kept) > LONGEST_REDUCED:
                raise ValueError(f"more than {LONGEST_REDUCED} bytes without what is not read")
        self._rest = buffer[position:]
        return None

    def _pass_over(self, buffer: bytes, position: int) -> int:
        """Return the length of the content at this position that is dropped as a whole."""
        if self._dropped:
            found = _LEVEL.match(buffer, position)
        elif self._levels and not self._levels[-1].at_value and not self._levels[-1].name:
            found = self._levels[-1].kept.others.match(buffer, position)
        else:
            return 0
        return found.end() - position if found is not None else 0

    def _string(self, buffer: bytes, position: int) -> int:
        """Process a string once it is complete, or too long to keep; returns the next position."""
        whole = _STRING.match(buffer, position)
        if whole is not None:
            self._take(whole[0] if len(whole[0]) <= LONGEST_STRING else _shortened(whole[0]))
            return whole.end()
        if len(buffer) - position <= LONGEST_STRING:
            return position
        self._cut = _shortened(buffer[position : position + LONGEST_STRING])
        return position + 1

    def _skip(self, buffer: bytes, position: int) -> int:
        """Skip the rest of a string that was cut; returns the next position."""
        inside = _IN_STRING.match(buffer, position)
        end = inside.end() if inside else position
        if end < len(buffer) and buffer[end] == _QUOTE:
            cut, self._cut = self._cut or b'""', None
            self._take(cut)
            return end + 1
        return end  # at the end, or before a backslash whose escaped character has not arrived

    def _take(self, token: bytes) -> None:
        """Process a string, or a token that is neither a string nor structure."""
        if self._dropped:
            return
        level = self._levels[-1] if self._levels else None
        if level is None:
            if not token.isspace():
                raise ValueError("neither an object nor a list")
        elif level.at_value:
            if level.value is not None and (level.begun or not token.isspace()):
                self._begin(level)
                self._kept += token
        elif not level.name and token.startswith(b'"'):
            level.name = token
        elif not token.isspace():
            self._kept += token  # no JSON

    def _structure(self, byte: bytes) -> None:
        level, kind = (self._levels[-1] if self._levels else None), byte[0]
        if self._dropped:
            self._dropped += 1 if kind in _OPENING else -1
        elif kind in _OPENING:
            self._open(level, byte)
        elif level is None:
            raise ValueError("neither an object nor a list")
        elif kind in _CLOSING:
            self._kept += byte
            self._levels.pop()
        elif kind == _COLON and level.name and not level.at_value:
            level.at_value, level.value = True, level.kept.of(level.name, level.count)
        elif kind == _COMMA and (level.at_value or not level.is_object):
            self._end_value(level)
        else:
            self._kept += byte  # no JSON

    def _end_value(self, level: _Level) -> None:
        level.count += level.begun
        if level.kept is _TOP and level.count >= MOST_ENTRIES:
            raise ValueError(f"more than {MOST_ENTRIES} entries")
        level.name, level.begun, level.at_value = b"", False, not level.is_object
        level.value = None if level.is_object else level.kept.of(b"", level.count)

    def _open(self, level: _Level | None, byte: bytes) -> None:
        is_object = byte == b"{"
        if level is None:
            kept: _Kept | None = _ANSWER if is_object else _TOP
        elif level.at_value:
            kept = level.value
            if kept is not None:
                self._begin(level)
        else:
            kept = _EMPTY  # no JSON
        if kept is None:
            self._dropped = 1
            return
        self._kept += byte
        self._levels.append(_Level(kept, is_object))
        if not is_object:
            self._levels[-1].at_value, self._levels[-1].value = True, kept.of(b"", 0)

    def _begin(self, level: _Level) -> None:
        """Write the comma and the name before the first byte of a kept value."""
        if not level.begun:
            level.begun = True
            self._kept += b"," * bool(level.count) + (level.name + b":" if level.is_object else b"")


def _shortened(token: bytes) -> bytes:
    """Return the beginning of a string, closed and without half an escape; the mark shows that it was cut."""
    kept = token[: LONGEST_STRING - 16]
    escape = kept.rfind(b"\\", len(kept) - 6)
    while escape > 0 and kept[escape - 1] == _BACKSLASH:
        escape -= 1
    return (kept if escape < 0 else kept[:escape]) + b'\xe2\x80\xa6"'


def _whole_number(digits: str) -> int | None:
    """Parse an integer; None for a very long one, since Python rejects the whole text for it."""
    return int(digits) if len(digits) <= 20 else None


_DECODER = json.JSONDecoder(parse_int=_whole_number)


def loads(text: bytes) -> Any:
    """Parse a JSON text. Raises `ValueError` for any fault."""
    try:
        return _DECODER.decode(text.decode(errors="replace"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def reduced(read: Callable[[int], bytes]) -> bytes:
    """Read one JSON text, reduced when it exceeds `ORDINARY`. `read` returns up to that many bytes, none at the end.

    Raises `ValueError` when too much is left.
    """
    text = read(ORDINARY + 1)
    if len(text) <= ORDINARY:
        return text
    skim, piece = Skim(), text
    while piece and skim.feed(piece) is None:
        piece = read(PIECE)
    while piece:  # nothing, or invalid JSON, follows the end; the connection will be reused
        piece = read(PIECE)
    return skim.text


def entries(pieces: Iterable[bytes]) -> Iterator[Any]:
    """Yield the entries of a list of containers as they arrive; None for an unreadable one.

    A list that breaks off yields its readable entries, then None. Raises `ValueError` when it is no list, or breaks off
    before any readable entry.
    """
    arriving, rest, begun, has_read = iter(pieces), b"", False, False
    for piece in arriving:
        rest = (rest + piece).lstrip() if not begun else rest + piece
        if not begun and rest:
            if not rest.startswith(b"["):
                deque(arriving, maxlen=0)  # reads to the end: a broken connection is the error to report
                raise ValueError(f"expected a list, it begins with {bytes(rest[:40])!r}")
            begun, rest = True, rest[1:]
        if begun:
            rest = rest.lstrip(b", \t\r\n")
        values: list[Any] = []
        if len(rest) > ORDINARY and _NEXT_ENTRY not in rest:
            rest = _SPACED_NEXT_ENTRY.sub(_NEXT_ENTRY, rest)
        last = rest.rfind(_NEXT_ENTRY)
        if last >= 0:
            values, left = _batch(rest[: last + 1])
            rest = left + rest[last + 1 :] if left else rest[last + 2 :]
        while len(rest) > ORDINARY:
            value, rest = _large_entry(rest, arriving)
            rest = rest.lstrip(b", \t\r\n")
            if value is not None or rest:
                values.append(value)
        yield from values
        has_read = has_read or any(value is not None for value in values)
    rest = rest.strip(b", \t\r\n")
    is_whole = rest.endswith(b"]")
    rest = rest[:-1].strip() if is_whole else rest
    values = _batch(rest, whole=True)[0] if rest else []
    if not is_whole:
        if not has_read and all(value is None for value in values):
            raise ValueError("the list breaks off")
        values = [value for value in values if value is not None] + [None]
    yield from values


def _large_entry(begin: bytes, arriving: Iterator[bytes]) -> tuple[Any, bytes]:
    """Read an entry above `ORDINARY`; returns it and the bytes after it, none when the list breaks off in it."""
    skim: Skim | None = Skim()
    waiting, ended, is_sure = begin, False, _SURE_ENTRY.match(begin) is not None
    while True:
        # A boundary may have arrived in part; the closing brace before it belongs to this entry.
        known = len(waiting) if ended else max(0, len(waiting) - _SURE_BYTES)
        mark = waiting.find(_NEXT_ENTRY, 0, known + len(_NEXT_ENTRY))
        take = mark + 1 if mark >= 0 else known
        part, waiting = waiting[:take], waiting[take:]
        try:
            behind = skim.feed(part) if skim is not None else None
        except ValueError:
            skim = None
        if skim is not None and behind is not None:
            return _parsed(skim.text), behind + waiting
        # No string can contain the boundary: one that seems to is broken JSON.
        is_broken = skim is None or skim.is_in_string
        if mark >= 0 and (_SURE_ENTRY.match(waiting, 1) or (is_broken and not is_sure)):
            return None, waiting
        if mark >= 0:
            continue
        if ended:
            # With its end, this is the last entry: the end of the list cannot be recognised.
            return None, b"]" if part.rstrip().endswith(b"]") else b""
        following = next(arriving, None)
        waiting, ended = waiting + (following or b""), following is None


def _parsed(text: bytes) -> Any:
    try:
        return loads(text)
    except ValueError:
        return None


def _batch(text: bytes, *, whole: bool = False) -> tuple[list[Any], bytes]:
    """Parse entries that arrived together: at once, else one by one; also returns what may be incomplete.

    With `whole` nothing follows.
    """
    try:
        return list(loads(b"[" + text + b"]")), b""
    except ValueError:
        pass
    begun, *others = text.split(_NEXT_ENTRY)
    parts = [begun, *(_NEXT_ENTRY[2:] + part for part in others)]
    parts[:-1] = [part + b"}" for part in parts[:-1]]
    sure = [index for index, part in enumerate(parts) if _SURE_ENTRY.match(part)]
    values: list[Any] = []
    first = 0
    while first < len(parts):
        following = bisect_right(sure, first)
        is_sure = following > 0 and sure[following - 1] == first
        next_entry = sure[following] if following < len(sure) else 0
        value, after = _first_of(parts[first : min(next_entry or len(parts), first + MOST_PARTS)])
        may_go_on = not next_entry and (is_sure or first + MOST_PARTS >= len(parts))
        if not after and may_go_on and not whole:
            return values, b",".join(parts[first:])
        values.append(value)
        first = first + after if after else next_entry or (len(parts) if is_sure else first + 1)
    return values, b""


def _first_of(parts: list[bytes]) -> tuple[Any, int]:
    """Parse the entry that begins with the first part; returns it and its number of parts, 0 when it is unreadable.

    An entry may contain the boundary between two parts.
    """
    for count in range(1, len(parts) + 1):
        try:
            return loads(b",".join(parts[:count])), count
        except ValueError:
            continue
    return None, 0


class Lines:
    """Splits pieces into lines of bounded length; a longer line is reduced as JSON."""

    def __init__(self) -> None:
        self._begin = b""
        self._skim: Skim | None = None
        self._hopeless = False

    def feed(self, piece: bytes) -> list[bytes | None]:
        """Return the completed lines; None, as soon as it is known, for one that stays too long."""
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
