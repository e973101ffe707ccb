"""A change of speed between two timings is detected, and each piece of work runs."""

import unittest
from contextlib import closing
from unittest import mock

from bench import calibration
from bench.calibration import CPU, DOCKER, LOOPBACK, Yardstick, apart
from bench.catalogue import BENCHES


class ApartTest(unittest.TestCase):
    def test_a_fifth_is_the_most_in_either_direction(self) -> None:
        self.assertEqual(apart({CPU: 1.0}, {CPU: 1.2}), "")
        self.assertEqual(apart({CPU: 1.2}, {CPU: 1.0}), "")
        self.assertEqual(apart({CPU: 1.0}, {CPU: 1.25}), "CPU 25% slower afterwards")
        self.assertEqual(apart({CPU: 1.25}, {CPU: 1.0}), "CPU 25% faster afterwards")

    def test_each_thing_that_it_leans_on_counts(self) -> None:
        before, after = {CPU: 1.0, LOOPBACK: 1.0, DOCKER: 0.2}, {CPU: 1.1, LOOPBACK: 2.0, DOCKER: 0.1}
        self.assertEqual(apart(before, after), "loopback 100% slower afterwards, Docker 100% faster afterwards")

    def test_without_a_yardstick_everything_is_measured(self) -> None:
        self.assertEqual(apart({}, {}), "")


class YardstickTest(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(mock.patch.object(calibration, "CPU_PAUSE_S", 0.0))

    def test_the_processor_is_always_among_it(self) -> None:
        with closing(Yardstick.of(())) as yardstick:
            self.assertEqual(list(yardstick.works), [CPU])

    def test_round_trips_go_to_another_process(self) -> None:
        with closing(Yardstick.of((LOOPBACK,))) as yardstick:
            speed = yardstick.speed()
        self.assertEqual(set(speed), {CPU, LOOPBACK})
        self.assertTrue(all(0 < took < 5 for took in speed.values()), speed)


class LeaningTest(unittest.TestCase):
    def test_every_bench_of_containers_leans_on_docker(self) -> None:
        for name in ("start", "burst", "calls", "harness", "profile", "recovery"):
            source = BENCHES[name][0].replace(".", "/") + ".py"
            with open(source) as file:
                self.assertIn("leans_on=(DOCKER", file.read(), source)
