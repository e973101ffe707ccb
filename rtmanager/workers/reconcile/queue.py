"""De-duplicating work queue of games to reconcile: one worker thread per game, retried with back-off until settled.

Events and passes only add games; hints about the same game are merged. A game that takes long (Docker hangs on its
container, an operation is under way) delays no other: while attempts take long, further threads are started.
"""

from __future__ import annotations

import heapq
import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic

from rtmanager.domain.errors import DependencyError, FinalAnswer, TemporaryAnswer, Unavailable
from rtmanager.domain.health import HealthSource
from rtmanager.operations.troubles import StoreWaits
from rtmanager.threads import Thread
from rtmanager.workers.failures import GameFailures
from rtmanager.workers.status import WorkerStatus

#: Work under which a failure is counted.
WORK = "attention"
#: Attempts under way at once, not counting those that take long; and threads in all.
THREADS = 8
MOST_THREADS = 32
#: Seconds after which an attempt takes long. A game is silent when such an attempt gets no answer from Docker.
LONG_S = 1.0
#: Long attempts in a row without an answer after which a warning is logged.
SILENCES_UNTIL_WARNING = 3
#: Seconds that a game may wait for its first attempt before `problem` reports it.
WAITS_REPORTED_AFTER_S = 10.0
#: Seconds before a game that is not settled is retried, doubling from the first to the longest.
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
#: The same pauses for a silent game. At most half of `THREADS` attempts at once are at silent games.
FIRST_SILENT_PAUSE_S = 1.0
LONGEST_SILENT_PAUSE_S = 20.0
#: Seconds that a thread pauses after an attempt without an answer.
AWAY_PAUSE_S = 0.5
#: Waiting games above which hints of events are dropped, and containers of one hint. After hints were dropped, a pass
#: follows when there is room again. The hints of a pass are always kept, since its list is bounded.
MOST_CASES, MOST_CONTAINERS = 20_000, 64
#: Seconds that a close waits for the attempts under way, each of which has a deadline.
LEFT_AFTER_S = 60.0
#: Failed attempts before a warning is logged; every so many attempts a temporary answer counts as a failure.
TRIES_UNTIL_WARNING = 30
#: Retries of a game after a final answer, before that counts as a failure.
TRIES_WHEN_REFUSED = 3


@dataclass(frozen=True, slots=True)
class ReconcileHint:
    """Why a game is to be reconciled: events about `containers`, or a pass that listed them as different.

    `oom` holds the time of an out-of-memory event by container, in nanoseconds since the epoch; 0: not known.
    """

    source: HealthSource = HealthSource.INSPECT
    containers: frozenset[str] = frozenset()
    oom: dict[str, int] = field(default_factory=dict)
    #: Containers that got a stop signal or SIGKILL.
    signalled: frozenset[str] = frozenset()
    #: Containers whose end an event reported.
    died: frozenset[str] = frozenset()
    #: Those of them without an event of a signal; each waits once for an out-of-memory event.
    unexplained: frozenset[str] = frozenset()
    #: Containers that a pass found ended and whose event has been waited for.
    waited_for: frozenset[str] = frozenset()
    #: Whether a pass named the game; events alone concern only a running game.
    listed: bool = False
    #: Containers that a pass listed as created to replace the game's and not started.
    unstarted: frozenset[str] = frozenset()

    def merged(self, other: ReconcileHint) -> ReconcileHint:
        """Both hints as one; an event outranks a pass. Of more than `MOST_CONTAINERS` only those of `other` stay."""
        event = HealthSource.DOCKER_EVENT
        return ReconcileHint(
            source=event if event in (self.source, other.source) else self.source,
            containers=_bounded(self.containers, other.containers),
            oom=self.oom | other.oom if len(self.oom) < MOST_CONTAINERS else other.oom,
            signalled=_bounded(self.signalled, other.signalled),
            died=_bounded(self.died, other.died),
            unexplained=_bounded(self.unexplained, other.unexplained),
            waited_for=_bounded(self.waited_for, other.waited_for),
            listed=self.listed or other.listed,
            unstarted=_bounded(self.unstarted, other.unstarted),
        )


def _bounded(older: frozenset[str], newer: frozenset[str]) -> frozenset[str]:
    both = older | newer
    return both if len(both) <= MOST_CONTAINERS else newer


@dataclass(slots=True)
class _Case:
    hint: ReconcileHint
    due: float
    tries: int = 0
    #: Attempts in a row that took long and got no answer.
    silences: int = 0

    def joined(self, newer: _Case) -> _Case:
        """Both cases as one. Only an event brings the attempt at a silent game forward."""
        hastens = not self.silences or newer.hint.source is HealthSource.DOCKER_EVENT
        due = min(self.due, newer.due) if hastens else self.due
        return _Case(self.hint.merged(newer.hint), due, newer.tries, self.silences)


