"""Writes log lines: a bounded queue, and one thread that waits for the log's reader.

`put` never blocks and never raises. With a slow, stopped or missing reader, lines that do not fit are dropped and
counted. The count is written where the lines are missing. Only the writer's thread uses the descriptor, without
Python's buffered streams: a thread that blocks in one of those makes the interpreter abort at exit.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol, TextIO

from rtmanager.threads import Thread

#: Most bytes of queued lines.
MOST_BYTES = 8 << 20
#: Memory of a queued line besides its bytes.
OVERHEAD_BYTES = 64
#: Bytes of whole lines in one write: a pipe takes so many undivided, also from several processes.
ATOMIC_BYTES = select.PIPE_BUF
#: With this many queued bytes, writes are larger: between two writes a thread waits for the interpreter's lock.
BACKLOG_BYTES = 256 << 10
AT_ONCE_BYTES = 64 << 10
#: Longest poll of a non-blocking descriptor.
_WAIT_MS = 1000


class Sink(Protocol):
    """A destination of lines; `write` returns the bytes taken, fewer than given when it failed, and never raises."""

    def write(self, data: bytes, until: float) -> int: ...


class DescriptorSink:
    """A file descriptor, blocking or not; a write to a blocking one has no deadline."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes, until: float) -> int:
        """See `Sink`; `until` (monotonic) holds where the descriptor does not block."""
        done = 0
        while done < len(data):
            try:
                done += os.write(self._descriptor, data[done:])
            except BlockingIOError:
                if not self._wait(until):
                    return done
            except OSError:
                return done
        return done

    def takes_more(self, until: float) -> bool:
        """Return whether a write of `ATOMIC_BYTES` will not block, now or before `until`."""
        return self._wait(until)

    def _wait(self, until: float) -> bool:
        ready = select.poll()
        ready.register(self._descriptor, select.POLLOUT)
        while (left_ms := (until - monotonic()) * 1000) > 0:
            if ready.poll(min(left_ms, _WAIT_MS)):
                return True
        return False


class StreamSink:
    """A stream without a descriptor, such as a `StringIO`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: bytes, _until: float) -> int:
        """See `Sink`."""
        try:
            self._stream.write(data.decode())
            self._stream.flush()
        except (OSError, ValueError):
            return 0
        return len(data)


def sink_of(stream: TextIO) -> Sink:
    """Return a sink for the stream's descriptor, or for the stream if it has none; 2 if stderr was closed."""
    try:
        return DescriptorSink(stream.fileno())
    except AttributeError:
        return DescriptorSink(2)
    except (OSError, ValueError):
        return StreamSink(stream)


@dataclass(slots=True)
class _Gap:
    """Lines that were dropped at this place."""

    lines: int


