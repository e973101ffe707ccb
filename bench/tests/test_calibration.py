"""A change of speed between two timings is detected, and each piece of work runs."""

import unittest
from contextlib import closing
from pathlib import Path
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
    def test_exactly_the_benches_with_measures_name_what_these_depend_on(self) -> None:
        for module, _ in BENCHES.values():
            source = Path(module.replace(".", "/") + ".py").read_text()
            self.assertEqual("leans_on=" in source, "measures=" in source, module)

    def test_measures_with_containers_depend_on_docker(self) -> None:
        for name in ("harness", "profile"):
            source = Path(BENCHES[name][0].replace(".", "/") + ".py").read_text()
            self.assertIn("leans_on=(DOCKER", source, name)
