"""Events as Docker 20.10 passes them on (its `pkg/pubsub`, and `daemon/events`): at once, or never.

Each listener has a queue of 1,024. Who leaves it full for 100 ms loses the event. The last 256 are kept, for those
who ask for the past.
"""

import json
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Any

#: Docker's own figures.
KEPT = 256
QUEUE = 1024
PATIENCE_S = 0.1

#: How often it is looked whether a listener is still there.
LOOK_S = 0.25

Event = Mapping[str, Any]


class Published:
    """What has happened, for those who listen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._listeners: list[Queue[Event]] = []
        #: How many events a listener did not get.
        self.lost = 0

    @property
    def listeners(self) -> int:
        """How many there are."""
        return len(self._listeners)

    def add(self, event: Event) -> None:
        """Let it be known."""
        with self._lock:
            self._kept.append(event)
            listeners = list(self._listeners)
        for queue in listeners:
            try:
                queue.put(event, timeout=PATIENCE_S)
            except Full:
                self.lost += 1

    def heard(self, since_ns: int | None, connection: socket.socket) -> Iterator[bytes]:
        """A line for each event, those since then first, for as long as the other end of the connection is there."""
        queue: Queue[Event] = Queue(QUEUE)
        with self._lock:
            past = [] if since_ns is None else [each for each in self._kept if each["timeNano"] >= since_ns]
            self._listeners.append(queue)
        try:
            yield from map(_line, past)
            while True:
                try:
                    yield _line(queue.get(timeout=LOOK_S))
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
