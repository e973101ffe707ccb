"""Measures a file system's free space on a thread of its own, since no timeout ends a call to one that hangs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from rtmanager.threads import Thread

#: Seconds that a measurement may take; a slower file system counts as unknown.
LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Free:
    """Free space for a process that is not root. `inodes` is None where the file system does not count them."""

    bytes: int
    inodes: int | None

    @classmethod
    def of(cls, found: os.statvfs_result) -> Free:
        """Convert the system's answer about a file system."""
        return cls(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


class FreeSpace:
    """Measures the file system of the directory that `path` returns; None means that it is not visible here."""

    def __init__(self, path: Callable[[], str | None]) -> None:
        self._path = path
        self._ended = threading.Event()
        self._ended.set()
        self._found: Free | None = None

    def measure(self) -> Free | None:
        """Return the free space; None when the directory is missing or its file system is silent. For one thread."""
        if self._ended.is_set():
            self._found = None
            path = self._path()
            thread = Thread(self._measure, "rtm-free-space", (path,))
            self._ended.clear()
            try:
                thread.start()
            except BaseException:
                self._ended.set()
                raise
        return self._found if self._ended.wait(LIMIT_S) else None

    def _measure(self, path: str | None) -> None:
        try:
            self._found = None if path is None else _free(path)
        finally:
            self._ended.set()


def _free(path: str) -> Free | None:
    try:
        return Free.of(os.statvfs(path))
    except OSError:
        return None
