"""Events as Docker 20.10 passes them on (its `pkg/pubsub` and `daemon/events`): at once, or never.

Each listener has a queue of 1,024 events. An event is lost when the queue stays full for 100 ms. The last 256 events
are kept for listeners that request the past.
"""

import json
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Any

#: Docker's values.
KEPT = 256
QUEUE = 1024
PATIENCE_S = 0.1

#: Seconds between two checks whether a listener is still connected.
POLL_S = 0.25

Event = Mapping[str, Any]


class Published:
    """Passes events on to listeners."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._listeners: list[Queue[Event]] = []
        #: The number of events that a listener did not get.
        self.lost = 0

    @property
    def listeners(self) -> int:
        """The number of listeners."""
        return len(self._listeners)

    def add(self, event: Event) -> None:
        """Queue the event for every listener; drops it for one whose queue stays full."""
        with self._lock:
            self._kept.append(event)
            listeners = list(self._listeners)
        for queue in listeners:
            try:
                queue.put(event, timeout=PATIENCE_S)
            except Full:
                self.lost += 1

    def events(self, since_ns: int | None, connection: socket.socket) -> Iterator[bytes]:
        """Yield a line for each event, first those since `since_ns`, until the peer of `connection` closes it."""
        queue: Queue[Event] = Queue(QUEUE)
        with self._lock:
            past = [] if since_ns is None else [each for each in self._kept if each["timeNano"] >= since_ns]
            self._listeners.append(queue)
        try:
            yield from map(_line, past)
            while True:
                try:
                    yield _line(queue.get(timeout=POLL_S))
                except Empty:
                    if _has_left(connection):
                        return
        finally:
            with self._lock:
                self._listeners.remove(queue)


def _line(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def _has_left(connection: socket.socket) -> bool:
    with suppress(BlockingIOError):
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return False
