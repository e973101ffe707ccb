"""Readiness: which dependency does not answer right now, asked of all of them at once.

Answering is not enough: a server that takes connections and refuses what is asked of it (it is full, read-only, a
replica, its tables are locked) is of no use either, and the workers know that. A question that hangs is not asked a
second time while it does, so that a probe that comes every second does not pile up threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock

from rtmanager.domain.errors import RuntimeManagerError

#: How long a dependency may take to answer before it counts as not answering.
LIMIT_S = 2.0


class Readiness:
    """Asks each dependency by its check, which raises a `RuntimeManagerError` when something is wrong.

    `met` tells what workers met lately, by the dependency's name.
    """

    def __init__(self, checks: Mapping[str, Callable[[], object]], met: Callable[[], Mapping[str, str]] = dict) -> None:
        self._checks = checks
        self._met = met
        self._asked: dict[str, Future[object]] = {}
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(len(checks), thread_name_prefix="rtm-readiness")

    def __call__(self) -> Mapping[str, str]:
        """What is wrong, by the dependency's name; empty when all is well."""
        with self._lock:
            for name, check in self._checks.items():
                if name not in self._asked or self._asked[name].done():
                    self._asked[name] = self._threads.submit(check)
            asked = dict(self._asked)
        wait(asked.values(), LIMIT_S)
        wrong = {name: _problem(future) for name, future in asked.items()}
        return {**self._met(), **{name: problem for name, problem in wrong.items() if problem}}

    def close(self) -> None:
        """Wait for questions under way; what they ask should be closed by now."""
        self._threads.shutdown(wait=True)


def _problem(answer: Future[object]) -> str:
    if not answer.done():
        return f"no answer within {LIMIT_S:g} s"
    error = answer.exception()
    if error is not None and not isinstance(error, RuntimeManagerError):
        raise error
    return str(error) if error else ""
