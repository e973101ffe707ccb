"""Measures the free space of the file systems that games need: the state root's, and the daemon's where visible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from rtmanager.domain.errors import DependencyError


class Space(Protocol):
    """The free space of a file system; `inodes` is None where the file system does not count them."""

    @property
    def bytes(self) -> int: ...

    @property
    def inodes(self) -> int | None: ...


class Gauge(Protocol):
    """A metric whose samples are replaced as a whole, by label values."""

    def replace(self, samples: Mapping[tuple[str, ...], float]) -> None: ...


class FreeSpaceMeter:
    """One step measures each place once. A place that cannot be measured has no sample."""

    def __init__(
        self, places: Mapping[str, Callable[[], Space | None]], *, free_bytes: Gauge, free_inodes: Gauge
    ) -> None:
        self._places = places
        self._free_bytes = free_bytes
        self._free_inodes = free_inodes

    def step(self) -> bool:
        """Return False: once a period is enough."""
        known: dict[tuple[str, ...], Space] = {}
        for place, measure in self._places.items():
            # Readiness reports a daemon that does not answer; the other places are measured all the same.
            with suppress(DependencyError):
                if (space := measure()) is not None:
                    known[(place,)] = space
        self._free_bytes.replace({place: space.bytes for place, space in known.items()})
        self._free_inodes.replace({place: space.inodes for place, space in known.items() if space.inodes is not None})
        return False