class LineWriter:
    """The queue of one log; its thread begins with the first line. `gap` formats the line about dropped ones."""

    def __init__(self, sink: Sink, gap: Callable[[int], bytes], *, most_bytes: int = MOST_BYTES) -> None:
        self._sink = sink
        self._gap = gap
        self._most_bytes = most_bytes
        # Reentrant: a destructor or a hook may log while this very thread is inside `put`.
        self._lock = threading.RLock()
        self._due = threading.Condition(self._lock)
        self._done = threading.Condition(self._lock)
        self._queue: deque[bytes | _Gap] = deque()
        self._bytes = 0
        self._dropped = 0
        self._in_flight = 0
        self._idle = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        #: Number of batches written, and its value when a flush timed out.
        self._batches = 0
        self._gave_up_at = -1
        # Used by the writing thread only.
        self._unreported = 0
        self._mid_line = False

    @property
    def dropped(self) -> int:
        """Lines that were lost since the start: they did not fit, or could not be written."""
        return self._dropped

    def put(self, line: bytes) -> None:
        """Queue a line, which ends with a newline."""
        with self._lock:
            cost = len(line) + OVERHEAD_BYTES
            if self._bytes + cost > self._most_bytes:
                self._drop()
                return
            self._queue.append(line)
            self._bytes += cost
            if self._idle:
                self._idle = False
                self._due.notify()
                return
        # Without the lock: a failed start of the thread logs in turn.
        if not self._has_thread():
            self._start()

    def lose(self) -> None:
        """Count a line that could not be made for lack of memory."""
        with self._lock, suppress(MemoryError):
            self._drop()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is written, at most `timeout_s`; return whether it is.

        If the last flush timed out, the next does not wait until the reader has read something.
        """
        with self._lock:
            if self._gave_up_at == self._batches:
                timeout_s = 0.0
            until = monotonic() + timeout_s
            if self._has_thread():
                self._done.wait_for(self._is_empty, timeout_s)
            else:
                self._drain(until)
            empty = self._is_empty()
            self._gave_up_at = -1 if empty else self._batches
            return empty

    def _has_thread(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _is_empty(self) -> bool:
        return not self._queue and not self._in_flight

    def _drop(self) -> None:
        self._dropped += 1
        last = self._queue[-1] if self._queue else None
        if isinstance(last, _Gap):
            last.lines += 1
        else:
            self._queue.append(_Gap(1))

    def _start(self) -> None:
        """Start the thread if needed. If none is available, the next line tries again, and a flush writes by itself."""
        if not self._starting.acquire(blocking=False):
            return
        try:
            if not self._has_thread():
                thread = Thread(self._run, "rtm-log", lasting=True)
                thread.start()
                self._thread = thread
        except (RuntimeError, MemoryError):
            return
        finally:
            self._starting.release()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._queue:
                    self._idle = True
                    self._due.wait()
                self._idle = False
                batch = self._take()
            try:
                self._write(batch, float("inf"))
            finally:
                with self._lock:
                    self._written(batch)

    def _drain(self, until: float) -> None:
        """Write on the calling thread: at the interpreter's exit, or when no thread is available."""
        while self._queue and self._may_write(until):
            batch = self._take()
            self._write(batch, until)
            self._written(batch)

    def _may_write(self, until: float) -> bool:
        return not isinstance(self._sink, DescriptorSink) or self._sink.takes_more(until)

    def _take(self) -> Sequence[bytes | _Gap]:
        """Return the next lines: as many as fit one write, and at least one."""
        batch: list[bytes | _Gap] = []
        size, most = 0, ATOMIC_BYTES if self._bytes < BACKLOG_BYTES else AT_ONCE_BYTES
        while self._queue:
            first = self._queue[0]
            size += 0 if isinstance(first, _Gap) else len(first)
            if batch and (size > most or isinstance(first, _Gap)):
                break
            batch.append(self._queue.popleft())
            if isinstance(first, _Gap):
                break
        self._in_flight = len(batch)
        return batch

    def _written(self, batch: Sequence[bytes | _Gap]) -> None:
        self._bytes -= sum(len(line) + OVERHEAD_BYTES for line in batch if isinstance(line, bytes))
        self._in_flight = 0
        self._batches += 1
        self._done.notify_all()

    def _write(self, batch: Sequence[bytes | _Gap], until: float) -> None:
        lines = [line for line in batch if isinstance(line, bytes)]
        missing = self._unreported + sum(gap.lines for gap in batch if isinstance(gap, _Gap))
        data = b"".join([b"\n" if self._mid_line else b"", self._gap(missing) if missing else b"", *lines])
        taken = self._sink.write(data, until)
        if taken:
            self._mid_line = not data[:taken].endswith(b"\n")
        if taken == len(data):
            self._unreported = 0
            return
        # From the end: the first of the lines that were not taken as a whole.
        untaken, lost = len(data) - taken, 0
        for line in reversed(lines):
            if untaken <= 0:
                break
            untaken -= len(line)
            lost += 1
        # The count of earlier lost lines stays unreported unless the line about them was written.
        self._unreported = lost + (missing if untaken > 0 else 0)
        with self._lock:
            self._dropped += lost
