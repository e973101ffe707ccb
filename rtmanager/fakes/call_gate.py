"""Holds calls of a fake until a test releases them, so that two things happen in a chosen order."""

from __future__ import annotations

import threading

#: Real seconds after which a held call times out, so that a forgotten release fails a test instead of hanging it.
HOLD_LIMIT_S = 30.0


class CallGate:
    """The held calls of one method of the fake runtime."""

    def __init__(self, about: str | None) -> None:
        self.about = about
        self._condition = threading.Condition()
        self._waiting = 0
        self._released = False

    def wait_for(self, calls: int) -> None:
        """Wait until so many calls have arrived. Raises `TimeoutError` after `HOLD_LIMIT_S`."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._waiting >= calls, HOLD_LIMIT_S):
                raise TimeoutError(f"{self._waiting} calls are held, {calls} were expected")

    def release(self) -> None:
        """Release the held calls and all later ones."""
        with self._condition:
            self._released = True
            self._condition.notify_all()

    def arrive(self) -> None:
        """Wait for the release; the runtime calls this. Raises `TimeoutError` after `HOLD_LIMIT_S`."""
        with self._condition:
            self._waiting += 1
            self._condition.notify_all()
            if not self._condition.wait_for(lambda: self._released, HOLD_LIMIT_S):
                raise TimeoutError("a held call was never released")
