"""The standard streams of a process of ours, whatever became of them: closed, a pipe without a reader, a full disk.

Python makes a traceback or the exit code 120 of a stream that takes nothing any more, and lets the next file or socket
that is opened have the number of one that is closed.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


def usable_streams() -> None:
    """Have all three descriptors open, streams on the last two, and no text that their encoding cannot hold."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdout, sys.stderr = _usable(sys.stdout, 1), _usable(sys.stderr, 2)


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line to stdout, or to `stream`; nobody has to read it."""
    target = stream or sys.stdout
    try:
        target.write(f"{text}\n")
        target.flush()
    except (OSError, ValueError):
        _give_up(target)


def settle_streams() -> None:
    """Write what is buffered, so that the interpreter finds nothing left to fail with."""
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
    """Nobody reads it: from now on it leads nowhere, and so does what is buffered."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # it has no descriptor, or is closed: then nothing is written at the end either
        return
