"""RTM_INTEGRATION: whether tests that need real services run.

| value | no Docker daemon answers | one answers |
|---|---|---|
| unset, 0 | skipped, without a request to Docker | skipped, without a request to Docker |
| 1 | skipped with the cause | run |
| require | fail with the cause: for CI, where a skip would hide a broken machine | run |
"""

import os
import sys
import unittest
from functools import cache

from harness import daemon, packages
from harness.errors import DaemonUnavailable, HarnessError
from harness.runs import cleanup
from harness.runs.sweep import sweep

VARIABLE = "RTM_INTEGRATION"

_NOT_WANTED = f"they need real services: set {VARIABLE}=1"


def check() -> None:
    """Call first in `setUpModule`: raises unittest.SkipTest, or with `require` DaemonUnavailable.

    When tests run, it registers the clean-up at exit and makes SIGTERM end the run like Ctrl-C.
    """
    if _value() == "0":
        _skip(_NOT_WANTED)
    reason = daemon.why_unavailable() or packages.why_unusable("psycopg", "redis")
    if reason is None:
        cleanup.leave_nothing()
        cleanup.unwind_on_sigterm()
    elif _value() == "require":
        raise DaemonUnavailable(f"{reason} ({VARIABLE}=require)")
    else:
        _skip(reason)


def begin() -> None:
    """Call first in a command that uses real services: `check`, then remove what killed runs left."""
    check()
    sweep()


def check_wanted() -> None:
    """Raise unittest.SkipTest where RTM_INTEGRATION disables these tests; sends no request to Docker.

    Called at the top of a module, it avoids the imports below. unittest accepts the exception from a module that it
    discovers, but not from one given by name. Such a module is imported whole, and `check` in `setUpModule` skips it.
    """
    if _value() == "0" and not _is_loaded_by_name():
        _skip(_NOT_WANTED)


def _is_loaded_by_name() -> bool:
    """Whether `python -m unittest package.module` is importing a module."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name == "loadTestsFromName":
            return True
    return False


def _value() -> str:
    value = os.environ.get(VARIABLE) or "0"
    if value not in ("0", "1", "require"):
        raise HarnessError(f"{VARIABLE} is {value!r}, but must be 0, 1 or require")
    return value


def _skip(reason: str) -> None:
    _print_once(reason)
    if sys.version_info[:3] in _SKIPPED_IS_NOTHING:
        _count_a_test()
    raise unittest.SkipTest(reason)


#: In these versions of Python, a run in which `setUpModule` skips everything ends with exit code 5, "NO TESTS RAN".
_SKIPPED_IS_NOTHING = ((3, 12, 0), (3, 12, 1))


def _count_a_test() -> None:
    """Make the current result count one test for the skipped module, so that the run does not fail."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        result = frame.f_locals.get("result")
        if isinstance(result, unittest.TestResult):
            result.testsRun = max(result.testsRun, 1)
            return


@cache
def _print_once(reason: str) -> None:
    """Print the reason on stderr once: unittest shows the reason of a skip only with -v."""
    sys.stderr.write(f"integration tests are skipped: {reason}\n")
