"""Measures the free space of the file systems that games need: the state root's and Docker's, where it is visible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from rtmanager.domain.errors import DependencyError


class Space(Protocol):
    """What is left of a file system; `inodes` is None where they are not counted."""

    @property
    def bytes(self) -> int: ...

    @property
    def inodes(self) -> int | None: ...


class Gauge(Protocol):
    """All present values, by label."""

    def replace(self, samples: Mapping[tuple[str, ...], float]) -> None: ...


class FreeSpaceMeter:
    """One step measures each place once. A place of which nothing is known has no value."""

    def __init__(
        self, places: Mapping[str, Callable[[], Space | None]], *, free_bytes: Gauge, free_inodes: Gauge
    ) -> None:
        self._places = places
        self._free_bytes = free_bytes
        self._free_inodes = free_inodes

    def step(self) -> bool:
        """Always False: once a period is enough."""
        known: dict[tuple[str, ...], Space] = {}
        for place, measure in self._places.items():
            # Readiness reports a daemon that does not answer; the other place is measured all the same.
            with suppress(DependencyError):
                if (space := measure()) is not None:
                    known[(place,)] = space
        self._free_bytes.replace({place: space.bytes for place, space in known.items()})
        self._free_inodes.replace({place: space.inodes for place, space in known.items() if space.inodes is not None})
        return False
