"""Checks whether the root of the games' directories has room, and is the file system that held them.

A root whose file system is not mounted is an empty directory of another one: a game would start there without its
state.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from rtmanager.adapters.free_space import Free
from rtmanager.ports.runtime import StateRootUnfit

#: Free inodes that a root needs: for a directory and some files in it.
MIN_INODES = 16
#: Games that a message names.
NAMED = 3

#: Returns some games on record that must have a directory.
KeptGames = Callable[[], Sequence[str]]


class StateRoot:
    """Checks one root through a descriptor of it. Thread-safe."""

    def __init__(self, path: str, min_free_bytes: int, kept_games: KeptGames) -> None:
        self._path = path
        self._min_free_bytes = min_free_bytes
        self._kept_games = kept_games
        #: Device and inode of the root in which the games' directories were found.
        self._known: tuple[int, int] | None = None

    def require_room(self, root: int) -> None:
        """Raise `StateRootUnfit` for a file system that is full, or nearly.

        Zero blocks or inodes in all mean unknown: some file systems report no size, or create inodes on demand.
        """
        if not self._min_free_bytes:
            return
        found = os.fstatvfs(root)
        free = Free.of(found)
        has_bytes = found.f_blocks == 0 or free.bytes >= self._min_free_bytes
        if has_bytes and (free.inodes is None or free.inodes >= MIN_INODES):
            return
        raise StateRootUnfit(
            f"state directory {self._path}: its file system has {free.bytes} bytes and {found.f_favail} inodes free, "
            f"expected at least {self._min_free_bytes} (RTMANAGER_GAME_STATE_MIN_FREE) and {MIN_INODES}; free some"
        )

    def require_games(self, root: int) -> None:
        """Raise `StateRootUnfit` when games are on record and none of the named ones has its directory here.

        Reads the records once per file system found under the path, and raises what reading them raises.
        """
        found = os.fstat(root)
        identity = (found.st_dev, found.st_ino)
        if identity == self._known:
            return
        games = self._kept_games()
        if games and not any(_exists(game_id, root) for game_id in games):
            raise StateRootUnfit(
                f"state directory {self._path}: no game on record has its directory in it (such as "
                f"{', '.join(games[:NAMED])}): another file system is mounted there, or none; mount the right one, or "
                "correct RTMANAGER_GAME_STATE_ROOT; if the games' state is lost, make the directory of one of them"
            )
        self._known = identity


def _exists(game_id: str, root: int) -> bool:
    with suppress(FileNotFoundError):
        os.stat(game_id, dir_fd=root, follow_symlinks=False)
        return True
    return False
