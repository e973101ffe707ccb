"""The benches of events and start-up yield no figure when an event or the manager is missing."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from bench.errors import BenchError
from bench.events import listening
from bench.events.listening import Listening
from bench.startup.bench import _wait_until_ready
from harness.rtm import manager


class ListeningTest(unittest.TestCase):
    def test_both_sides_receive_each_event_once_and_lateness_is_measured(self) -> None:
        burst = Listening()
        with mock.patch.object(listening, "EVENTS", 50):
            for contest in burst.contests():
                for side in contest.sides:
                    self.assertEqual(set(side.run()), {"CPU", "wall"})

        late, lost = burst.measures()
        self.assertTrue(late.reached)
        self.assertGreater(late.value, 0)
        self.assertEqual((lost.what, lost.value), ("lost of 50 events", 0))

    def test_an_event_that_nobody_receives_is_no_figure(self) -> None:
        with (
            mock.patch.object(listening, "EVENTS", 5),
            mock.patch.object(listening, "RECEIVED_S", 0.5),
            mock.patch.object(listening.Reader, "_read", lambda _: None),
        ):
            for contest in Listening().contests():
                with self.assertRaisesRegex(BenchError, "5 events to be received"):
                    contest.references[0].run()


class StartupTest(unittest.TestCase):
    def test_a_manager_that_ends_is_no_figure(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = (sys.executable, "-c", "raise SystemExit('no database')")
            environment = {manager.ADDRESS_VARIABLE: manager.free_address()}
            with (
                manager.start(environment, Path(folder, "log"), command) as process,
                self.assertRaisesRegex(BenchError, "no database"),
            ):
                _wait_until_ready(process)
