"""Games that deserve a look: each is looked at by one thread at a time, soon, and again until it is settled.

Events and passes only name games here and go on; what they name is merged. A game whose look takes long (Docker
hangs on its container, an operation is under way) delays no other.
"""

from __future__ import annotations

import heapq
import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from rtmanager.domain.errors import DependencyError, FinalAnswer, TemporaryAnswer, Unavailable
from rtmanager.domain.health import HealthSource
from rtmanager.operations.troubles import StoreWaits
from rtmanager.workers.failures import GameFailures
from rtmanager.workers.status import WorkerStatus

#: What a failure here is counted as.
WORK = "attention"
#: Games that are looked at side by side.
THREADS = 8
#: Pause before a game that is not settled is looked at again, doubling up to the longest.
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
#: Pause of a thread whose look got no answer.
AWAY_PAUSE_S = 0.5
#: How long a close waits for the looks under way, each of which has a deadline.
LEFT_AFTER_S = 60.0
#: Attempts without an answer after which a warning is logged; after as many again a temporary answer is a failure.
TRIES_UNTIL_TOLD = 30
#: As many more looks are made at a game after one that was refused.
TRIES_WHEN_REFUSED = 3


@dataclass(frozen=True, slots=True)
class Hint:
    """What is known about why to look: events of `containers`, or a pass that listed them as different.

    `oom` holds the time of an out-of-memory event by container.
    """

    source: HealthSource = HealthSource.INSPECT
    containers: frozenset[str] = frozenset()
    oom: Mapping[str, int] = field(default_factory=dict)
    #: Containers that somebody asked to end by a signal.
    asked: frozenset[str] = frozenset()
    #: Containers that died without a signal of which an event told.
    unexplained: frozenset[str] = frozenset()
    #: Whether a pass named the game; events alone say something of a running game only.
    listed: bool = False

    def merged(self, other: Hint) -> Hint:
        """Both; an event says more than a look."""
        event = HealthSource.DOCKER_EVENT
        return Hint(
            source=event if event in (self.source, other.source) else self.source,
            containers=self.containers | other.containers,
            oom={**self.oom, **other.oom},
            asked=self.asked | other.asked,
            unexplained=self.unexplained | other.unexplained,
            listed=self.listed or other.listed,
        )


@dataclass(slots=True)
class _Case:
    hint: Hint
    due: float
    tries: int = 0


