"""Pulls shared by all who wait for them: one at a time for each image, each on a thread of its own.

The caller's thread only waits, so a caller that is gone stops no pull, and one that comes late joins it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from rtmanager.domain.errors import RuntimeManagerError, Unavailable
from rtmanager.operations.ports import Image, ImageUnavailable

#: Seconds that `close` waits for a pull's thread; its socket is cut by then, so nothing is left to wait for.
CLOSE_S = 1.0

#: Seconds beyond the pull's own limits before a waiter gives up: only a credential helper can hang that long.
WAITER_MARGIN_S = 30.0


class _Pull:
    """One pull under way, and its end."""

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._image: Image | None = None
        self._error: RuntimeManagerError | None = None

    def end(self, image: Image | None, error: RuntimeManagerError | None) -> None:
        """Set the outcome for all who wait; the first one counts."""
        with self._lock:
            if not self._ended.is_set():
                self._image, self._error = image, error
                self._ended.set()

    def outcome(self, limit_s: float) -> Image:
        """Wait for the end. Each waiter gets an error of its own: a shared one would mix their tracebacks."""
        if not self._ended.wait(limit_s):
            raise ImageUnavailable(
                f"the pull has not ended after {limit_s:g} s; look for a stuck docker credential helper"
            )
        if isinstance(self._error, Unavailable):
            raise self._error.again() from self._error
        if self._error is not None or self._image is None:
            raise ImageUnavailable(str(self._error)) from self._error
        return self._image


class Pulls:
    """The pulls under way, by image."""

    def __init__(self, pull: Callable[[str], Image], limit_s: float, logger: logging.Logger) -> None:
        self._pull = pull
        self._limit_s = limit_s + WAITER_MARGIN_S
        self._logger = logger
        self._lock = threading.Lock()
        self._live: dict[str, _Pull] = {}
        self._closed = False

    def image(self, image_ref: str) -> Image:
        """The image, by a pull that is under way or by a new one; raises what the pull raised."""
        with self._lock:
            if self._closed:
                raise _stopping()
            pull = self._live.get(image_ref)
            if pull is None:
                thread = threading.Thread(target=self._run, args=(image_ref,), name=f"pull {image_ref}", daemon=True)
                pull = self._live[image_ref] = _Pull(thread)
                thread.start()
        return pull.outcome(self._limit_s)

    def close(self) -> None:
        """Let all waiters go with `Unavailable`, and wait for the threads."""
        with self._lock:
            self._closed = True
            pulls = list(self._live.values())
        for pull in pulls:
            pull.end(None, _stopping())
        for pull in pulls:
            pull.thread.join(CLOSE_S)

    def _run(self, image_ref: str) -> None:
        image: Image | None = None
        error: RuntimeManagerError | None = None
        try:
            image = self._pull(image_ref)
        except RuntimeManagerError as failure:
            error = failure
        except Exception as failure:  # a mistake of ours must not leave the waiters waiting
            self._logger.exception("pull of image %s failed in an unexpected way", image_ref)
            error = ImageUnavailable(f"image {image_ref} cannot be pulled: unexpected {failure!r}")
        with self._lock:
            pull = self._live.pop(image_ref)
        pull.end(image, error)


def _stopping() -> Unavailable:
    return Unavailable("docker", "the pull was ended, this service is stopping")