class ReconcileQueue:
    """Calls `settle` for each queued game; False or `Unavailable` from it means to retry."""

    def __init__(
        self,
        settle: Callable[[str, ReconcileHint], bool],
        *,
        logger: logging.Logger,
        failures: GameFailures | None = None,
        threads: int = THREADS,
        most_threads: int = MOST_THREADS,
        status: WorkerStatus | None = None,
        room: Callable[[], None] = lambda: None,
    ) -> None:
        """`room` is called when the queue has room again after hints were dropped."""
        self._settle = settle
        self._logger = logger
        self._status = status or WorkerStatus(WORK, logger)
        self._status.watch(self._has_lost_a_thread)
        self._failures = failures or GameFailures(logger, status=lambda _: self._status)
        #: A waiting game is retried until it is settled, so none is ever forgotten.
        self.store_waits = StoreWaits(logger, "games to reconcile", forgotten_after_s=math.inf)
        self._started = False
        self._changed = threading.Condition()
        self._cases: dict[str, _Case] = {}
        self._queue: list[tuple[float, str]] = []
        self._silent_queue: list[tuple[float, str]] = []
        #: When the attempts under way began, by game; and which of them are at silent games.
        self._working: dict[str, float] = {}
        self._working_silent: set[str] = set()
        self._closing = threading.Event()
        self._at_once = threads
        self._most_threads = most_threads
        self._room = room
        self._has_dropped = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        with self._changed:
            while len(self._threads) < self._at_once:
                self._add_thread()
            self._started = True

    def _add_thread(self) -> None:
        name = f"rtm-attention-{len(self._threads)}"
        try:
            thread = Thread(self._work, name, lasting=True)
            thread.start()
        except (RuntimeError, MemoryError):  # no further thread can be started; the existing ones go on
            if len(self._threads) < self._at_once:
                raise
            return
        self._threads.append(thread)

    def _has_lost_a_thread(self) -> bool:
        lost = not all(thread.is_alive() for thread in self._threads)
        return self._started and not self._closing.is_set() and lost

    def close(self) -> None:
        """Drop the waiting games and wait for the attempts under way; their dependencies should be closed by now."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            threads = list(self._threads)
        until = monotonic() + LEFT_AFTER_S
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))
            if thread.is_alive():
                self._logger.error("a look at a game does not end, its thread is left", extra={"left": thread.name})

    def add(self, game_id: str, hint: ReconcileHint | None = None, *, delay_s: float = 0.0) -> None:
        """Queue a game for `delay_s` seconds from now; an earlier due time that it already has is kept."""
        case = _Case(hint or ReconcileHint(), monotonic() + delay_s)
        with self._changed:
            waiting = self._cases.get(game_id)
            if waiting is None and not case.hint.listed and len(self._cases) >= MOST_CASES:
                self._has_dropped = True
                return
            self._put(game_id, case if waiting is None else waiting.joined(case))
            self._changed.notify()

    def attempt_now(self, hints: Mapping[str, ReconcileHint], within_s: float) -> None:
        """Attempt these games at once; wait up to `within_s` seconds until each has had an attempt."""
        for game_id, hint in hints.items():
            self.add(game_id, hint)
        with self._changed:
            self._changed.wait_for(lambda: not any(map(self._awaits_attempt, hints)), within_s)

    def _awaits_attempt(self, game_id: str) -> bool:
        case = self._cases.get(game_id)
        return game_id in self._working or (case is not None and not case.tries)

    def wait_until_attempted(self, stuck_s: float) -> bool:
        """Wait until every game has had one attempt; False when none ends for `stuck_s` seconds."""
        with self._changed:
            left = self._without_attempt()
            while left:
                before = left
                if not self._changed.wait_for(lambda: self._without_attempt() < before, stuck_s):  # noqa: B023 - used at once
                    return False
                left = self._without_attempt()
        return True

    def _without_attempt(self) -> int:
        return len(self._working) + sum(not case.tries for case in self._cases.values())

    def problem(self) -> str:
        """A text that names the longest attempt while a due game waits too long; empty while none does."""
        now = monotonic()
        with self._changed:
            waiting = (case for game_id, case in self._cases.items() if game_id not in self._working)
            first = min((case.due for case in waiting if not case.silences), default=now)
            hung = sum(now - began >= LONG_S for began in self._working.values())
            if now - first < WAITS_REPORTED_AFTER_S or not hung:
                return ""
            game_id, began = min(self._working.items(), key=lambda one: one[1])
        return (
            f"a game has waited for {now - first:.0f} s to be compared with its containers: {hung} of these looks "
            f"take long, the one at game {game_id} {now - began:.0f} s; `docker inspect` its container"
        )

    def _put(self, game_id: str, case: _Case) -> None:
        waiting = self._cases.get(game_id)
        self._cases[game_id] = case
        if waiting is not None and (waiting.due, waiting.silences > 0) == (case.due, case.silences > 0):
            return  # its entry in the queue stays valid
        heapq.heappush(self._silent_queue if case.silences else self._queue, (case.due, game_id))

    def _work(self) -> None:
        while True:
            with self._changed:
                taken = self._take()
                while taken is None and not self._closing.is_set():
                    self._changed.wait(self._until_next())
                    taken = self._take()
                if self._closing.is_set() or taken is None:
                    return
                if len(self._working) >= len(self._threads) < self._most_threads:
                    self._add_thread()
            game_id, case = taken
            again = True
            try:
                again = self._attempt(game_id, case)
            finally:
                with self._changed:
                    self._end(game_id, case, again=again)
                    self._changed.notify_all()

    def _end(self, game_id: str, case: _Case, *, again: bool) -> None:
        """Remove an ended attempt, and queue it again if needed; an answer from a silent game brings others forward."""
        del self._working[game_id]
        if game_id in self._working_silent:
            self._working_silent.discard(game_id)
            if not case.silences:
                self._hasten_silent()
        if not again:
            return
        case.tries += 1
        if case.silences:
            pause = min(FIRST_SILENT_PAUSE_S * 2 ** min(case.silences - 1, 10), LONGEST_SILENT_PAUSE_S)
        else:
            pause = min(FIRST_PAUSE_S * 2 ** min(case.tries - 1, 10), LONGEST_PAUSE_S)
        case.due = monotonic() + pause
        if (newer := self._cases.get(game_id)) is not None:
            case = replace(case.joined(newer), tries=case.tries)
        self._put(game_id, case)

    def _hasten_silent(self) -> None:
        now = monotonic()
        for game_id, case in self._cases.items():
            if case.silences and case.due > now:
                case.due = now
                heapq.heappush(self._silent_queue, (now, game_id))

    def _attempt(self, game_id: str, case: _Case) -> bool:
        """Make one attempt; return whether to retry."""
        self._status.began()
        silences, case.silences = case.silences, 0
        waits = False
        began = monotonic()
        try:
            settled = self._settle(game_id, case.hint)
        except TemporaryAnswer as error:
            self._report_away(game_id, case, error)
            return True
        except Unavailable as error:
            waits = error.dependency == "postgres"
            if waits:
                self.store_waits.failed(f"game {game_id}", error)
            if error.dependency == "docker" and monotonic() - began >= LONG_S:
                case.silences = silences + 1
            self._report_away(game_id, case, error)
            if not case.silences:
                # The thread itself pauses, so that an outage does not cause thousands of attempts a second.
                self._closing.wait(AWAY_PAUSE_S)
            return True
        except BaseException as error:  # noqa: BLE001 - an error caused by one game's data must not stop the others
            # Most likely the answer stays the same: retry a few times, then leave the game to the next pass.
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
        """Log a failed attempt; a temporary answer that persists counts as a failure."""
        is_long = case.tries > 0 and case.tries % TRIES_UNTIL_WARNING == 0
        if is_long and isinstance(error, TemporaryAnswer):
            self._failures.report(WORK, game_id, error)
            return
        is_warning = case.tries == TRIES_UNTIL_WARNING or case.silences == SILENCES_UNTIL_WARNING
        level = logging.WARNING if is_warning else logging.DEBUG
        extra = {"game_id": game_id, "error": str(error), "tries": case.tries}
        self._logger.log(level, "a game cannot be reconciled", extra=extra)

    def _take(self) -> tuple[str, _Case] | None:
        """Take the game that has been due the longest and has no attempt under way; silent games come last."""
        if self._until_free() > 0:
            return None
        found = self._first_due(self._queue)
        if found is None and len(self._working_silent) < self._at_once / 2:
            found = self._first_due(self._silent_queue)
        if found is None:
            return None
        case = self._cases.pop(found)
        if self._has_dropped and len(self._cases) <= MOST_CASES / 2:
            self._has_dropped = False
            self._room()
        self._working[found] = monotonic()
        if case.silences:
            self._working_silent.add(found)
        return found, case

    def _until_free(self) -> float:
        """Seconds until another attempt may begin, since those that take long no longer count; 0: now."""
        long_ago = monotonic() - LONG_S
        short = [began for began in self._working.values() if began > long_ago]
        return min(short) - long_ago if len(short) >= self._at_once else 0.0

    def _first_due(self, queue: list[tuple[float, str]]) -> str | None:
        passed_over = []
        found = None
        while queue and queue[0][0] <= monotonic():
            due, game_id = heapq.heappop(queue)
            case = self._cases.get(game_id)
            if case is None or case.due != due or (queue is self._silent_queue) != (case.silences > 0):
                continue  # the entry is out of date: the case was merged, or taken
            if game_id in self._working:
                passed_over.append((due, game_id))
                continue
            found = game_id
            break
        for entry in passed_over:
            heapq.heappush(queue, entry)
        return found

    def _until_next(self) -> float | None:
        """Seconds until a game is due; None when none waits. The end of an attempt notifies `_changed` by itself."""
        queues = [self._queue]
        if len(self._working_silent) < self._at_once / 2:
            queues.append(self._silent_queue)
        nexts = [due for due in map(self._next_in, queues) if due is not None]
        return max(0.0, self._until_free(), min(nexts) - monotonic()) if nexts else None

    def _next_in(self, queue: list[tuple[float, str]]) -> float | None:
        if queue and queue[0][1] not in self._working:
            return queue[0][0]
        return min((due for due, game_id in queue if game_id not in self._working), default=None)
