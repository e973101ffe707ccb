"""What the store refuses of requests: of one game, or of every request of a kind.

A refusal of one request may be about its game, or about nothing but the table. A probe tells them apart: the same for a
game that does not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from rtmanager.domain.errors import FinalAnswer, Unavailable
from rtmanager.ports.store import StoreRejected

_REMEDY = "undo the constraint, trigger, right or change of a column that these words name"


class StoreRefusals:
    """Reports refusals, and knows which kinds of requests are refused for every game; safe for any number of threads.

    `failed` counts each refusal and logs it, not too often.
    """

    def __init__(self, failed: Callable[[str, FinalAnswer], object], logger: logging.Logger) -> None:
        self._failed = failed
        self._logger = logger
        self._standing: dict[str, Callable[[], object]] = {}

    def met(self, kind: str, error: FinalAnswer, probe: Callable[[], object]) -> bool:
        """A request was refused; whether every request of this kind is. Calls `probe`."""
        self._failed(kind, error)
        try:
            probe()
        except FinalAnswer as refusal:
            if self._standing.setdefault(kind, probe) is probe:
                extra = {"request": kind, "error": str(refusal)}
                self._logger.error("the store refuses every request of a kind", extra=extra)
            return True
        except Unavailable:
            return False  # that is reported as such
        self.passed(kind)
        return False

    def passed(self, kind: str) -> None:
        """A request of this kind was not refused."""
        if self._standing and self._standing.pop(kind, None) is not None:
            self._logger.info("the store refuses requests of a kind no more", extra={"request": kind})

    def check(self) -> None:
        """Raise `StoreRejected` while a kind of requests is refused for every game. Readiness calls this."""
        for kind, probe in list(self._standing.items()):
            try:
                probe()
            except FinalAnswer as refusal:
                raise StoreRejected(f"the store refuses every {kind}: {refusal}; remedy: {_REMEDY}") from refusal
            except Unavailable:
                continue
            self.passed(kind)
