"""Foreign text as a message may carry it: what a daemon or a registry says may have any length and content."""

from __future__ import annotations

import re

#: As much of it goes into one message, in characters.
LONGEST = 1000

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def bounded(text: str, longest: int = LONGEST) -> str:
    """On one line, of bounded length, without what no store and no mail can hold."""
    # Cut first: the whole of it may have megabytes.
    line = " ".join(_UNPRINTABLE.sub(" ", text[: longest * 2]).split())
    line = line.encode("utf-8", "replace").decode("utf-8")
    if len(line) <= longest and len(text) <= longest * 2:
        return line
    return f"{line[:longest]}… ({len(text)} characters)"
