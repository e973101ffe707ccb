"""Detects failures for the base classes, under any runner, from the calls to unittest's result.

unittest calls the result at the moment of each failure or error. Only some results keep lists: unittest's own does,
those of pytest and the IDEs do not. So nothing is read from a result. `WatchedResult` wraps the result of a test.
Failures outside of tests (in `setUpClass`, `setUpModule` and their clean-ups) pass a method that replaces the runner's
`addError`, or a hook where pytest is the runner.
"""

import os
import re
import sys
import traceback
import unittest
from collections.abc import Callable, Generator, Iterator
from types import FrameType
from typing import Any

from harness.runs import cleanup

#: The methods of a result that unittest calls when a test fails.
_TROUBLES = ("addError", "addFailure", "addSubTest", "addUnexpectedSuccess")

#: The line that says where artefacts are.
_PLACE = re.compile(r"^\S+: see .+$", re.MULTILINE)


class WatchedResult:
    """Wraps the runner's result, of any class, and reports each failure of one test."""

    _result: Any
    _on_trouble: Callable[[], None]
    _where: Callable[[], str]
    _process: int

    def __init__(self, result: Any, on_trouble: Callable[[], None], where: Callable[[], str]) -> None:
        """`on_trouble` is called after each failure; a subtest's failure notes the text of `where`."""
        self.__dict__.update(_result=result, _on_trouble=on_trouble, _where=where, _process=os.getpid())

    def __getattr__(self, name: str) -> Any:
        # unittest checks by `hasattr` what a result can do: exactly what the runner's can.
        found = getattr(self._result, name)
        return self._observed(name, found) if name in _TROUBLES else found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._result, name, value)

    def _observed(self, name: str, method: Callable[..., object]) -> Callable[..., object]:
        def observed(*arguments: Any) -> object:
            if os.getpid() != self._process and arguments[-1] is not None:
                # The runner is the parent's. sys.exit and an error end the child here, before the test's tearDown.
                cleanup.end_child(arguments[-1][1])
            if name == "addSubTest":
                if arguments[-1] is None:
                    return method(*arguments)
                # The test continues, and not every runner shows its later output with this failure.
                arguments[-1][1].add_note(self._where())
            answer = method(*arguments)
            self._on_trouble()
            return answer

        return observed


def watch_run(leave: Callable[[str], str]) -> None:
    """From now on, call `leave` with a name for each failure outside of a test.

    The text that `leave` returns goes to the runner's output. Call it while the runner runs.
    """
    for frame in _frames():
        result = frame.f_locals.get("result")
        if callable(getattr(result, "addError", None)) and not isinstance(result, WatchedResult):
            _watch_result(result, leave)
            return
        item = frame.f_locals.get("item")
        plugins = getattr(getattr(item, "config", None), "pluginmanager", None)
        if plugins is not None:
            if not plugins.has_plugin(_PytestHooks.__module__):
                import pytest

                # Applied here, since projects without pytest import this module, too.
                pytest.hookimpl(hookwrapper=True)(_PytestHooks.pytest_runtest_teardown)
                plugins.register(_PytestHooks(leave), _PytestHooks.__module__)
            return


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _watch_result(result: Any, leave: Callable[[str], str]) -> None:
    original = result.addError
    if getattr(original, "is_watched", False):
        return

    def add_error(test: Any, *arguments: Any) -> object:
        answer = original(test, *arguments)
        # `WatchedResult` covers the failures of tests; a stand-in without a class covers a module or a class.
        if not isinstance(test, unittest.TestCase):
            sys.stderr.write(leave(_name(test)))
        return answer

    add_error.is_watched = True  # type: ignore[attr-defined]
    result.addError = add_error


def _name(stand_in: Any) -> str:
    """`setUpClass (tests.test_shop.Shop)` as `tests.test_shop.Shop.setUpClass`."""
    what, _, where = str(stand_in.id() if hasattr(stand_in, "id") else stand_in).partition(" (")
    return f"{where.rstrip(')')}.{what}" if where else what


class _PytestHooks:
    """A pytest plugin, registered while pytest runs."""

    def __init__(self, leave: Callable[[str], str]) -> None:
        self._leave = leave
        self._seen: list[BaseException] = []

    def pytest_runtest_teardown(self, item: Any, nextitem: Any) -> Generator[None, Any, None]:
        """Run the clean-ups of `unittest.addModuleCleanup` after a module's last test: pytest does not."""
        outcome = yield
        module = getattr(item, "module", None)
        if nextitem is not None and getattr(nextitem, "module", None) is module:
            return
        try:
            unittest.doModuleCleanups()
        except Exception as error:  # noqa: BLE001 - whatever a project's clean-up raises is an error of this item
            before = outcome.exception
            outcome.force_exception(error if before is None else BaseExceptionGroup("teardown", [before, error]))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the paths of artefacts where options hide the sections of the reports."""
        options = terminalreporter.config.option
        if options.tbstyle != "no" and options.showcapture in ("all", "stderr"):
            return
        reports = [each for kind in ("failed", "error") for each in terminalreporter.stats.get(kind, ())]
        texts = [text for report in reports for _, text in report.sections]
        for line in dict.fromkeys(line for text in texts for line in _PLACE.findall(text)):
            terminalreporter.write_line(line)

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        """Write artefacts for a failure before or after a test, which is one of its class or module."""
        if call.excinfo is None or call.when not in ("setup", "teardown"):
            return
        error = call.excinfo.value
        if isinstance(error, unittest.SkipTest) or type(error).__name__ == "Skipped":
            return
        if any(error is each for each in self._seen):
            return  # pytest raises the error of a class or a module again for each test
        self._seen.append(error)
        item.add_report_section(call.when, "artefacts", self._leave(_pytest_name(item, call.when, error)))


def _pytest_name(item: Any, when: str, error: BaseException) -> str:
    """The name that a failure outside of a test has under unittest: `tests.test_shop.Shop.setUpClass`."""
    # Items of other plugins have neither.
    module = getattr(getattr(item, "module", None), "__name__", item.nodeid)
    cls = getattr(item, "cls", None)
    owner = f"{module}.{cls.__qualname__}" if cls else module
    for function in _functions(error):
        if function in ("setUpModule", "tearDownModule"):
            return f"{module}.{function}"
        if function in ("setUpClass", "tearDownClass"):
            return f"{owner}.{function}"
        if function == "doModuleCleanups":
            return f"{module}.tearDownModule"
        if function == "process_teardown_exceptions":  # pytest's, which raises what a class's clean-ups raised
            return f"{owner}.{'setUpClass' if when == 'setup' else 'tearDownClass'}"
    return f"{owner}.{item.name}.{when}"


def _functions(error: BaseException) -> Iterator[str]:
    """The names of the functions in the error's traceback, the outermost first."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame.f_code.co_name
    for each in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield from _functions(each)
