"""Connections to PostgreSQL that are kept from one test to the next, since making one takes longer than its work.

What became of one in between is not the next test's business. One that was cut, by a restart of the server or a
test that ended every session, is made anew; one whose server is silent is cut; a forked child makes its own.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

#: A server that has not answered after so many seconds is paused, or stuck.
SILENCE_S = 10.0


class KeptConnections:
    """One idle connection for each database of a server, made by `connect`; safe for any number of threads."""

    def __init__(self, connect: "Callable[[str], psycopg.Connection[Any]]") -> None:
        self._connect = connect
        # By process: what a child inherits is a line that its parent goes on talking on.
        self._idle: dict[tuple[int, str], psycopg.Connection[Any]] = {}

    def use(self, database: str, work: "Callable[[psycopg.Connection[Any]], T]") -> T:
        """What `work` returns, done on the connection to `database`.

        It is done again from its beginning on a new connection when the kept one turns out to be cut.
        """
        import psycopg

        kept = self._idle.pop((os.getpid(), database), None)
        if kept is not None:
            try:
                return self._use(database, kept, work)
            except psycopg.OperationalError:
                if not kept.broken:
                    raise
        return self._use(database, self._connect(database), work)

    def forget(self, database: str) -> None:
        """Close the connection to `database`; the next use makes another one."""
        kept = self._idle.pop((os.getpid(), database), None)
        if kept is not None:
            kept.close()

    def close(self) -> None:
        """Close them all."""
        for pid, database in list(self._idle):
            if pid == os.getpid():
                self.forget(database)

    def _use(
        self, database: str, connection: "psycopg.Connection[Any]", work: "Callable[[psycopg.Connection[Any]], T]"
    ) -> T:
        try:
            with _cut_when_silent(connection):
                done = work(connection)
        except BaseException:
            connection.close()
            raise
        before = self._idle.setdefault((os.getpid(), database), connection)
        if before is not connection:  # another thread was here meanwhile
            connection.close()
        return done


@contextmanager
def _cut_when_silent(connection: "psycopg.Connection[Any]") -> Iterator[None]:
    """No setting of PostgreSQL or libpq ends a wait for a server that is paused: its kernel goes on answering."""
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        watch = threading.Timer(SILENCE_S, _cut, (line,))
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
            watch.join()


def _cut(line: socket.socket) -> None:
    with suppress(OSError):  # the other end was quicker, which is as good
        line.shutdown(socket.SHUT_RDWR)