class Attention:
    """`settle` looks at one game; False or `Unavailable` from it means to look again."""

    def __init__(
        self,
        settle: Callable[[str, Hint], bool],
        *,
        logger: logging.Logger,
        failures: GameFailures | None = None,
        threads: int = THREADS,
        status: WorkerStatus | None = None,
    ) -> None:
        self._settle = settle
        self._logger = logger
        self._status = status or WorkerStatus(WORK, logger)
        self._status.watch(self._has_lost_a_thread)
        self._failures = failures or GameFailures(logger, status=lambda _: self._status)
        #: A game that waits is looked at again until it is settled, so none is ever forgotten.
        self.store_waits = StoreWaits(logger, "games to reconcile", forgotten_after_s=math.inf)
        self._started = False
        self._changed = threading.Condition()
        self._cases: dict[str, _Case] = {}
        self._queue: list[tuple[float, str]] = []
        self._working: set[str] = set()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"rtm-attention-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()
        self._started = True

    def _has_lost_a_thread(self) -> bool:
        lost = not all(thread.is_alive() for thread in self._threads)
        return self._started and not self._closing.is_set() and lost

    def close(self) -> None:
        """Forget what waits and wait for the looks under way; what they wait for should be closed by now."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        until = monotonic() + LEFT_AFTER_S
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))
            if thread.is_alive():
                self._logger.error("a look at a game does not end, its thread is left", extra={"left": thread.name})

    def look(self, game_id: str, hint: Hint | None = None, *, delay_s: float = 0.0) -> None:
        """Let a game be looked at in `delay_s` seconds, or earlier if it was to be anyway."""
        self._put(game_id, _Case(hint or Hint(), monotonic() + delay_s))

    def wait_until_looked(self, stuck_s: float) -> bool:
        """Wait until every game has been looked at once; False when for `stuck_s` seconds none has."""
        with self._changed:
            left = self._not_looked_at()
            while left:
                before = left
                if not self._changed.wait_for(lambda: self._not_looked_at() < before, stuck_s):  # noqa: B023 - used at once
                    return False
                left = self._not_looked_at()
        return True

    def _not_looked_at(self) -> int:
        return len(self._working) + sum(not case.tries for case in self._cases.values())

    def _put(self, game_id: str, case: _Case) -> None:
        with self._changed:
            waiting = self._cases.get(game_id)
            if waiting is not None:
                case.hint = waiting.hint.merged(case.hint)
                case.due = min(waiting.due, case.due)
            self._cases[game_id] = case
            heapq.heappush(self._queue, (case.due, game_id))
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                taken = self._take()
                while taken is None and not self._closing.is_set():
                    self._changed.wait(self._until_next())
                    taken = self._take()
                if self._closing.is_set() or taken is None:
                    return
            game_id, case = taken
            again = self._look(game_id, case)
            with self._changed:
                self._working.discard(game_id)
                if again:
                    case.tries += 1
                    pause = min(FIRST_PAUSE_S * 2 ** min(case.tries - 1, 10), LONGEST_PAUSE_S)
                    case.due = monotonic() + pause
                    self._put(game_id, case)
                self._changed.notify_all()

    def _look(self, game_id: str, case: _Case) -> bool:
        """Whether to look again."""
        self._status.began()
        waits = False
        try:
            settled = self._settle(game_id, case.hint)
        except TemporaryAnswer as error:
            self._report_away(game_id, case, error)
            return True
        except Unavailable as error:
            waits = error.dependency == "postgres"
            if waits:
                self.store_waits.failed(f"game {game_id}", error)
            self._report_away(game_id, case, error)
            # The thread itself waits: while nothing answers, thousands of games are not asked about each second.
            self._closing.wait(AWAY_PAUSE_S)
            return True
        except BaseException as error:  # noqa: BLE001 - whatever one game's data cause, the others go on
            # The same answer again, most likely: a few looks more, then the next pass names the game again.
            if isinstance(error, FinalAnswer) and case.tries < TRIES_WHEN_REFUSED:
                self._report_away(game_id, case, error)
                return True
            self._failures.report(WORK, game_id, error)
            return False
        finally:
            self._status.paused()
            if not waits:
                self.store_waits.over(f"game {game_id}")
        self._failures.succeeded(WORK, game_id)
        return not settled

    def _report_away(self, game_id: str, case: _Case, error: DependencyError) -> None:
        """Log an attempt without a usable answer; one that goes on for long by an answer counts as a failure."""
        is_long = case.tries > 0 and case.tries % TRIES_UNTIL_TOLD == 0
        if is_long and isinstance(error, TemporaryAnswer):
            self._failures.report(WORK, game_id, error)
            return
        level = logging.WARNING if case.tries == TRIES_UNTIL_TOLD else logging.DEBUG
        extra = {"game_id": game_id, "error": str(error), "tries": case.tries}
        self._logger.log(level, "a game cannot be looked at", extra=extra)

    def _take(self) -> tuple[str, _Case] | None:
        """The game that has been due for the longest time and that nobody looks at."""
        passed_over = []
        taken = None
        while self._queue and self._queue[0][0] <= monotonic():
            due, game_id = heapq.heappop(self._queue)
            case = self._cases.get(game_id)
            if case is None or case.due != due:
                continue  # merged into another entry, or taken
            if game_id in self._working:
                passed_over.append((due, game_id))
                continue
            del self._cases[game_id]
            self._working.add(game_id)
            taken = game_id, case
            break
        for entry in passed_over:
            heapq.heappush(self._queue, entry)
        return taken

    def _until_next(self) -> float | None:
        """How long nothing is due; None when nothing waits. What a look under way holds back wakes us by its end."""
        if self._queue and self._queue[0][1] not in self._working:
            return max(0.0, self._queue[0][0] - monotonic())
        due = min((due for due, game_id in self._queue if game_id not in self._working), default=None)
        return None if due is None else max(0.0, due - monotonic())
