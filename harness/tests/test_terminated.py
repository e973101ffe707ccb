"""SIGTERM and SIGHUP end a run even when Python drops the exception in a destructor."""

import os
import signal
import unittest
from unittest import mock

from harness import DockerTestCase
from harness.runs import cleanup


class TerminatedTest(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(mock.patch.object(cleanup, "_signals", []))
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, signal.SIG_DFL)
        cleanup.unwind_on_sigterm()

    def test_it_unwinds_like_an_interrupt(self) -> None:
        with self.assertRaises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)

    def test_a_second_sighup_does_not_stop_the_cleanup(self) -> None:
        with self.assertRaises(cleanup.Terminated):
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_lost_where_it_came_it_ends_the_next_test_before_it_begins(self) -> None:
        with self.assertRaises(cleanup.Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        with self.assertRaises(cleanup.Terminated):
            DockerTestCase().run(unittest.TestResult())

    def test_a_handler_of_somebody_else_stays(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        cleanup.unwind_on_sigterm()
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.assertEqual(signal.getsignal(number), signal.SIG_IGN)
