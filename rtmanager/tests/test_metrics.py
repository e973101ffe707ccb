"""Metrics are rendered in the text format of Prometheus, and count correctly with many threads."""

from __future__ import annotations

import threading
import unittest
from collections.abc import Callable

from rtmanager.metrics import Metrics


class MetricsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()

    def assert_rendered(self, *lines: str) -> None:
        self.assertEqual(self.metrics.render(), "".join(f"{line}\n" for line in lines))

    def test_nothing_is_rendered_as_nothing(self) -> None:
        self.assert_rendered()

    def test_metrics_and_samples_have_a_stable_order(self) -> None:
        queue = self.metrics.gauge("queue", "Operations by state", "kind", "state")
        queue.set(3, "stop", "due")
        queue.set(2, "start", "running")
        ended = self.metrics.counter("ended_total", "Operations that ended", "outcome")
        for outcome in ("success", "failure", "success"):
            ended.inc(outcome)
        self.assert_rendered(
            "# HELP ended_total Operations that ended",
            "# TYPE ended_total counter",
            'ended_total{outcome="failure"} 1',
            'ended_total{outcome="success"} 2',
            "# HELP queue Operations by state",
            "# TYPE queue gauge",
            'queue{kind="start",state="running"} 2',
            'queue{kind="stop",state="due"} 3',
        )

    def test_a_counter_without_labels_begins_with_0_and_a_gauge_with_nothing(self) -> None:
        self.metrics.counter("a_total", "A")
        gauge = self.metrics.gauge("b", "B")
        self.assert_rendered("# HELP a_total A", "# TYPE a_total counter", "a_total 0", "# HELP b B", "# TYPE b gauge")
        gauge.set(7)
        self.assertIn("b 7\n", self.metrics.render())

    def test_a_count_that_is_kept_elsewhere_is_read_when_it_is_shown(self) -> None:
        counts = iter((1.0, 4.0))
        self.metrics.read_counter("a_total", "A", lambda: next(counts))
        self.assertIn("a_total 1\n", self.metrics.render())
        self.assertIn("a_total 4\n", self.metrics.render())
        with self.assertRaisesRegex(ValueError, "_total"):
            self.metrics.read_counter("b", "B", lambda: 0.0)

    def test_help_and_label_values_are_escaped(self) -> None:
        self.metrics.gauge("a", 'back\\slash, "quotes"\nand a line', "x").set(1, 'back\\slash, "quotes"\nand é')
        self.assert_rendered(
            r'# HELP a back\\slash, "quotes"\nand a line',
            "# TYPE a gauge",
            r'a{x="back\\slash, \"quotes\"\nand é"} 1',
        )

    def test_numbers_are_written_as_the_format_reads_them(self) -> None:
        gauge = self.metrics.gauge("a", "A")
        for value, text in (
            (0, "0"),
            (-3, "-3"),
            (1.5, "1.5"),
            (2.0, "2"),
            (1e300, "1e+300"),
            (0.1, "0.1"),
            (True, "1"),
            (float("inf"), "+Inf"),
            (float("-inf"), "-Inf"),
            (float("nan"), "NaN"),
        ):
            gauge.set(value)
            self.assertEqual(self.metrics.render().splitlines()[-1], f"a {text}")

    def test_what_is_replaced_forgets_label_values_that_are_gone(self) -> None:
        gauge = self.metrics.gauge("a", "A", "game")
        gauge.set(1, "g1")
        gauge.replace({("g2",): 2, ("g3",): 3})
        self.assert_rendered("# HELP a A", "# TYPE a gauge", 'a{game="g2"} 2', 'a{game="g3"} 3')
        gauge.replace({})
        self.assert_rendered("# HELP a A", "# TYPE a gauge")

    def test_a_counter_never_goes_back(self) -> None:
        counter = self.metrics.counter("a_total", "A")
        counter.inc(by=2.5)
        for by in (-1, float("nan")):
            with self.assertRaisesRegex(ValueError, "a_total"):
                counter.inc(by=by)
        self.assertIn("a_total 2.5\n", self.metrics.render())

    def test_a_defect_of_the_caller_is_named(self) -> None:
        gauge = self.metrics.gauge("taken", "A", "game")
        counter = self.metrics.counter("taken_total", "A", "game")
        defects: tuple[tuple[str, Callable[[], object]], ...] = (
            ("taken already", lambda: self.metrics.gauge("taken", "B")),
            ("9a", lambda: self.metrics.gauge("9a", "B")),
            ("a-b", lambda: self.metrics.gauge("a-b", "B")),
            ("_total", lambda: self.metrics.counter("b", "B")),
            ("'a:b'", lambda: self.metrics.gauge("b", "B", "a:b")),
            ("'__a'", lambda: self.metrics.gauge("b", "B", "__a")),
            ("each once", lambda: self.metrics.gauge("b", "B", "a", "a")),
            ("taken has the labels", lambda: gauge.set(1)),
            ("taken has the labels", lambda: gauge.replace({("g1", "g2"): 1})),
            ("taken_total has the labels", lambda: counter.inc("g1", "g2")),
        )
        for expected, defect in defects:
            with self.subTest(expected=expected), self.assertRaisesRegex(ValueError, expected):
                defect()
        self.assertEqual(self.metrics.render().count("# TYPE"), 2)

    def test_no_count_of_many_threads_is_lost(self) -> None:
        counter = self.metrics.counter("a_total", "A", "thread")
        gauge = self.metrics.gauge("b", "B", "thread")

        def work(name: str) -> None:
            for number in range(2000):
                counter.inc("all")
                gauge.replace({(name,): number})
                if number % 100 == 0:
                    self.metrics.render()

        threads = [threading.Thread(target=work, args=(str(name),)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rendered = self.metrics.render()
        self.assertIn('a_total{thread="all"} 8000\n', rendered)
        self.assertEqual(rendered.count("\nb{"), 1)
