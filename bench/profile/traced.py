"""A manager that notes when each of its effects begins and ends: `python -m bench.profile.traced FILE`.

It is the manager itself, with patched failpoints. These stand around every effect, and note the time instead of
testing a name. Failpoints see only the commit of a transaction, so the database's methods are patched as well. The
notes stay in memory until the manager ends; then they are written to the file.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from bench.profile.notes import Note, Turn, written
from rtmanager import cli, failpoints
from rtmanager.adapters.postgres.database import Connection, Database


class Recorder:
    """Notes what the calling thread does; safe for many threads."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self._alone = threading.local()

    def before(self, effect: str) -> None:
        """Replaces `failpoints.before`: a transaction calls it when it is about to commit."""
        if not getattr(self._alone, "now", False):
            self._note(Turn.BECOMES, f"{effect}, commit")

    def after(self, effect: str) -> None:
        """Replaces `failpoints.after`: does nothing, because `transaction` also notes the end of a commit."""

    @contextmanager
    def around(self, effect: str) -> Iterator[None]:
        """Replaces `failpoints.around`."""
        self._note(Turn.BEGINS, effect)
        try:
            yield
        finally:
            self._note(Turn.ENDS, effect)

    @contextmanager
    def transaction(self, database: Database, name: str) -> Iterator[Connection]:
        """Replaces `Database.transaction`; notes the connection, the statements and the commit."""
        effect = f"postgres.{name}"
        self._note(Turn.BEGINS, f"{effect}, a connection")
        try:
            with _transaction(database, name) as connection:
                self._note(Turn.BECOMES, f"{effect}, statements")
                yield connection
        finally:
            self._note(Turn.ENDS, effect)

    def read(self, database: Database, name: str, *how: Any) -> list[Any]:
        """Replaces `Database._read`, which every read uses, and which commits nothing."""
        return self._at_once(f"postgres.{name}", lambda: _read(database, name, *how))

    def write(self, database: Database, name: str, *how: Any) -> list[Any]:
        """Replaces `Database.write`: a statement that is its own commit."""
        return self._at_once(f"postgres.{name}, commit", lambda: _write(database, name, *how))

    def _at_once(self, what: str, fetch: Callable[[], list[Any]]) -> list[Any]:
        self._alone.now = True
        try:
            with self.around(what):
                return fetch()
        finally:
            self._alone.now = False

    def _note(self, turn: Turn, what: str) -> None:
        self.notes.append(Note(time.monotonic_ns(), threading.current_thread().name, turn, what))


_transaction, _read, _write = Database.transaction, Database._read, Database.write


def main(path: Path) -> int:
    """Serve, then write the notes."""
    recorder = Recorder()

    with (
        mock.patch.multiple(failpoints, before=recorder.before, after=recorder.after, around=recorder.around),
        # Functions, not bound methods: only a function in a class receives the instance.
        mock.patch.multiple(
            Database,
            transaction=lambda *arguments: recorder.transaction(*arguments),
            _read=lambda *arguments: recorder.read(*arguments),
            write=lambda *arguments: recorder.write(*arguments),
        ),
    ):
        code = cli.main(["serve"])
    path.write_text(written(recorder.notes))
    return code


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
