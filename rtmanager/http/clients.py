"""The connections that are present, each with its thread, and who has to go when there is no room."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rtmanager.http.connection import Connection

#: Connections become idle without a word to anybody; so often they are looked at while that matters.
_LOOK_S = 0.02


class Clients:
    """At most `most` connections at once; safe for any number of threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._present: dict[Connection, threading.Thread] = {}
        #: Threads that are done with their connection, and gone in a moment.
        self._leaving: list[threading.Thread] = []
        self._changed = threading.Condition()
        #: Whether somebody waits for room: then no connection is kept after its present answer.
        self.crowded = False

    def __len__(self) -> int:
        return len(self._present)

    def wait_for_room(self, given_up: threading.Event) -> bool:
        """Wait until one more connection may come; False when that is given up. One idle connection is ended."""
        with self._changed:
            ended = False
            while len(self._present) >= self._most and not given_up.is_set():
                self.crowded = True
                ended = ended or self._end_longest_idle()
                self._changed.wait(_LOOK_S)
            self.crowded = False
        return not given_up.is_set()

    def _end_longest_idle(self) -> bool:
        """A client that was not served yet is not sent away for another."""
        since = {connection: connection.idle_since for connection in self._present if connection.served}
        idle = {connection: moment for connection, moment in since.items() if moment is not None}
        if idle:
            min(idle, key=idle.__getitem__).end_if_idle()
        return bool(idle)

    def serve(self, connection: Connection) -> None:
        """Run the connection on a thread of its own. Raises `RuntimeError` when there is none to be had."""
        thread = threading.Thread(target=self._run, args=(connection,), name="rtm-http-client", daemon=True)
        with self._changed:
            self._leaving = [leaving for leaving in self._leaving if leaving.is_alive()]
            self._present[connection] = thread
        try:
            thread.start()
        except RuntimeError:
            with self._changed:
                del self._present[connection]
            raise

    def _run(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._changed:
                self._leaving.append(self._present.pop(connection))
                self._changed.notify_all()

    def all_left_by(self, deadline: float, urge: Callable[[Connection], None]) -> bool:
        """Whether all connections ended, and their threads, until `deadline` (monotonic); `urge` makes them."""
        with self._changed:
            while self._present and (left_s := deadline - time.monotonic()) > 0:
                for connection in self._present:
                    urge(connection)
                self._changed.wait(min(left_s, _LOOK_S))
            leaving = list(self._leaving)
            empty = not self._present
        for thread in leaving:
            thread.join()
        return empty
