"""Reads a secret from the file that `<variable>_FILE` names, as mounted secrets of containers are used."""

from __future__ import annotations

import os
import stat

from rtmanager.config.parsers import InvalidSetting

SUFFIX = "_FILE"
#: Bytes that a file may have: no DSN or password is longer, a file of another kind often is.
MAX_BYTES = 64 << 10


def read(path: str) -> str:
    """Return the content of the file without the line ends at its end; never waits for a writer.

    Raises `InvalidSetting`, which has no part of the content.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidSetting("a regular file (a pipe or a directory is none)")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidSetting(f"a file that this user can read ({reason})") from error
    if len(content) > MAX_BYTES:
        raise InvalidSetting(f"a file of at most {MAX_BYTES} bytes")
    text = content.decode("utf-8", "surrogateescape").rstrip("\r\n")
    if not text.strip():
        raise InvalidSetting("a file with a secret (it is empty)")
    return text
