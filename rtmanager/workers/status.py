"""What is known of the workers of one service: which one fails, hangs, or has lost its thread.

A failure is a defect or a final answer of a dependency. Silence (`Unavailable`) is none: readiness names the
dependency then, not the worker. Each failure is counted. A worker that fails several times in a row makes the service
not ready until it succeeds. A defect is logged with its traceback, with growing pauses while it repeats.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from rtmanager.domain.errors import DependencyError, Unavailable
from rtmanager.log_values import as_text

#: Failures in a row after which a worker counts as failing; one that takes long to fail counts after `FAILING_S`.
FAILURES_IN_A_ROW = 3
FAILING_S = 30.0
#: Failures on single items are over when none has followed for so many of the longest pause between them, and seconds.
FORGOTTEN_AFTER_PAUSES = 3.0
FORGOTTEN_AFTER_S = 180.0
#: A failure after a longer pause begins a new row: no work is that rare.
LONGEST_PAUSE_S = 4 * 3600.0
#: Pauses between two log lines about the same defect: the first, doubling up to the longest.
FIRST_SILENCE_S = 60.0
LONGEST_SILENCE_S = 3600.0
#: Defects that are told apart; of a worker with more of them at once the oldest counts as new when it comes again.
MOST_DEFECTS = 16
#: Calls, from the innermost, by which two defects are told apart.
_CALLS = 4
#: Bytes of an error's text in an answer.
REASON_BYTES = 300

Clock = Callable[[], float]


def is_repeated(number: int, for_s: float) -> bool:
    """Whether so many failures in a row, over so many seconds, are more than an accident."""
    return number >= FAILURES_IN_A_ROW or (number > 0 and for_s >= FAILING_S)


@dataclass(slots=True)
class Row:
    """Failures in a row."""

    number: int = 0
    began_at: float = 0.0
    last_at: float = 0.0
    longest_pause_s: float = 0.0

    def add(self, now: float) -> bool:
        """Count one failure; whether it begins a new row."""
        pause_s, self.last_at = now - self.last_at, now
        if not self.number or pause_s > LONGEST_PAUSE_S:
            self.number, self.began_at, self.longest_pause_s = 1, now, 0.0
            return True
        self.number += 1
        self.longest_pause_s = max(self.longest_pause_s, pause_s)
        return False

    def is_forgotten(self, now: float) -> bool:
        """Whether so much time has passed that what failed is gone."""
        return now - self.last_at > max(FORGOTTEN_AFTER_S, FORGOTTEN_AFTER_PAUSES * self.longest_pause_s)


@dataclass(slots=True)
class _Seen:
    """A defect that was logged."""

    logged_at: float
    silence_s: float = FIRST_SILENCE_S
    repeated: int = 0


class SparseTracebacks:
    """Which occurrence of a defect is to be logged; used under its owner's lock."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[object, _Seen] = OrderedDict()

    def due(self, error: BaseException) -> int | None:
        """How many occurrences went unlogged since the last that was; None when this one is to go unlogged, too."""
        now, key = self._clock(), _place_of(error)
        seen = self._seen.get(key)
        if seen is None or now - seen.logged_at > seen.silence_s + LONGEST_SILENCE_S:
            self._seen[key] = _Seen(now)
            if len(self._seen) > MOST_DEFECTS:
                self._seen.popitem(last=False)
            return 0
        if now - seen.logged_at < seen.silence_s:
            seen.repeated += 1
            return None
        repeated, seen.repeated = seen.repeated, 0
        seen.logged_at, seen.silence_s = now, min(2 * seen.silence_s, LONGEST_SILENCE_S)
        return repeated


