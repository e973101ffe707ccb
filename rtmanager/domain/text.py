"""Foreign text as a message may carry it: what a daemon or a registry says may have any length and content."""

from __future__ import annotations

import re

#: As much of it goes into one message, in characters.
LONGEST = 1000

#: How a text ends that was cut: cutting it again would say the length of the cut one.
_CUT = re.compile(r"… \([0-9]+ characters\)$")
#: Characters, for a set of a regular expression, that turn round how a terminal or a page shows what follows them.
BIDI_CONTROLS = "\u202a-\u202e\u2066-\u2069"
_UNPRINTABLE = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029{BIDI_CONTROLS}]")


def bounded(text: str, longest: int = LONGEST) -> str:
    """On one line, of bounded length, without what no store and no mail can hold."""
    # Cut first: the whole of it may have megabytes.
    line = " ".join(_UNPRINTABLE.sub(" ", text[: longest * 2]).split())
    line = line.encode("utf-8", "replace").decode("utf-8")
    was_cut = len(line) <= longest + 32 and _CUT.search(line) is not None
    if len(text) <= longest * 2 and (was_cut or len(line) <= longest):
        return line
    return f"{line[:longest]}… ({len(text)} characters)"
