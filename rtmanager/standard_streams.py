"""Keeps the standard streams usable: closed ones, a pipe without a reader, a full disk.

If a stream fails, Python exits with a traceback or the exit code 120. If one is closed, the next file or socket that is
opened gets its number.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


def usable_streams() -> None:
    """Open all three descriptors, with streams on the last two that can encode any text."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdout, sys.stderr = _usable(sys.stdout, 1), _usable(sys.stderr, 2)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line to stdout, or to `stream`; a failed write is ignored."""
    target = stream or sys.stdout
    try:
        target.write(f"{text}\n")
        target.flush()
    except (OSError, ValueError):
        _give_up(target)


def settle_streams() -> None:
    """Write what is buffered, so that the interpreter's own flush at exit cannot fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _give_up(stream)


def _usable(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        return open(descriptor, "w", errors="backslashreplace", closefd=False)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def _give_up(stream: TextIO) -> None:
    """Redirect a stream that nobody reads to the null device, with its buffered text."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # it has no descriptor, or is closed: then nothing is written at the end either
        return
