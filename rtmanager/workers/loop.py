"""A worker's thread: one step again and again until it is stopped.

The only place where a loop survives an error. A dependency that does not answer, or says no, is reported once when it
goes, once more for each other reason that it then gives, and when it is back. So is a lack of this host. Anything else
is a defect, which `WorkerStatus` reports; the loop goes on, since a worker that silently died would be worse. Defects
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
#: So many reasons of one outage are reported; some texts differ each time, by an address or a number.
MOST_REASONS = 5
#: How often a stop repeats its interruption until the thread has noticed.
_NUDGE_S = 0.02
#: A thread that has not ended so long after it was to is left: the process has to end all the same.
LEFT_AFTER_S = 60.0


class Loop:
    """Runs `step`, then waits for `wake` or `period_s`, and so on.

    A step that returns True has more to do and is run again at once. With `steady`, `period_s` is from beginning to
    beginning: a step that takes its time does not make the next one late. With `delayed` it begins with a pause.
    `interrupt` makes a step that blocks return; it may be called several times.
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
        #: When the first step of a row of failures began.
        self._failing_since = 0.0
        self._reported = False
        self._reasons: set[str] = set()
        #: What the last step had to say of a dependency that did not answer; None when it did.
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
        """End the loop after its present step, which is interrupted, and wait until the thread has ended.

        A step that hangs is left to its thread after `LEFT_AFTER_S`.
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
            # What the step waits for is gone, so the step is about to fail by itself.
            self._logger.debug("worker could not be interrupted", extra={"worker": self.name})
        except Exception as error:  # noqa: BLE001 - a defect: what else is to be stopped has to be stopped
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
        """The first words of an outage are often "connection closed"; why it cannot be made again comes later."""
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
