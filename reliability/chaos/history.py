"""The actions of a run and their outcomes, one JSON line each, in the order of writing.

Invariant: an action is written when it begins and again when its outcome is known. An action without a second line was
in progress when its process, or the whole run, ended.
"""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class History:
    """The file of one run; safe for any number of threads. `counted` counts actions by outcome."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counted: Counter[str] = Counter()
        #: Everything except reads, for the checker.
        self.deeds: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._file = path.open("w", buffering=1)
        self._began = time.monotonic()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def note(self, who: str, what: str, **about: Any) -> None:
        """Write a single line."""
        self._write({"who": who, "what": what, **about})

    @contextmanager
    def deed(self, who: str, what: str, **about: Any) -> Iterator[dict[str, Any]]:
        """Write two lines; the block adds the result to the dictionary, above all its `outcome`."""
        number = next(self._numbers)
        begun = {"who": who, "what": what, "deed": number, **about}
        self._write({**begun, "step": "begins"})
        known: dict[str, Any] = {"outcome": "unknown"}
        at = time.time()
        try:
            yield known
        finally:
            ended = {**begun, "step": "ends", "began_at": at, **known}
            self._write(ended)
            with self._lock:
                self.deeds.append(ended)
                self.counted[f"{who.rstrip('0123456789 ')}: {what}: {known['outcome']}"] += 1

    def _write(self, line: dict[str, Any]) -> None:
        with self._lock:
            entry = {"s": round(time.monotonic() - self._began, 3), "at": round(time.time(), 3), **line}
            self._file.write(json.dumps(entry, default=str) + "\n")
