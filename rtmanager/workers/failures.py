"""Isolates the failure of one game in work that covers all games: counts it, logs it and goes on."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from time import monotonic
from typing import TypeVar

from rtmanager.domain.errors import RuntimeManagerError, TemporaryAnswer, Unavailable
from rtmanager.domain.text import bounded
from rtmanager.workers.status import FAILURES_IN_A_ROW, Clock, Row, WorkerStatus

T = TypeVar("T")

#: Stands for a game id when the work covered all games at once.
ALL_GAMES = "(all)"
#: Failures that are kept; a dropped one is logged again when it repeats.
MOST = 10_000
#: Failing games that `failing` lists.
MOST_LISTED = 1_000
#: Characters of an error's text that are logged.
LONGEST_ERROR = 500
#: Distinct causes that are logged for one game; some texts differ each time, by an address or a number.
MOST_CAUSES = 5
#: Seconds between two log lines about a game that keeps failing for known causes.
LOGGED_EVERY_S = 3600.0


@dataclass(slots=True)
class _Failing:
    """The failures of one game in one kind of work."""

    logged_at: float
    row: Row = field(default_factory=Row)
    causes: set[str] = field(default_factory=set)

    def again(self, now: float, cause: str) -> bool:
        """Count a failure; return whether to log it."""
        self.row.add(now)
        is_new = cause not in self.causes and len(self.causes) < MOST_CAUSES
        if not is_new and now - self.logged_at < LOGGED_EVERY_S:
            return False
        if is_new:
            self.causes.add(cause)
        self.logged_at = now
        return True

    def is_listed(self, now: float) -> bool:
        """Whether the game fails repeatedly, and the last failure is recent."""
        return self.row.number >= FAILURES_IN_A_ROW and not self.row.is_forgotten(now)


class GameFailures:
    """Failures by work and game; thread-safe.

    `counted` is called with the name of the work for each failure, logged or not. `status` returns the worker of that
    name; it counts as failing when several games fail in a row. A game that fails repeatedly is in `failing`, and in
    the log once an hour.
    """

    def __init__(
        self,
        logger: logging.Logger,
        counted: Callable[[str], None] = lambda _: None,
        status: Callable[[str], WorkerStatus] | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._logger = logger
        self._counted = counted
        self._status = status or cache(lambda work: WorkerStatus(work, logger))
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], _Failing] = OrderedDict()

    def report(self, work: str, game_id: str, error: BaseException) -> None:
        """Count a failure of a game. A defect (no `RuntimeManagerError`) is logged with its traceback."""
        if game_id != ALL_GAMES:  # each game is tried by itself next
            self._status(work).noted(error, item=game_id)
        cause, now = f"{type(error).__name__}: {bounded(str(error), LONGEST_ERROR)}", self._clock()
        with self._lock:
            key = (work, game_id)
            known = self._known.setdefault(key, _Failing(now))
            is_due, in_a_row = known.again(now, cause), known.row.number
            self._known.move_to_end(key)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        self._counted(work)
        if is_due:
            game = bounded(game_id, LONGEST_ERROR)
            self._logger.error(
                "work on a game failed, the others go on",
                extra={"work": work, "game_id": game, "error": cause, "failures": in_a_row},
                exc_info=None if isinstance(error, RuntimeManagerError) else error,
            )

    def guarded(self, work: str, game_id: str, do: Callable[[], T]) -> T | None:
        """Run `do` for one game; report a failure and return None. Raises `Unavailable`, but no `TemporaryAnswer`."""
        try:
            result = do()
        except TemporaryAnswer as error:
            self.report(work, game_id, error)
            return None
        except Unavailable:
            raise
        except BaseException as error:  # noqa: BLE001 - an error caused by one game's data must not stop the others
            self.report(work, game_id, error)
            return None
        self.succeeded(work, game_id)
        return result

    def succeeded(self, work: str, game_id: str) -> None:
        """Record a success for a game; its next failure is logged again."""
        self._status(work).succeeded()
        if self._known:
            with self._lock:
                self._known.pop((work, game_id), None)

    def failing(self) -> Mapping[tuple[str, ...], float]:
        """Failures in a row by work and game, of the latest `MOST_LISTED` games that fail repeatedly."""
        now = self._clock()
        with self._lock:
            latest = [(key, known.row.number) for key, known in reversed(self._known.items()) if known.is_listed(now)]
        return dict(latest[:MOST_LISTED])
