"""How a run ends: after a pass, a failure, Ctrl-C and SIGTERM nothing of it is left.

unittest runs no clean-up after a KeyboardInterrupt, and SIGTERM ends Python without any. So SIGTERM is made an
interrupt, `DockerTestCase` runs its own clean-ups then, and what is still there when the process ends is found
by its labels and taken away. Only SIGKILL leaves something, for the next run to sweep.
"""

import atexit
import signal
import sys
import threading
from functools import cache
from types import FrameType

from harness.errors import HarnessError
from harness.runs import runner
from harness.runs.sweep import sweep_own


class Terminated(KeyboardInterrupt):
    """SIGTERM came. A KeyboardInterrupt, since that is what unittest lets through."""


@cache
def leave_nothing() -> None:
    """From now on, take away what this process still has when it ends; with RTM_IT_KEEP=1 say how to find it."""
    atexit.register(_at_exit)


def unwind_on_sigterm() -> None:
    """Let SIGTERM unwind as Ctrl-C does, unless somebody handles it already; a second one ends at once."""
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _unwind)


def end_if_told() -> None:
    """Raise Terminated when SIGTERM came and its exception was lost.

    Python drops what is raised while it calls a destructor or a weak reference's callback.
    """
    if _told:
        raise Terminated


#: Not empty once SIGTERM came.
_told: list[int] = []


def _unwind(number: int, _frame: FrameType | None) -> None:
    _told.append(number)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _at_exit() -> None:
    if runner.keeps():
        run = runner.current().run
        sys.stderr.write(
            f"\n{runner.KEEP_VARIABLE}=1: `docker ps -a --filter label={runner.PREFIX}run={run}` shows what this run"
            f" kept; `python -m harness sweep --kept {run}` takes it away\n"
        )
        return
    try:
        sweep_own()
    except HarnessError as error:
        sys.stderr.write(f"\nharness: something of this run may be left, the next run sweeps it: {error}\n")
