"""Formats any value for a log line, as JSON or text of bounded size.

Nothing here raises: a value whose text cannot be made is named by its type. Sizes are in bytes of JSON in UTF-8. A text
within a limit is therefore within it on the wire.
"""

from __future__ import annotations

import json
import math
import re
import traceback
from itertools import islice
from json.encoder import encode_basestring as _escaped
from types import TracebackType
from typing import Any, TypeAlias

from rtmanager.domain.text import BIDI_CONTROLS

ExceptionInfo: TypeAlias = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

#: Items of a container that are shown, all levels together, and the levels.
MOST_ITEMS = 64
MOST_LEVELS = 4
#: Bytes of a text inside a container.
ITEM_BYTES = 256
#: Bytes of one traceback line, and the share of a long traceback's beginning that is kept.
TRACEBACK_LINE_BYTES = 500
TRACEBACK_HEAD_SHARE = 0.25
#: Frames of each exception in a traceback, the innermost ones.
MOST_FRAMES = 30
#: Most readers of JSON have no exact form for larger numbers, which may have thousands of digits.
_MOST_BITS = 64

#: Characters that JSON leaves as they are, but that end a line for some readers, control a terminal, or have no UTF-8.
_UNSAFE = re.compile(f"[\x7f-\x9f\u2028\u2029\ud800-\udfff{BIDI_CONTROLS}]")
#: The same for text, where nothing is escaped.
_UNSAFE_IN_TEXT = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{BIDI_CONTROLS}]")
_SURROGATES = range(0xD800, 0xE000)


def as_json(value: object, limit: int) -> str:
    """Format a value as JSON of at most `limit` bytes."""
    if type(value) is str:
        return quoted(value, limit)
    try:
        return _as_json(value, limit)
    except Exception as error:  # noqa: BLE001 - a value with code of its own may raise anything
        return quoted(_unprintable(value, error), limit)


def as_text(value: object, limit: int) -> str:
    """Format a value for a person on one line, of at most `limit` bytes of JSON."""
    try:
        return on_one_line(cut(_text_of(value, limit), limit))
    except Exception as error:  # noqa: BLE001 - as above
        return on_one_line(cut(_unprintable(value, error), limit))


def quoted(text: str, limit: int) -> str:
    """Format a text as a JSON string of at most `limit` bytes."""
    if len(text) <= limit:
        encoded = _escaped(text)
        if not encoded.isascii() or "\x7f" in encoded:
            encoded = _UNSAFE.sub(_as_escape, encoded)
        if _size(encoded) <= limit:
            return encoded
    return _encoded(cut(text, limit - 2))


def cut(text: str, limit: int) -> str:
    """Cut a text to at most `limit` bytes of JSON; its end shows that it was cut."""
    if len(text) <= limit and _size(_encoded(text)) - 2 <= limit:
        return text
    mark = f"… ({len(text)} characters)"
    room = limit - len(mark.encode())
    kept = text[: max(0, room)]
    while (size := _size(_encoded(kept)) - 2) > max(0, room):
        kept = kept[: len(kept) * max(0, room) // size]
    return kept + mark


def on_one_line(text: str) -> str:
    """Return the text without line ends and terminal controls."""
    return text if text.isascii() and text.isprintable() else _UNSAFE_IN_TEXT.sub(_visible, text)


def traceback_text(exc_info: ExceptionInfo, limit: int) -> str:
    """Format a traceback in at most `limit` bytes of JSON: its beginning and, for the larger part, its end."""
    try:
        text = "".join(traceback.format_exception(*exc_info, limit=-MOST_FRAMES)).rstrip("\n")
    except Exception as error:  # noqa: BLE001 - an exception may have a text or a cause that raises
        text = f"(no traceback of {_name_of(exc_info[1])}: {type(error).__name__})"
    if len(text) <= limit and _size(_encoded(text)) <= limit:
        return text
    lines = [cut(line, TRACEBACK_LINE_BYTES) for line in text.split("\n")]
    head = _fitting(lines, limit * TRACEBACK_HEAD_SHARE)
    rest = lines[head:]
    tail = _fitting(rest[::-1], limit * (1 - TRACEBACK_HEAD_SHARE) - TRACEBACK_LINE_BYTES / 4)
    left_out = len(rest) - tail
    middle = [f"  … {left_out} lines are left out"] if left_out else []
    return "\n".join([*lines[:head], *middle, *rest[left_out:]])


def _fitting(lines: list[str], limit: float) -> int:
    """Return how many of the first lines take at most `limit` bytes."""
    taken = 0
    for number, line in enumerate(lines):
        taken += _size(_encoded(line))
        if taken > limit:
            return number
    return len(lines)


def _as_json(value: object, limit: int) -> str:
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return quoted(str.__str__(value), limit)
    if isinstance(value, int):
        return int.__repr__(value) if int.bit_length(value) <= _MOST_BITS else quoted(_text_of(value, limit), limit)
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else f'"{float.__repr__(value)}"'
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        text = _line_safe(json.dumps(_Items().plain(value, 0), ensure_ascii=False, allow_nan=False))
        return text if _size(text) <= limit else quoted(text, limit)
    return quoted(_text_of(value, limit), limit)


def _text_of(value: object, limit: int) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and int.bit_length(value) > _MOST_BITS:
        return f"(an integer of {int.bit_length(value)} bits)"
    if isinstance(value, (bytes, bytearray, memoryview)):
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        return repr(bytes(value[:limit])) + (f"… ({size} bytes)" if size > limit else "")
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        return _as_json(value, limit)
    return str(value)


class _Items:
    """Counts the items taken from a container."""

    def __init__(self) -> None:
        self._left = MOST_ITEMS

    def plain(self, value: object, level: int) -> object:
        """Return a bounded part of the value, without types that JSON lacks."""
        if isinstance(value, dict):
            pairs = self._some(dict.items(value), len(value), level)
            plain = {cut(_key(key), ITEM_BYTES): self.plain(item, level + 1) for key, item in pairs}
            return plain if len(pairs) == len(value) else {**plain, "…": f"({len(value)} items)"}
        if isinstance(value, (list, tuple, set, frozenset)):
            items = self._some(value, len(value), level)
            shown = [self.plain(item, level + 1) for item in items]
            return shown if len(items) == len(value) else [*shown, f"… ({len(value)} items)"]
        return json.loads(as_json(value, ITEM_BYTES))

    def _some(self, items: Any, count: int, level: int) -> list[Any]:
        most = min(count, self._left) if level < MOST_LEVELS else 0
        self._left -= most
        return list(islice(items, most))


def _key(key: object) -> str:
    try:
        return _text_of(key, ITEM_BYTES)
    except Exception as error:  # noqa: BLE001 - as above
        return _unprintable(key, error)


def _encoded(text: str) -> str:
    return _line_safe(_escaped(text))


def _line_safe(encoded: str) -> str:
    """Return JSON that is one line for every reader, and valid in UTF-8."""
    return encoded if encoded.isascii() and "\x7f" not in encoded else _UNSAFE.sub(_as_escape, encoded)


def _as_escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return "\ufffd" if code in _SURROGATES else f"\\u{code:04x}"


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code in _SURROGATES:
        return "\ufffd"
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _size(encoded: str) -> int:
    return len(encoded) if encoded.isascii() else len(encoded.encode())


def _unprintable(value: object, error: Exception) -> str:
    return f"(no text of {_name_of(value)}: {type(error).__name__})"


def _name_of(value: object) -> str:
    return type(value).__name__
