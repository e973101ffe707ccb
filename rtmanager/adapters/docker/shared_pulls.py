"""Pulls shared by their waiters: one per image at a time, and a limited number per registry.

Only a running pull has a thread; queued pulls and waiters need none. A pull without waiters is aborted; a later
caller starts a new one.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from rtmanager.adapters.docker.sockets import Call
from rtmanager.domain.errors import RuntimeManagerError, Unavailable
from rtmanager.domain.image_ref import parse_image_ref
from rtmanager.ports.runtime import Image, ImageUnavailable
from rtmanager.resources import lacking, out_of
from rtmanager.threads import Thread

#: Seconds that `close` waits for all threads; their sockets are cut before.
CLOSE_S = 1.0
#: Seconds between two tries to start a thread for a pull.
AGAIN_S = 1.0

#: Seconds added to a pull's limits before it is abandoned: only a file system that hangs blocks it that long.
MARGIN_S = 30.0

#: Concurrent pulls in all, each with a thread: hundreds of registries may be silent together.
PULLS_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class PullLimits:
    """Seconds for one pull in all and without progress, and concurrent pulls from one registry."""

    total_s: float
    no_progress_s: float
    per_registry: int = 8


class _Pull:
    """One pull of one image. The lock of `SharedPulls` guards all fields but `call`."""

    def __init__(self, image_ref: str, until: float) -> None:
        self.image_ref = image_ref
        self.registry = parse_image_ref(image_ref).registry
        self.call = Call()
        #: Its deadline, by the monotonic clock.
        self.until = until
        self.thread: threading.Thread | None = None
        self.waiting: set[Waiter] = set()
        self.ended = threading.Event()
        self.found: Image | None = None
        self.error: RuntimeManagerError | None = None


class Waiter:
    """`ImagePull`: one waiter for a pull."""

    def __init__(self, pulls: SharedPulls, pull: _Pull) -> None:
        self._pulls = pulls
        self._pull = pull
        self.calls: list[Callable[[], None]] = []

    def when_ended(self, call: Callable[[], None]) -> None:
        """See the port."""
        if self._pulls.call_later(self, self._pull, call):
            return
        call()

    def image(self) -> Image:
        """See the port. Each waiter gets an error object of its own: a shared one would mix their tracebacks."""
        pull = self._pull
        pull.ended.wait()  # `SharedPulls` ends each pull in time
        if isinstance(pull.error, Unavailable):
            raise pull.error.again() from pull.error
        if isinstance(pull.error, ImageUnavailable):
            raise type(pull.error)(str(pull.error)) from pull.error
        if pull.error is not None or pull.found is None:
            raise ImageUnavailable(str(pull.error)) from pull.error
        return pull.found

    def leave(self) -> None:
        """See the port."""
        self._pulls.leave(self, self._pull)


class SharedPulls:
    """The running and queued pulls. `pull` pulls one image; its `Call` aborts it."""

    def __init__(self, pull: Callable[[str, Call], Image], limits: PullLimits, logger: logging.Logger) -> None:
        self._pull = pull
        self._limits = limits
        self._logger = logger
        self._changed = threading.Condition()
        #: Pulls that a new caller may join, by image.
        self._joinable: dict[str, _Pull] = {}
        self._lines: dict[str, deque[_Pull]] = {}
        self._running: Counter[str] = Counter()
        self._threads: set[threading.Thread] = set()
        self._timer: threading.Thread | None = None
        self._checks_at = 0.0
        #: Whether a pull waits because no thread could be started.
        self._lacks_thread = False
        self._closed = False

    def join(self, image_ref: str) -> Waiter:
        """Wait for the image by the pull in progress, or by a new one. Raises `Unavailable` when closed."""
        with self._changed:
            if self._closed:
                raise _stopping()
            pull = self._joinable.get(image_ref)
            if pull is None:
                self._watch_time()
                pull = self._joinable[image_ref] = _Pull(image_ref, monotonic() + self._limits.total_s)
                self._lines.setdefault(pull.registry, deque()).append(pull)
                self._begin_next()
            waiter = Waiter(self, pull)
            pull.waiting.add(waiter)
            return waiter

    def call_later(self, waiter: Waiter, pull: _Pull, call: Callable[[], None]) -> bool:
        """Register a call for the end of the pull; False when it has ended."""
        with self._changed:
            if pull.ended.is_set():
                return False
            waiter.calls.append(call)
            return True

    def leave(self, waiter: Waiter, pull: _Pull) -> None:
        """Remove a waiter, and abort the pull when it was the last."""
        with self._changed:
            pull.waiting.discard(waiter)
            if pull.waiting or pull.ended.is_set():
                return
            self._logger.info("pull of image %s is broken off, nobody waits for it", pull.image_ref)
            self._end(pull, None, _abandoned(pull))

    def close(self) -> None:
        """End every wait with `Unavailable`, and wait for the threads."""
        calls: list[Callable[[], None]] = []
        with self._changed:
            self._closed = True
            for pull in list(self._joinable.values()):
                calls += self._end(pull, None, _stopping())
            threads = list(self._threads)
        _call_all(calls)
        until = monotonic() + CLOSE_S
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))

    def _begin_next(self) -> None:
        """Start every pull that the limits allow; at the total limit, the registry with the fewest goes first."""
        self._lacks_thread = False
        while self._running.total() < PULLS_AT_ONCE:
            free = [registry for registry in self._lines if self._running[registry] < self._limits.per_registry]
            if not free:
                return
            registry = min(free, key=lambda each: self._running[each])
            pull = self._lines[registry][0]
            try:
                thread = Thread(self._run, f"pull {pull.image_ref}", (pull,))
                thread.start()  # its end waits for the lock that is held here
            except (RuntimeError, MemoryError) as error:
                self._logger.error("no thread can be started for a pull: %s", error)
                self._lacks_thread = True
                return
            self._take_from_line(pull)
            pull.thread, pull.until = thread, monotonic() + self._limits.total_s + MARGIN_S
            self._running[registry] += 1
            self._threads.add(thread)

    def _take_from_line(self, pull: _Pull) -> None:
        line = self._lines[pull.registry]
        line.remove(pull)
        if not line:
            del self._lines[pull.registry]

    def _run(self, pull: _Pull) -> None:
        found: Image | None = None
        error: RuntimeManagerError | None = None
        try:
            found = self._pull(pull.image_ref, pull.call)
        except RuntimeManagerError as failure:
            error = failure
        except Exception as failure:  # a defect must not leave the waiters blocked
            if lack := lacking(failure):
                error = out_of(lack)
            else:
                self._logger.exception("pull of image %s failed in an unexpected way", pull.image_ref)
                error = ImageUnavailable(f"image {pull.image_ref} cannot be pulled: unexpected {failure!r}")
        with self._changed:
            self._threads.discard(threading.current_thread())
            calls = self._end(pull, found, error)
        _call_all(calls)

    def _end(self, pull: _Pull, found: Image | None, error: RuntimeManagerError | None) -> list[Callable[[], None]]:
        """Set the outcome once and start the next pull; returns the waiters' calls."""
        if pull.ended.is_set():
            return []
        pull.found, pull.error = found, error
        if self._joinable.get(pull.image_ref) is pull:
            del self._joinable[pull.image_ref]
        if pull.thread is None:
            self._take_from_line(pull)
        else:
            self._running[pull.registry] -= 1
            if not self._running[pull.registry]:
                del self._running[pull.registry]
            pull.call.break_off()
        pull.ended.set()
        if not self._closed:
            self._begin_next()
        if not self._joinable:
            self._changed.notify_all()
        return [call for waiter in pull.waiting for call in waiter.calls]

    def _watch_time(self) -> None:
        """Run the deadline thread while there are pulls."""
        if monotonic() + self._limits.total_s < self._checks_at:
            self._changed.notify_all()
        if self._timer is None:
            timer = Thread(self._give_up_in_time, "pulls in time", lasting=True)
            timer.start()
            self._timer = timer
            self._threads.add(timer)

    def _give_up_in_time(self) -> None:
        while True:
            calls: list[Callable[[], None]] = []
            with self._changed:
                if not self._joinable:
                    self._timer = None
                    self._threads.discard(threading.current_thread())
                    return
                now = monotonic()
                for pull in [each for each in self._joinable.values() if each.until <= now]:
                    calls += self._end(pull, None, self._too_late(pull))
                if not calls and self._joinable:
                    self._checks_at = min(pull.until for pull in self._joinable.values())
                    until_next_s = max(0.0, self._checks_at - now)
                    self._changed.wait(min(until_next_s, AGAIN_S) if self._lacks_thread else until_next_s)
                    if self._lacks_thread and not self._closed:
                        self._begin_next()
            _call_all(calls)

    def _too_late(self, pull: _Pull) -> ImageUnavailable:
        if pull.thread is not None:
            return ImageUnavailable(
                f"the pull of {pull.image_ref} has not ended after {self._limits.total_s + MARGIN_S:g} s; "
                "look for a file system that hangs below docker's config.json"
            )
        return ImageUnavailable(
            f"image {pull.image_ref} cannot be pulled: it waited {self._limits.total_s:g} s for its turn behind other "
            f"pulls from {pull.registry}; check that the Docker host reaches the registry, or raise "
            "RTMANAGER_PULLS_PER_REGISTRY"
        )


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _stopping() -> Unavailable:
    return Unavailable("docker", "the pull was ended, this service is stopping")


def _abandoned(pull: _Pull) -> Unavailable:
    return Unavailable("docker", f"the pull of {pull.image_ref} was broken off, nobody waited for it")
