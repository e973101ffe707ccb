"""Resets ignored signals for the processes that a test starts."""

import signal
import unittest


def as_in_a_terminal(case: type[unittest.TestCase]) -> None:
    """Restore the default effect of signals that this process ignores, for the tests of a class.

    Processes inherit ignored signals: SIGHUP under nohup, SIGINT and SIGQUIT in a background job of a shell script.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            case.addClassCleanup(signal.signal, number, signal.SIG_IGN)
