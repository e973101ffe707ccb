"""Checks the options of the log drivers that write files.

Docker checks the names of options when it creates a container, but reads most values only when it starts it. A wrong
value would pass every check and fail every start. Options of other drivers are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: The drivers that write files on Docker's host; they take the same options.
FILE_DRIVERS = frozenset({"json-file", "local"})

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?[kmgtp]?i?b?", re.IGNORECASE)
#: The spellings that Go accepts.
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def fault(driver: str, options: Mapping[str, str]) -> str:
    """Return why Docker starts no container with these options; empty if it does, and for drivers without files."""
    if driver not in FILE_DRIVERS:
        return ""
    size, files, compress = (options.get(name) for name in ("max-size", "max-file", "compress"))
    if size is not None and not _is_size(size, least=0 if driver == "local" else 1):
        return f"max-size={size} is not a size such as 10m"
    if files is not None and not (re.fullmatch(r"[0-9]{1,9}", files) and int(files) > 0):
        return f"max-file={files} is not a whole number of 1 or more"
    if compress is not None and compress not in _TRUE | _FALSE:
        return f"compress={compress} is not true or false"
    if driver == "local" and files == "1" and compress not in _FALSE:
        return "max-file=1 needs compress=false: the driver local compresses the older files"
    if driver == "json-file" and compress in _TRUE and not (size and int(files or 1) > 1):
        return "compress=true needs max-size, and a max-file of 2 or more"
    return ""


def unbounded(driver: str, options: Mapping[str, str]) -> bool:
    """Return whether logs grow without a limit, unless Docker's own configuration has one."""
    return driver == "json-file" and "max-size" not in options


def _is_size(text: str, least: int) -> bool:
    match = _SIZE.fullmatch(text)
    return match is not None and (float(match[1]) > 0 or least == 0)
