"""Distinguishes store refusals of one game from refusals of every request of a kind.

A refusal may be caused by the game's data or by the table. A probe decides: the same request for a game that does not
exist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from rtmanager.domain.errors import FinalAnswer, Unavailable
from rtmanager.ports.store import StoreRejected

_REMEDY = "undo the constraint, trigger, right or change of a column that these words name"


class StoreRefusals:
    """Reports refusals, and keeps the kinds of requests that the store refuses for every game; thread-safe.

    `failed` counts each refusal and logs it at a bounded rate.
    """

    def __init__(self, failed: Callable[[str, FinalAnswer], object], logger: logging.Logger) -> None:
        self._failed = failed
        self._logger = logger
        self._standing: dict[str, Callable[[], object]] = {}

    def met(self, kind: str, error: FinalAnswer, probe: Callable[[], object]) -> bool:
        """Report a refused request; call `probe` and return whether every request of this kind is refused."""
        self._failed(kind, error)
        try:
            probe()
        except FinalAnswer as refusal:
            if self._standing.setdefault(kind, probe) is probe:
                extra = {"request": kind, "error": str(refusal)}
                self._logger.error("the store refuses every request of a kind", extra=extra)
            return True
        except Unavailable:
            return False  # reported elsewhere as an outage
        self.passed(kind)
        return False

    def passed(self, kind: str) -> None:
        """Record that a request of this kind was not refused."""
        if self._standing and self._standing.pop(kind, None) is not None:
            self._logger.info("the store refuses requests of a kind no more", extra={"request": kind})

    def check(self) -> None:
        """Raise `StoreRejected` while the store refuses a kind of request for every game. Readiness calls this."""
        for kind, probe in list(self._standing.items()):
            try:
                probe()
            except FinalAnswer as refusal:
                raise StoreRejected(f"the store refuses every {kind}: {refusal}; remedy: {_REMEDY}") from refusal
            except Unavailable:
                continue
            self.passed(kind)
