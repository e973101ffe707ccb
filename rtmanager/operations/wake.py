"""A signal between threads of one instance that something is to be done.

Only ever a hint that saves waiting for the next period: what is to be done stands in the store.
"""

from __future__ import annotations

import threading


class Wake:
    """Something happened that a loop waits for; what happens while the loop works is not forgotten."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Let the loop run its next step now."""
        self._event.set()

    def wait(self, timeout_s: float) -> None:
        """Until somebody calls `set`, but not longer than `timeout_s`."""
        self._event.wait(timeout_s)
        self._event.clear()
