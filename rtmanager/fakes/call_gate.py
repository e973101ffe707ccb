"""Calls of a fake that wait until a test lets them go on, so that two things happen in a chosen order."""

from __future__ import annotations

import threading

#: Real seconds after which a held call gives up: a forgotten release fails a test instead of hanging it.
HOLD_LIMIT_S = 30.0


class CallGate:
    """Calls that wait inside the runtime."""

    def __init__(self, about: str | None) -> None:
        self.about = about
        self._condition = threading.Condition()
        self._waiting = 0
        self._released = False

    def wait_for(self, calls: int) -> None:
        """Wait until so many calls have arrived; `TimeoutError` when they do not come."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._waiting >= calls, HOLD_LIMIT_S):
                raise TimeoutError(f"{self._waiting} calls are held, {calls} were expected")

    def release(self) -> None:
        """Let them go on, and all that come later."""
        with self._condition:
            self._released = True
            self._condition.notify_all()

    def arrive(self) -> None:
        """Wait to be released; called by the runtime."""
        with self._condition:
            self._waiting += 1
            self._condition.notify_all()
            if not self._condition.wait_for(lambda: self._released, HOLD_LIMIT_S):
                raise TimeoutError("a held call was never released")
