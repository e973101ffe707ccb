"""Limits of growth, numbered statements, and the figures of a process."""

import os
import subprocess
import sys
import unittest
from unittest import mock

from bench import page, processes
from bench.errors import BenchError
from bench.growth.bench import NOISE, RSS, compared
from bench.growth.statements import numbered
from bench.idle.bench import ProcessSample
from bench.measure import Measure


class ComparedTest(unittest.TestCase):
    def test_costs_stand_together_and_are_limited_by_those_of_the_fewest_games(self) -> None:
        found = [
            Measure(what, value, "ms", games=size) for size, value in ((10, 2.0), (100, 9.0)) for what in ("a", RSS)
        ]

        limits = [(each.what, each.games, each.at_most) for each in compared(found)]

        self.assertEqual(limits, [("a", 10, None), ("a", 100, 2.0 * NOISE), (RSS, 10, None), (RSS, 100, None)])

    def test_the_plot_has_a_line_for_what_was_measured_more_than_once(self) -> None:
        measures = [
            {"what": "a", "games": 100, "value": 3.0},
            {"what": "a", "games": 10, "value": 2.0},
            {"what": "b", "games": 10, "value": 1.0},
            {"what": "c", "games": None, "value": 1.0},
        ]
        self.assertEqual(page.growing(measures), {"a": {10: 2.0, 100: 3.0}})


class StatementsTest(unittest.TestCase):
    def test_each_parameter_has_a_number_wherever_it_stands(self) -> None:
        text, parameters = numbered("SELECT a %% 2 FROM t WHERE a = %(one)s AND b = %(two)s AND c = %(one)s")

        self.assertEqual((text, parameters), ("SELECT a % 2 FROM t WHERE a = $1 AND b = $2 AND c = $1", 2))

    def test_a_statement_with_numbers_is_taken_as_it_is(self) -> None:
        text = "SELECT a % 2 FROM t WHERE a = $2 AND b = $1 AND c = $2"

        self.assertEqual(numbered(text), (text, 2))


class ProcessesTest(unittest.TestCase):
    def test_what_a_process_takes_is_what_linux_reports(self) -> None:
        worked = sum(os.times()[:2])
        self.assertAlmostEqual(processes.cpu_s(os.getpid()), worked, delta=0.1)
        self.assertGreater(processes.rss_mb(os.getpid()), 5)

    def test_one_that_sleeps_is_at_rest_and_one_that_spins_is_not(self) -> None:
        with mock.patch.object(processes, "RESTLESS_S", 0.2), mock.patch.object(processes, "REST_S", 0.1):
            for code, rests in (("input()", True), ("print(flush=True)\nwhile True: pass", False)):
                with subprocess.Popen(
                    [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                ) as process:
                    try:
                        if rests:
                            processes.wait_until_at_rest(process.pid)
                        else:
                            assert process.stdout is not None
                            process.stdout.readline()
                            with self.assertRaisesRegex(BenchError, "still at work"):
                                processes.wait_until_at_rest(process.pid)
                    finally:
                        process.kill()

    def test_a_share_of_a_core_is_processor_time_by_the_time_that_passed(self) -> None:
        self.assertEqual(ProcessSample(14.0, 1.5, 70.0).cpu_percent_since(ProcessSample(4.0, 1.0, 60.0)), 5.0)
