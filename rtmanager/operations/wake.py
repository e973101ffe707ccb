"""A wake-up signal between threads of one instance.

It only saves waiting for the next period: the store has what is to be done.
"""

from __future__ import annotations

import threading


class Wake:
    """Ends a loop's wait; a signal during the loop's work is kept for its next wait."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Let the loop run its next step now."""
        self._event.set()

    def wait(self, timeout_s: float) -> None:
        """Wait until `set` is called, at most `timeout_s`."""
        self._event.wait(timeout_s)
        self._event.clear()
