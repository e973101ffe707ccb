"""Clean-up at the end of a run: after a pass, a failure, Ctrl-C, SIGTERM and SIGHUP nothing is left.

unittest runs no clean-up after a KeyboardInterrupt, and the signals end Python without any. So each signal raises an
interrupt, and `DockerTestCase` then runs its own clean-ups. At exit the process removes whatever still has its labels.
Only SIGKILL leaves something, which the next run sweeps.
"""

import atexit
import os
import signal
import sys
import threading
import traceback
from functools import cache
from types import FrameType
from typing import NoReturn

from harness.errors import HarnessError
from harness.runs import identity
from harness.runs.sweep import sweep_own


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came. A KeyboardInterrupt, since unittest does not catch that."""


@cache
def leave_nothing() -> None:
    """From now on, remove at exit what this process still has; with RTM_IT_KEEP=1 print how to find it."""
    atexit.register(_at_exit)


def unwind_on_sigterm() -> None:
    """Make SIGTERM unwind like Ctrl-C, unless it already has a handler; a second one ends the process at once.

    SIGHUP, from a closed terminal, does the same, and may be repeated.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _unwind)


def end_if_signalled() -> None:
    """Raise Terminated when a signal came and its exception was lost.

    Python drops exceptions from destructors and weak reference callbacks.
    """
    if _signals:
        raise Terminated


#: Not empty once a signal came.
_signals: list[int] = []


def _unwind(number: int, _frame: FrameType | None) -> None:
    _signals.append(number)
    if signal.getsignal(signal.SIGTERM) is _unwind:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is _unwind:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the shell and the kernel send one each
    raise Terminated(number)


def end_child(error: BaseException | None = None) -> NoReturn:
    """End a forked child as sys.exit or `error` would, without the exit hooks of its parent.

    Removes what the child itself made.
    """
    code = 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif isinstance(error, SystemExit):
        sys.stderr.write(f"{error.code}\n")
        code = 1
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    _at_exit()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def _at_exit() -> None:
    # Runs in a forked child, too: there the run is the child's own.
    if identity.keeps():
        run = identity.current().run
        sys.stderr.write(
            f"\n{identity.KEEP_VARIABLE}=1: `docker ps -a --filter label={identity.PREFIX}run={run}` shows what this"
            f" run kept; `python -m harness sweep --kept {run}` takes it away\n"
        )
        return
    try:
        sweep_own()
    except HarnessError as error:
        sys.stderr.write(f"\nharness: something of this run may be left, the next run sweeps it: {error}\n")
