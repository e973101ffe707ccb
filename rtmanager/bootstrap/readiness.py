"""Readiness: checks all dependencies at once for ones that do not answer now.

An answer is not enough. A server that accepts connections and rejects requests (it is full, read-only, a replica, its
tables are locked) is useless too, and the workers report that. A check that hangs is not started again while it does,
so that frequent probes do not accumulate threads.

Readiness always returns within `LIMIT_S`. A check that fails by a defect of its own is a reason not to be ready like
any other. One that hangs for ever (a dead file system) does not delay the end of the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from time import monotonic

from rtmanager.domain.errors import RuntimeManagerError, Unavailable, with_remedy
from rtmanager.log_values import as_text
from rtmanager.resources import lacking
from rtmanager.threads import Thread

#: Longest time for a dependency to answer.
LIMIT_S = 2.0
#: Longest time that `close` waits for all running checks; one that hangs longer ends with the process.
CLOSE_S = 10.0
#: Bytes of one problem, because a server's message may be long, and of the message of an unforeseen error.
PROBLEM_BYTES = 1_000
REASON_BYTES = 300


class Readiness:
    """Runs the check of each dependency, which raises a `RuntimeManagerError` when something is wrong.

    `met` returns what workers reported lately, by dependency. `defect` is called with any other error.
    """

    def __init__(
        self,
        checks: Mapping[str, Callable[[], object]],
        met: Callable[[], Mapping[str, str]] = dict,
        defect: Callable[[BaseException], object] = lambda _: None,
    ) -> None:
        self._checks = checks
        self._met = met
        self._defect = defect
        self._questions: dict[str, _Question] = {}
        self._lock = threading.Lock()

    def __call__(self) -> Mapping[str, str]:
        """Return what is wrong, by dependency; empty when all is well. Never raises."""
        with self._lock:
            for name, check in self._checks.items():
                if name not in self._questions or self._questions[name].is_over:
                    self._questions[name] = _Question(name, check)
            questions = dict(self._questions)
        wait([question.answer for question in questions.values()], LIMIT_S)
        problems = dict(self._workers())
        for name, question in questions.items():
            met = problems.get(name, "")
            if problem := self._problem(question.answer):
                # A check that was answered, or hangs, does not repeat what the workers report. One that got no answer
                # does.
                both = met and met not in problem and not _met_silence(question.answer)
                problems[name] = f"{problem}; {met}" if both else problem
        return {name: as_text(problem, PROBLEM_BYTES) for name, problem in problems.items()}

    def close(self) -> None:
        """Wait a moment for running checks; their dependencies should be closed by now."""
        until = monotonic() + CLOSE_S
        for question in self._questions.values():
            question.join(until)

    def _workers(self) -> Mapping[str, str]:
        try:
            return self._met()
        except Exception as error:  # noqa: BLE001 - a defect: readiness still returns
            self._defect(error)
            return {"workers": _by_defect(error)}

    def _problem(self, answer: Future[object]) -> str:
        if not answer.done():
            return f"no answer within {LIMIT_S:g} s"
        error = answer.exception()
        if error is None or isinstance(error, RuntimeManagerError):
            return str(error) if error else ""
        if lack := lacking(error):
            return f"it cannot be checked: {with_remedy(lack)}"
        self._defect(error)
        return _by_defect(error)


class _Question:
    """A running check on a daemon thread of its own."""

    def __init__(self, name: str, check: Callable[[], object]) -> None:
        self._check = check
        self.answer: Future[object] = Future()
        self._thread = Thread(self._run, f"rtm-readiness-{name}")
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread is available
            self.answer.set_exception(error)

    @property
    def is_over(self) -> bool:
        """Whether it has its answer, or will have none: its thread ended for lack of memory."""
        return self.answer.done() or not self._thread.is_alive()

    def join(self, until: float) -> None:
        """Wait until the thread has ended, or until that moment (monotonic)."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, until - monotonic()))

    def _run(self) -> None:
        try:
            self.answer.set_result(self._check())
        except BaseException as error:  # noqa: BLE001 - every error is an answer
            self.answer.set_exception(error)


def _met_silence(answer: Future[object]) -> bool:
    return answer.done() and isinstance(answer.exception(), Unavailable)


def _by_defect(error: BaseException) -> str:
    return f"the check fails by a defect, {type(error).__name__}: {as_text(error, REASON_BYTES)}; see the log"
