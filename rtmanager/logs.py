"""Logs: one JSON object per line on stderr, or a readable line on a terminal.

The context of a log line (game_id, operation_id, op_source) is set once, where the work on an operation begins. Every
line of that thread then has it, whichever module logs it.

The caller only formats the line; a `LineWriter` writes it. No value makes logging raise, and every line has at most
`LINE_BYTES`.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from rtmanager.log_values import as_json, as_text, cut, on_one_line, quoted, traceback_text
from rtmanager.log_writer import LineWriter, sink_of

if TYPE_CHECKING:
    from collections.abc import Callable

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_NAMES = {"WARNING": "warn", "CRITICAL": "error"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

#: The longest line: Docker's own log drivers split what is longer than 16,384 bytes.
LINE_BYTES = 16_000
MESSAGE_BYTES = 2_048
FIELD_BYTES = 2_048
#: The name of a field, of the service, of a level.
NAME_BYTES = 128
TRACEBACK_BYTES = 8_192
#: How long the end of the process waits for the log's reader.
FLUSH_S = 1.0

#: Libraries whose logs are adopted; see `adopt_libraries`.
LIBRARIES = ("psycopg", "psycopg.pool", "urllib3", "docker", "redis")

_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Add these fields to every log line of this thread within the block."""
    token = _about.set({**(_about.get() or {}), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a record: its context, then its own extra fields."""
    own = {name: value for name, value in vars(record).items() if name not in _STANDARD and name != "about"}
    return {**getattr(record, "about", {}), **own}


class JsonFormatter(logging.Formatter):
    """One JSON object: time, level, service, message, then the fields; `traceback` when there is one.

    A field with one of these names gets an underscore at its end. `fields_left_out` counts the fields that did not fit.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = quoted(service, NAME_BYTES)

    def format(self, record: logging.LogRecord) -> str:
        message = quoted(_message_of(record), MESSAGE_BYTES)
        time, level = f"{_second(int(record.created))}.{int(record.msecs):03d}Z", _quoted_name(_level_of(record))
        parts = [f'{{"time": "{time}", "level": {level}, "service": {self._service}, "message": {message}']
        trace = _traceback_of(record)
        end = f', "traceback": {quoted(trace, TRACEBACK_BYTES)}}}' if trace else "}"
        room = LINE_BYTES - _FIRST_BYTES - MESSAGE_BYTES - len(end.encode())
        left_out = 0
        for name, value in fields_of(record).items():
            short = name if type(name) is str and len(name) < NAME_BYTES else as_text(name, NAME_BYTES - 2)
            field = f", {_quoted_name(short)}: {as_json(value, FIELD_BYTES)}"
            room -= len(field) if field.isascii() else len(field.encode())
            if room >= 0:
                parts.append(field)
            else:
                left_out += 1
        if left_out:
            parts.append(f', "fields_left_out": {left_out}')
        return "".join(parts) + end


#: Names of a line's own fields, and their most bytes without the message and the traceback.
_FIRST = frozenset({"time", "level", "service", "message", "traceback", "fields_left_out"})
_FIRST_BYTES = 2 * NAME_BYTES + 128


@lru_cache(256)
def _quoted_name(name: str) -> str:
    return quoted(f"{name}_" if name in _FIRST else name, NAME_BYTES)


@lru_cache(4)
def _second(timestamp: int) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%dT%H:%M:%S}"


class TextFormatter(logging.Formatter):
    """`12:30:01.250 info  message  key=value …`, the traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [f"{_time_of(record):%H:%M:%S}.{int(record.msecs):03d} {_level_of(record):<5} "]
        parts.append(on_one_line(cut(_message_of(record), MESSAGE_BYTES)))
        room, left_out = LINE_BYTES - MESSAGE_BYTES - TRACEBACK_BYTES, 0
        for name, value in fields_of(record).items():
            field = f"  {as_text(name, NAME_BYTES)}={as_text(value, FIELD_BYTES)}"
            if len(field.encode()) > room:
                left_out += 1
                continue
            room -= len(field.encode())
            parts.append(field)
        if left_out:
            parts.append(f"  ({left_out} fields are left out)")
        trace = _traceback_of(record)
        if trace:
            parts += [f"\n{on_one_line(line)}" for line in trace.split("\n")]
        return "".join(parts)


class QueueHandler(logging.Handler):
    """Formats the line on the logging thread, and passes it to a writer.

    It takes no lock: a value that hangs while it is formatted blocks its own thread only.
    """

    def __init__(self, writer: LineWriter, formatter: logging.Formatter, encode: Callable[[str], bytes]) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.writer = writer
        self._encode = encode

    def createLock(self) -> None:
        """Create no lock."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue the record's line; never raises, never blocks."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """As `handle`."""
        record.about = _about.get() or {}
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a defect of the formatter must not reach the caller
            line = self.format(_record("a log line could not be made", error_type=type(error).__name__))
        self.writer.put(self._encode(f"{line}\n"))

    def flush(self) -> None:
        """Wait at most `FLUSH_S` until everything is written; `logging` also calls it at exit."""
        self.writer.flush(FLUSH_S)


class _Logger(logging.Logger):
    """A logger that accepts every field name: the base class rejects those of a record's attributes."""

    def _log(self, *args: Any, **kwargs: Any) -> None:
        """As the base class; without memory for the line, it is counted as dropped."""
        try:
            super()._log(*args, **kwargs)
        except MemoryError:
            for writer in _writers(self):
                writer.lose()

    def findCaller(self, stack_info: bool = False, stacklevel: int = 1) -> tuple[str, int, str, str | None]:
        """Return nothing: no line has its place in the code, and finding it takes time."""
        return "", 0, "", None

    def makeRecord(
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        try:
            record = super().makeRecord(name, level, fn, lno, msg, args, exc_info, func, None, sinfo)
        except Exception:  # noqa: BLE001 - it reads the class of a single argument, which may raise anything
            record = super().makeRecord(name, level, fn, lno, msg, (), exc_info, func, None, sinfo)
        for key, value in (extra or {}).items():
            record.__dict__[f"{key}_" if key in _STANDARD or key == "about" else key] = value
        return record


def make_logger(*, level: str, style: str, service: str, stream: TextIO | None = None) -> logging.Logger:
    """Return a new logger. `style` is `json`, `text` or `auto`: text when the stream is a terminal.

    It is not in logging's global tree, so that two managers in one process do not share handlers. `stream` is stderr
    unless given. JSON is UTF-8 in every locale.
    """
    stream = stream or sys.stderr
    text = style == "text" or (style == "auto" and _is_terminal(stream))
    formatter = TextFormatter() if text else JsonFormatter(service)
    encoding = getattr(stream, "encoding", None) if text else None

    def encode(line: str) -> bytes:
        return line.encode(encoding or "utf-8", "backslashreplace")

    def gap(lines: int) -> bytes:
        words = "log lines were dropped: they were not read in time, or could not be written"
        return encode(f"{formatter.format(_record(words, dropped=lines))}\n")

    writer = LineWriter(sink_of(stream), gap)
    logger = _Logger("rtmanager", _LEVELS[level])
    logger.addHandler(QueueHandler(writer, formatter, encode))
    return logger


def flush(logger: logging.Logger, timeout_s: float = FLUSH_S) -> bool:
    """Wait until everything is written, at most `timeout_s`; return whether it is."""
    return min((writer.flush(timeout_s) for writer in _writers(logger)), default=True)


def dropped(logger: logging.Logger) -> int:
    """Return the number of lost log lines since the start; 0 for another kind of logger."""
    return sum(writer.dropped for writer in _writers(logger))


def adopt_libraries(logger: logging.Logger) -> None:
    """Send the logs of libraries to this logger. Only for the manager's own process, to which their loggers belong."""
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers, library.propagate = list(logger.handlers), False
        # They warn of each lost connection; the worker that needed it reports the outage once.
        library.setLevel(logging.ERROR)
    # All other libraries, which would write to stderr by themselves: asyncio, concurrent.futures.
    logging.getLogger().handlers = list(logger.handlers)


def adopt_process(logger: logging.Logger, thread_failed: Callable[[str, BaseException], None]) -> None:
    """Log what the interpreter would print to stderr. Only for the manager's own process.

    `thread_failed` is called with the name of a thread that an error ended.
    """
    logging.raiseExceptions = False

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        logger.error("the process ends by a defect", exc_info=(kind, error, trace))

    def uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
        name = found.thread.name if found.thread else "unknown"
        error = found.exc_value or found.exc_type()
        logger.error("a thread ended by a defect", exc_info=error, extra={"thread_name": name})
        thread_failed(name, error)

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        with suppress(MemoryError):
            words = found.err_msg or "an exception was ignored"
            logger.error(words, exc_info=found.exc_value, extra={"object": as_text(found.object, FIELD_BYTES)})

    def warned(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        extra = {"category": category.__name__, "where": f"{filename}:{lineno}"}
        logger.warning("%s", message, extra=extra)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = unraisable
    warnings.showwarning = warned
    with suppress(ValueError):  # not the main thread
        # Otherwise the kernel stops a background process that writes to a terminal set to `tostop`.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)


def _writers(logger: logging.Logger) -> list[LineWriter]:
    return [handler.writer for handler in logger.handlers if isinstance(handler, QueueHandler)]


def _record(message: str, **fields: object) -> logging.LogRecord:
    """A warning of the log itself."""
    return logging.makeLogRecord({"msg": message, "levelno": logging.WARNING, "levelname": "WARNING", **fields})


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def _level_of(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelname, record.levelname.lower())


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - arguments that do not fit the format, or that raise in `str`
        return f"{as_text(record.msg, MESSAGE_BYTES // 2)} (with arguments that do not fit: {type(error).__name__})"


def _traceback_of(record: logging.LogRecord) -> str:
    found = record.exc_info
    return traceback_text(found, TRACEBACK_BYTES - 2) if found and found[0] is not None else ""


def _time_of(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
