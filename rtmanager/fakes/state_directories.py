"""Games' directories that exist only as names, for tests that do not use their content."""

from __future__ import annotations

import threading

from rtmanager.domain.errors import DependencyError
from rtmanager.ports.runtime import StateDirectoryInvalid


class FakeStateDirectories:
    """Records the prepared directories in order.

    `invalid` maps a game id to what is wrong with its directory, `raises` maps it to an error of the state root. The
    directories of `lost` are missing until they are prepared.
    """

    def __init__(self, root: str = "/var/lib/galaxy-games") -> None:
        self.root = root
        self.prepared: list[str] = []
        self.invalid: dict[str, str] = {}
        self.raises: dict[str, DependencyError] = {}
        self.lost: set[str] = set()
        self._lock = threading.Lock()

    def check_root(self) -> None:
        """See `HostStateDirectories.check_root`; the key `""` in `invalid` stands for the root."""
        if "" in self.invalid:
            raise StateDirectoryInvalid(f"{self.root}: {self.invalid['']}")

    def path_of(self, game_id: str) -> str:
        return f"{self.root}/{game_id}"

    def is_missing(self, game_id: str) -> bool:
        """See the port."""
        with self._lock:
            if game_id in self.raises:
                raise self.raises[game_id]
            return game_id in self.lost

    def prepare(self, game_id: str) -> str:
        """See the port."""
        with self._lock:
            if game_id in self.invalid:
                raise StateDirectoryInvalid(f"{self.root}/{game_id}: {self.invalid[game_id]}")
            if game_id in self.raises:
                raise self.raises[game_id]
            self.prepared.append(game_id)
            self.lost.discard(game_id)
        return f"{self.root}/{game_id}"
