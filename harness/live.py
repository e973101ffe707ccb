"""A Runtime Manager inside the test's own process: `rtmanager.app.Runtime`, started and stopped by the test.

In-process, because its end is then deterministic: `stop` returns when nothing of it is left. What only a
process can show (signals, exit codes, kill -9) is in `manager.py`. Its log goes to a file, with
RTM_IT_LOG=stderr to the terminal as well.
"""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TextIO

from harness import timing

#: `stderr` shows the managers' logs on the terminal.
LOG_VARIABLE = "RTM_IT_LOG"


def echoes() -> bool:
    """Whether the managers' logs go to the terminal, too."""
    return os.environ.get(LOG_VARIABLE) == "stderr"


class LiveRuntime:
    """A Runtime that was started; `base_url` is where its REST interface is."""

    @timing.span("starting managers in this process")
    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        from rtmanager.app import Runtime
        from rtmanager.config import Config

        self.log = log
        self._file = log.open("a")
        self.runtime = Runtime(Config.from_environment(environment), _logger(self._file))
        try:
            self.runtime.start()
        except BaseException:
            self._file.close()
            raise
        self.base_url = f"http://127.0.0.1:{self.runtime.http_address[1]}"

    @timing.span("stopping managers in this process")
    def stop(self) -> None:
        """Stop it; returns when its last thread has ended. Nothing happens the second time."""
        self.runtime.stop()
        self._file.close()

    def __enter__(self) -> "LiveRuntime":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Line(logging.Formatter):
    """A readable line with the record's extra fields."""

    _standard = frozenset(vars(logging.makeLogRecord({}))) | {"message"}

    def format(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in self._standard}
        return super().format(record) + "".join(f"  {name}={value}" for name, value in extra.items())


def _logger(file: TextIO) -> logging.Logger:
    logger = logging.Logger("rtmanager", logging.DEBUG)
    for stream in (file, sys.stderr) if echoes() else (file,):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_Line("%(asctime)s %(levelname)-7s %(threadName)s  %(message)s"))
        logger.addHandler(handler)
    return logger
