"""Logs: one JSON object a line on stderr, or a readable line on a terminal.

What a log line is about (game_id, operation_id, op_source) is set once, where the work on an operation begins,
and is then on every line of that thread, whichever module writes it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_NAMES = {"WARNING": "warn", "CRITICAL": "error"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Within the block every log line of this thread carries these fields."""
    token = _about.set({**(_about.get() or {}), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says besides its message: what it is about, then its own extra fields."""
    own = {name: value for name, value in vars(record).items() if name not in _STANDARD and name != "about"}
    return {**getattr(record, "about", {}), **own}


class AboutFilter(logging.Filter):
    """Attaches what the current work is about, on the thread that logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.about = _about.get() or {}
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object: time, level, service, message, then the fields; `traceback` when there is one."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time_of(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": _NAMES.get(record.levelname, record.levelname.lower()),
            "service": self._service,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:30:01.250 info  message  key=value …`, the traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        level = _NAMES.get(record.levelname, record.levelname.lower())
        fields = "".join(f"  {name}={value}" for name, value in fields_of(record).items())
        line = f"{_time_of(record):%H:%M:%S}.{int(record.msecs):03d} {level:<5} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def make_logger(*, level: str, style: str, service: str, stream: TextIO = sys.stderr) -> logging.Logger:
    """The service's logger. `style` is `json`, `text` or `auto`: text when the stream is a terminal.

    A new logger on every call and no entry in logging's global tree, so that two runtimes in one process do
    not share handlers.
    """
    text = style == "text" or (style == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if text else JsonFormatter(service))
    handler.addFilter(AboutFilter())
    logger = logging.Logger("rtmanager", _LEVELS[level])
    logger.addHandler(handler)
    return logger


def adopt_libraries(logger: logging.Logger) -> None:
    """What libraries report goes the same way. For a process of our own: their loggers belong to the process."""
    for name in ("psycopg", "psycopg.pool", "urllib3", "docker", "redis"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = list(logger.handlers), False
        # Each lost connection is a warning of theirs; the worker that needed it reports the outage once.
        library.setLevel(logging.ERROR)


def _time_of(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
