"""Checks the root of the games' directories, so that a fault of the host is logged once and not per game."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rtmanager.domain.errors import RuntimeManagerError, with_remedy

#: Seconds between two checks.
PERIOD_S = 15.0


class StateRootWatch:
    """One step checks the root and logs a change. `check` raises `RuntimeManagerError` for a bad root."""

    def __init__(self, check: Callable[[], None], logger: logging.Logger) -> None:
        self._check = check
        self._logger = logger
        #: What is wrong with the root; empty when nothing is.
        self.problem = ""

    def step(self) -> bool:
        """Return False: once a period is enough."""
        before, self.problem = self.problem, self._found()
        if self.problem and not before:
            self._logger.error("the state root cannot take games", extra={"error": self.problem})
        elif before and not self.problem:
            self._logger.info("the state root can take games again")
        return False

    @property
    def usable(self) -> bool:
        """Whether games can be started in the root, by the last check."""
        return not self.problem

    def _found(self) -> str:
        try:
            self._check()
        except RuntimeManagerError as error:
            return with_remedy(error)
        return ""
