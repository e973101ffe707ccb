"""A worker's thread: runs one step repeatedly until it is stopped, and survives every error of a step.

An outage of a dependency is logged when it begins, once for each further reason, and when it is over. A final answer
and a lack of resources on this host are logged the same way. `WorkerStatus` logs any other error as a defect. Defects
and final answers count as failures of the worker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from rtmanager.domain.errors import DependencyError, with_remedy
from rtmanager.operations.wake import Wake
from rtmanager.resources import lacking, out_of
from rtmanager.threads import Thread
from rtmanager.workers.status import WorkerStatus, is_repeated

#: Pauses after the first and after each further failure in a row, in seconds.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
#: Reasons that are logged for one outage; some texts differ each time, by an address or a number.
MOST_REASONS = 5
#: Seconds between two interruptions by `close`, which repeats them until the thread has ended.
_NUDGE_S = 0.02
#: Seconds after which `close` abandons a thread that has not ended, so that the process can end.
LEFT_AFTER_S = 60.0


class Loop:
    """Runs `step`, waits for `wake` or `period_s`, and repeats.

    A step that returns True is run again at once. With `steady`, `period_s` is measured from the beginning of one step
    to the beginning of the next. With `delayed`, the first step follows a pause. `interrupt` makes a blocking step
    return; it may be called several times.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], bool],
        *,
        period_s: float,
        logger: logging.Logger,
        wake: Wake | None = None,
        interrupt: Callable[[], None] | None = None,
        steady: bool = False,
        delayed: bool = False,
        status: WorkerStatus | None = None,
    ) -> None:
        self.name = name
        self._step = step
        self._period_s = period_s
        self._logger = logger
        self._wake = wake or Wake()
        self._interrupt = interrupt
        self._steady = steady
        self._delayed = delayed
        self._stopping = threading.Event()
        self._failures = 0
        #: When the first step of the present row of failures began.
        self._failing_since = 0.0
        self._reported = False
        self._reasons: set[str] = set()
        #: The error of the present outage of a dependency; None when the last step succeeded.
        self.away: DependencyError | None = None
        self._thread = Thread(self._run, f"rtm-{name}", lasting=True)
        self._started = False
        self.status = status or WorkerStatus(name, logger)
        self.status.watch(lambda: self._started and not self._stopping.is_set() and not self._thread.is_alive())

    def is_away_for_long(self) -> bool:
        """Whether its steps have failed several times in a row, or for a while."""
        return is_repeated(self._failures, monotonic() - self._failing_since)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        self._started = True

    def close(self) -> None:
        """Interrupt the present step, end the loop and wait until the thread has ended.

        After `LEFT_AFTER_S` a step that hangs is abandoned with its thread.
        """
        self._stopping.set()
        until = monotonic() + LEFT_AFTER_S
        while self._thread.is_alive():
            if monotonic() > until:
                self._logger.error("worker does not end, its thread is left", extra={"worker": self.name})
                return
            if self._interrupt is not None:
                self._try_interrupt(self._interrupt)
            self._wake.set()
            self._thread.join(_NUDGE_S)

    def _try_interrupt(self, interrupt: Callable[[], None]) -> None:
        try:
            interrupt()
        except DependencyError:
            # The dependency is gone, so the step is about to fail by itself.
            self._logger.debug("worker could not be interrupted", extra={"worker": self.name})
        except Exception as error:  # noqa: BLE001 - a defect: the other workers still have to be stopped
            self.status.failed(error, message="worker could not be interrupted")

    def _run(self) -> None:
        if self._delayed:
            self._wake.wait(self._period_s)
        while not self._stopping.is_set():
            began = monotonic()
            if not self._guarded_step() and not self._stopping.is_set():
                spent_s = monotonic() - began if self._steady else 0.0
                self._wake.wait(max(0.0, self._pause() - spent_s))

    def _guarded_step(self) -> bool:
        self.status.began()
        if not self._failures:
            self._failing_since = monotonic()
        try:
            more = self._step()
        except DependencyError as error:
            self._failures += 1
            self.status.noted(error)
            self._report(error)
            return False
        except BaseException as error:  # noqa: BLE001 - a defect, or a library's SystemExit: the worker stays alive
            self._failures += 1
            if lack := lacking(error):
                self._report(out_of(lack))
            else:
                self._reported = self.status.failed(error) or self._reported
            return False
        finally:
            self.status.paused()
        self.status.succeeded()
        if self._failures:
            if self._reported:
                self._logger.info("worker is back", extra={"worker": self.name, "failures": self._failures})
            self._failures, self._reported, self.away = 0, False, None
            self._reasons.clear()
        return more

    def _report(self, error: DependencyError) -> None:
        """Log each new reason: the first is often "connection closed", the cause of the outage follows later."""
        self.away = error
        if str(error) not in self._reasons and len(self._reasons) < MOST_REASONS and not self._stopping.is_set():
            self._reasons.add(str(error))
            self._reported = True
            self._logger.warning(
                "dependency does not answer, waiting for it",
                extra={"worker": self.name, "dependency": error.dependency, "error": with_remedy(error)},
            )

    def _pause(self) -> float:
        if not self._failures:
            return self._period_s
        return min(FIRST_PAUSE_S * (1 << min(self._failures - 1, 10)), LONGEST_PAUSE_S)
