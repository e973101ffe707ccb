"""Signals as processes that a test starts shall find them."""

import signal
import unittest


def as_in_a_terminal(case: type[unittest.TestCase]) -> None:
    """For the tests of a class: signals that this process was started to ignore have their default effect.

    Processes inherit what is ignored: SIGHUP under nohup, SIGINT and SIGQUIT as a background job of a shell script.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            case.addClassCleanup(signal.signal, number, signal.SIG_IGN)
