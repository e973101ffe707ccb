"""Bounds external text for messages: a daemon or a registry may return any length and content."""

from __future__ import annotations

import re

#: Longest external text in one message, in characters.
LONGEST = 1000

#: Mark of a text that was cut already: a second cut would report the length of the cut text.
_CUT = re.compile(r"… \([0-9]+ characters\)$")
#: Characters, for a set of a regular expression, that change the direction in which a terminal or a page shows text.
BIDI_CONTROLS = "\u202a-\u202e\u2066-\u2069"
_UNPRINTABLE = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029{BIDI_CONTROLS}]")


def bounded(text: str, longest: int = LONGEST) -> str:
    """Return the text on one line, of bounded length, without what a store or a mail cannot hold."""
    # Cut before the substitution: the text may have megabytes.
    line = " ".join(_UNPRINTABLE.sub(" ", text[: longest * 2]).split())
    line = line.encode("utf-8", "replace").decode("utf-8")
    was_cut = len(line) <= longest + 32 and _CUT.search(line) is not None
    if len(text) <= longest * 2 and (was_cut or len(line) <= longest):
        return line
    return f"{line[:longest]}… ({len(text)} characters)"
