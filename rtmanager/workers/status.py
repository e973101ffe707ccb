"""The status of each worker: whether it fails, hangs or has lost its thread.

A failure is a defect or a final answer of a dependency. `Unavailable` is no failure: readiness then names the
dependency, not the worker. Each failure is counted. A worker that fails several times in a row makes the manager not
ready until it succeeds. A defect is logged with its traceback, with growing pauses while it repeats.
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

#: A worker counts as failing after so many failures in a row, or when it has failed for `FAILING_S` seconds.
FAILURES_IN_A_ROW = 3
FAILING_S = 30.0
#: A row of failures on single items is forgotten after the longer of two times without one: so many times the longest
#: pause between its failures, and so many seconds.
FORGOTTEN_AFTER_PAUSES = 3.0
FORGOTTEN_AFTER_S = 180.0
#: A failure after a pause of more seconds begins a new row: every worker runs more often than that.
LONGEST_PAUSE_S = 4 * 3600.0
#: Seconds between two log lines about the same defect, doubling from the first to the longest.
FIRST_SILENCE_S = 60.0
LONGEST_SILENCE_S = 3600.0
#: Defects of one worker that are kept; a dropped one counts as new when it repeats.
MOST_DEFECTS = 16
#: Innermost calls of a traceback that identify a defect.
_CALLS = 4
#: Bytes of an error's text in the readiness answer.
REASON_BYTES = 300

Clock = Callable[[], float]


def is_repeated(number: int, for_s: float) -> bool:
    """Whether so many failures in a row, over so many seconds, count as failing."""
    return number >= FAILURES_IN_A_ROW or (number > 0 and for_s >= FAILING_S)


@dataclass(slots=True)
class Row:
    """Failures in a row."""

    number: int = 0
    began_at: float = 0.0
    last_at: float = 0.0
    longest_pause_s: float = 0.0

    def add(self, now: float) -> bool:
        """Count a failure; return whether it begins a new row."""
        pause_s, self.last_at = now - self.last_at, now
        if not self.number or pause_s > LONGEST_PAUSE_S:
            self.number, self.began_at, self.longest_pause_s = 1, now, 0.0
            return True
        self.number += 1
        self.longest_pause_s = max(self.longest_pause_s, pause_s)
        return False

    def is_forgotten(self, now: float) -> bool:
        """Whether so much time has passed since the last failure that the failing item is probably gone."""
        return now - self.last_at > max(FORGOTTEN_AFTER_S, FORGOTTEN_AFTER_PAUSES * self.longest_pause_s)


@dataclass(slots=True)
class _Seen:
    """A defect that was logged."""

    logged_at: float
    silence_s: float = FIRST_SILENCE_S
    repeated: int = 0


class SparseTracebacks:
    """Decides which occurrences of a defect are logged; used under its owner's lock."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[object, _Seen] = OrderedDict()

    def due(self, error: BaseException) -> int | None:
        """The number of occurrences that went unlogged before this one; None when this one is not logged either."""
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
    """The status of one worker; thread-safe. `counted` is called for each failure.

    `stuck_s` is longer than any step that will end. A worker that handles many items (games) is failing when several
    different items fail in a row, not when one item fails repeatedly. Items may vanish without a success, so such a
    row is forgotten after a while.
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
        #: When the present step of each thread began, by thread.
        self._steps: dict[int, float] = {}
        self._ended: Callable[[], bool] = lambda: False

    def watch(self, ended: Callable[[], bool]) -> None:
        """Set `ended`, which returns whether a thread of the worker ended without being stopped."""
        self._ended = ended

    def began(self) -> None:
        """Record that a step of this thread begins."""
        self._steps[threading.get_ident()] = self._clock()

    def paused(self) -> None:
        """Record that this thread's step is over, whether it succeeded or not."""
        self._steps.pop(threading.get_ident(), None)

    def noted(self, error: BaseException, *, item: str = "") -> None:
        """Count a failure that is logged elsewhere. `item` names what failed. `Unavailable` is ignored."""
        if isinstance(error, Unavailable):
            return
        self._counted(self.name)
        with self._lock:
            if self._row.add(self._clock()):
                self._items.clear()
                self._since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            if item and len(self._items) < FAILURES_IN_A_ROW:
                self._items.add(item)
            # The text and not the error, whose traceback would keep the step's objects alive.
            self._how, self._last = _how(error), _reason(error)

    def failed(self, error: BaseException, *, message: str = "worker step failed") -> bool:
        """Count a failure and log it unless the same one was logged recently; return whether it was logged."""
        self.noted(error)
        with self._lock:
            repeated, row = self._tracebacks.due(error), self._row.number
        if repeated is None:
            return False
        extra = {"worker": self.name, "failures": row, "unlogged_before": repeated}
        self._logger.error(message, exc_info=error, extra=extra)
        return True

    def succeeded(self) -> None:
        """Record a success, which ends the row of failures."""
        if self._row.number:
            with self._lock:
                self._row, self._last = Row(), ""
                self._items.clear()

    def problem(self) -> str:
        """What is wrong with the worker and the remedy; empty when nothing is."""
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
    """The workers of one manager by name."""

    def __init__(self, logger: logging.Logger, count: Callable[[str, float], None] = lambda *_: None) -> None:
        """`count` adds a number to the failures of a worker, by its name."""
        self._logger = logger
        self._count = count
        self._by_name: dict[str, WorkerStatus] = {}
        self._lock = threading.Lock()

    def status(self, name: str, *, stuck_s: float = math.inf) -> WorkerStatus:
        """The status of a worker, created by the first call."""
        with self._lock:
            if name not in self._by_name:
                self._count(name, 0)
                self._by_name[name] = WorkerStatus(name, self._logger, counted=self.count, stuck_s=stuck_s)
            return self._by_name[name]

    def of_games(self, work: str) -> WorkerStatus:
        """The status of a pass's work on single games; the end of a pass does not count as its success."""
        return self.status(f"{work}-games")

    def watch(self, name: str, ended: Callable[[], bool]) -> None:
        """Watch a thread that does not belong to a `Loop`."""
        self.status(name).watch(ended)

    def count(self, name: str) -> None:
        """Count a failure that is logged elsewhere, without changing the worker's status."""
        self._count(name, 1)

    def thread_failed(self, thread_name: str) -> None:
        """Count a thread that ended by an uncaught error."""
        self.count(worker_of(thread_name))

    def problems(self) -> Mapping[str, str]:
        """The problems of all workers, by `worker <name>`."""
        with self._lock:
            known = list(self._by_name.values())
        found = {f"worker {status.name}": status.problem() for status in known}
        return {name: problem for name, problem in found.items() if problem}


def worker_of(thread_name: str) -> str:
    """The worker of a thread, by its name without the number or image that distinguishes the worker's threads."""
    if thread_name.startswith("pull "):
        return "pull"
    found = re.match(r"rtm-([a-z-]*[a-z])", thread_name)
    return found[1] if found else "other"


def _place_of(error: BaseException) -> object:
    """The identity of a defect: its type and where it was raised. Its text is left out: addresses in it differ."""
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