class WorkerStatus:
    """One worker; safe for any number of threads. `counted` is called for each failure.

    `stuck_s` is longer than any step that will end. A worker that is about many items (games) is failing when several
    of them fail in a row, not when one of them fails again and again. Items may vanish without a success, so such a row
    is forgotten after a while.
    """

    def __init__(
        self,
        name: str,
        logger: logging.Logger,
        *,
        counted: Callable[[str], None] = lambda _: None,
        stuck_s: float = math.inf,
        clock: Clock = monotonic,
    ) -> None:
        self.name = name
        self._logger = logger
        self._counted = counted
        self._stuck_s = stuck_s
        self._clock = clock
        self._lock = threading.RLock()
        self._tracebacks = SparseTracebacks(clock)
        self._row = Row()
        self._items: set[str] = set()
        self._how = self._last = ""
        self._since = ""
        #: When the step of each thread began that is in one.
        self._steps: dict[int, float] = {}
        self._ended: Callable[[], bool] = lambda: False

    def watch(self, ended: Callable[[], bool]) -> None:
        """`ended` tells whether a thread of the worker has ended though nobody ended it."""
        self._ended = ended

    def began(self) -> None:
        """A step of this thread begins."""
        self._steps[threading.get_ident()] = self._clock()

    def paused(self) -> None:
        """This thread's step is over, whatever came of it."""
        self._steps.pop(threading.get_ident(), None)

    def noted(self, error: BaseException, *, item: str = "") -> None:
        """Count a failure that is logged elsewhere. `item` is what it was about. Silence is ignored."""
        if isinstance(error, Unavailable):
            return
        self._counted(self.name)
        with self._lock:
            if self._row.add(self._clock()):
                self._items.clear()
                self._since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            if item and len(self._items) < FAILURES_IN_A_ROW:
                self._items.add(item)
            # Its text and not the error, whose traceback would keep alive all that the step had in its hands.
            self._how, self._last = _how(error), _reason(error)

    def failed(self, error: BaseException, *, message: str = "worker step failed") -> bool:
        """Count a failure, and log it unless the same was logged lately; whether it was logged."""
        self.noted(error)
        with self._lock:
            repeated, row = self._tracebacks.due(error), self._row.number
        if repeated is None:
            return False
        extra = {"worker": self.name, "failures": row, "unlogged_before": repeated}
        self._logger.error(message, exc_info=error, extra=extra)
        return True

    def succeeded(self) -> None:
        """What it does works."""
        if self._row.number:
            with self._lock:
                self._row, self._last = Row(), ""
                self._items.clear()

    def problem(self) -> str:
        """What is wrong with it, for a person; empty when nothing is."""
        if self._ended():
            return "its thread has ended by a defect: restart this instance; its log has the traceback"
        began, now = min(list(self._steps.values()), default=None), self._clock()
        if began is not None and now - began > self._stuck_s:
            return f"its step has not ended for {now - began:.0f} s: restart this instance if that goes on"
        with self._lock:
            if not self._is_failing(now):
                return ""
            return f"{self._how} since {self._since}, {self._row.number} times in a row: {self._last}; see its log"

    def _is_failing(self, now: float) -> bool:
        if self._items:
            return len(self._items) >= FAILURES_IN_A_ROW and not self._row.is_forgotten(now)
        return is_repeated(self._row.number, now - self._row.began_at)


class Workers:
    """The workers of one service by name."""

    def __init__(self, logger: logging.Logger, count: Callable[[str, float], None] = lambda *_: None) -> None:
        """`count` adds to the failures of a worker, by its name."""
        self._logger = logger
        self._count = count
        self._by_name: dict[str, WorkerStatus] = {}
        self._lock = threading.Lock()

    def status(self, name: str, *, stuck_s: float = math.inf) -> WorkerStatus:
        """The status of a worker, made with the first call."""
        with self._lock:
            if name not in self._by_name:
                self._count(name, 0)
                self._by_name[name] = WorkerStatus(name, self._logger, counted=self.count, stuck_s=stuck_s)
            return self._by_name[name]

    def of_games(self, work: str) -> WorkerStatus:
        """The status of a pass's work on single games, which a pass that comes to its end says nothing about."""
        return self.status(f"{work}-games")

    def watch(self, name: str, ended: Callable[[], bool]) -> None:
        """Have a thread watched that has no loop of ours."""
        self.status(name).watch(ended)

    def count(self, name: str) -> None:
        """A failure that is logged elsewhere, and says nothing of what comes next."""
        self._count(name, 1)

    def thread_failed(self, thread_name: str) -> None:
        """A thread ended by an error that nobody caught."""
        self.count(worker_of(thread_name))

    def problems(self) -> Mapping[str, str]:
        """What is wrong, by `worker <name>`."""
        with self._lock:
            known = list(self._by_name.values())
        found = {f"worker {status.name}": status.problem() for status in known}
        return {name: problem for name, problem in found.items() if problem}


def worker_of(thread_name: str) -> str:
    """The worker to which a thread belongs: of the many that have a number or an image in their name, one."""
    if thread_name.startswith("pull "):
        return "pull"
    found = re.match(r"rtm-([a-z-]*[a-z])", thread_name)
    return found[1] if found else "other"


def _place_of(error: BaseException) -> object:
    """What the same defect has in common each time: its type, and where it was raised. Texts differ by addresses."""
    calls = []
    trace = error.__traceback__
    while trace is not None:
        calls.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return type(error), tuple(calls[-_CALLS:])


def _how(error: BaseException) -> str:
    return f"is refused by {error.dependency}" if isinstance(error, DependencyError) else "fails by a defect"


def _reason(error: BaseException) -> str:
    text = as_text(error, REASON_BYTES)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
