"""Failures of single games in work that is done for all: each is reported once, counted, and ends nothing."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from rtmanager.domain.errors import RuntimeManagerError, TemporaryAnswer, Unavailable
from rtmanager.domain.text import bounded
from rtmanager.workers.status import WorkerStatus

T = TypeVar("T")

#: Failures that are known at a time; one that is forgotten is reported again.
MOST = 10_000
#: Characters of an error that are logged.
LONGEST_ERROR = 500


class GameFailures:
    """What fails for which game, by the work that fails; safe for any number of threads.

    `counted` is called with the name of the work for each failure, reported or not. `status` gives the worker of that
    name: it fails as a whole when one game after another does.
    """

    def __init__(
        self,
        logger: logging.Logger,
        counted: Callable[[str], None] = lambda _: None,
        status: Callable[[str], WorkerStatus] | None = None,
    ) -> None:
        self._logger = logger
        self._counted = counted
        self._status = status or cache(lambda work: WorkerStatus(work, logger))
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()

    def report(self, work: str, game_id: str, error: BaseException) -> None:
        """The work failed for a game. A defect, which is no error of ours, comes with its traceback."""
        is_defect = not isinstance(error, RuntimeManagerError)
        if is_defect:
            self._status(work).noted(error, item=game_id)
        cause = f"{type(error).__name__}: {bounded(str(error), LONGEST_ERROR)}"
        key = (work, game_id)
        with self._lock:
            known = self._known.get(key) == cause
            self._known[key] = cause
            self._known.move_to_end(key)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        self._counted(work)
        if not known:
            self._logger.error(
                "work on a game failed, the others go on",
                extra={"work": work, "game_id": bounded(game_id, LONGEST_ERROR), "error": cause},
                exc_info=error if is_defect else None,
            )

    def guarded(self, work: str, game_id: str, do: Callable[[], T]) -> T | None:
        """Do a game's part of the work; None when it fails, and that is reported. Raises `Unavailable` for silence."""
        try:
            result = do()
        except TemporaryAnswer as error:
            self.report(work, game_id, error)
            return None
        except Unavailable:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever one game's data cause, the others go on
            self.report(work, game_id, error)
            return None
        self.succeeded(work, game_id)
        return result

    def succeeded(self, work: str, game_id: str) -> None:
        """The work was done for a game; a later failure is reported again."""
        self._status(work).succeeded()
        if self._known:
            with self._lock:
                self._known.pop((work, game_id), None)

    def failing(self) -> int:
        """How many games fail now, counted for each work."""
        with self._lock:
            return len(self._known)
