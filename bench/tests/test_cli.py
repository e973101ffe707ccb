"""The command line runs a bench by its name, and reports a missing package in one line."""

import io
import json
import sys
import tempfile
import types
import unittest
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from bench import calibration, catalogue
from bench.catalogue import Bench
from bench.cli import main
from bench.comparison import Contest, Side, timed
from bench.errors import BenchError
from bench.measure import Measure
from harness.errors import WaitFailed


class CommandLineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.order: list[str] = []
        self.made = types.ModuleType("made_bench")
        self.made.__dict__["bench"] = lambda: Bench(self.contests, notes={"weather": "fine"})
        self.enterContext(mock.patch.dict(sys.modules, {"made_bench": self.made}))
        self.enterContext(mock.patch.object(catalogue, "BENCHES", {"some": ("made_bench", "a bench of this test")}))
        self.enterContext(mock.patch("bench.cli.BENCHES", catalogue.BENCHES))
        self.enterContext(mock.patch.object(calibration, "cpu_s", lambda: 1.0))

    def contests(self) -> Iterator[Contest]:
        for title in ("first", "second"):
            self.order.append(f"{title} is prepared")
            side = timed(lambda: self.order.append("run"))
            yield Contest(title, Side("ours", side), [Side("theirs", side)])

    def run_bench(self, *arguments: str) -> tuple[int, str, str]:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main([*arguments])
        return code, out.getvalue(), err.getvalue()

    def test_a_bench_prints_its_table_and_its_conditions_and_keeps_the_runs(self) -> None:
        path = self.folder / "kept.json"

        code, out, _ = self.run_bench("some", "--runs", "2", "--json", str(path))

        self.assertEqual(code, 0)
        self.assertIn("| first: the whole |", out)
        self.assertIn("| second: the whole |", out)
        self.assertIn("- weather: fine", out)
        self.assertEqual(set(json.loads(path.read_text())["seconds"]), {"first", "second"})

    def test_measures_of_a_machine_that_changes_meanwhile_have_a_note_but_for_counts(self) -> None:
        measures = [Measure("size", 3.0, "MB", at_most=4), Measure("lost", 1, "", at_most=0)]
        self.made.__dict__["bench"] = lambda: Bench(measures=lambda: measures)
        speeds = iter((1.3, 1.0))
        with mock.patch.object(calibration, "cpu_s", lambda: next(speeds)):
            _, out, _ = self.run_bench("some", "--json", str(self.folder / "kept.json"))

        self.assertIn("| size |  | 3.00 MB (CPU 30% faster afterwards) | ≤ 4.00: reached |", out)
        self.assertIn("| lost |  | 1.00  | ≤ 0: **missed** |", out)

    def test_a_contest_is_prepared_when_the_one_before_is_over(self) -> None:
        self.run_bench("some", "--runs", "1", "--json", str(self.folder / "kept.json"))

        self.assertEqual(self.order, ["first is prepared", *["run"] * 4, "second is prepared", *["run"] * 4])

    def test_a_package_that_is_missing_is_one_line_with_the_remedy(self) -> None:
        self.enterContext(mock.patch.dict(sys.modules, {"made_bench": None}))

        code, _, err = self.run_bench("some")

        self.assertEqual(code, 1)
        self.assertEqual(err, "bench: the Python package made_bench is missing: pip install -e '.[bench]'\n")

    def test_a_run_that_went_wrong_gives_no_figure(self) -> None:
        path = self.folder / "kept.json"
        failing = mock.Mock(side_effect=BenchError("the side before left some"))
        contest = Contest("first", Side("ours", failing), [])
        self.made.__dict__["bench"] = lambda: Bench(lambda: [contest])

        code, out, err = self.run_bench("some", "--json", str(path))

        self.assertEqual((code, out, path.exists()), (1, "", False))
        self.assertIn("the side before left some", err)

    def test_what_went_wrong_first_is_reported_also_when_tidying_up_fails_then(self) -> None:
        def contests() -> Iterator[Contest]:
            try:
                raise OSError("Docker has hung up")
            finally:
                raise WaitFailed("the network is still there")

        self.made.__dict__["bench"] = lambda: Bench(contests)

        code, _, err = self.run_bench("some", "--json", str(self.folder / "kept.json"))

        self.assertEqual(code, 1)
        self.assertEqual(err, "bench: OSError: Docker has hung up\nbench: the network is still there\n")

    def test_no_rounds_are_refused(self) -> None:
        with self.assertRaises(SystemExit), redirect_stderr(io.StringIO()) as err:
            main(["some", "--runs", "0"])
        self.assertIn("at least one", err.getvalue())


class MakefileTest(unittest.TestCase):
    def test_make_bench_runs_every_bench_but_that_of_recovery(self) -> None:
        (line,) = (line for line in Path("Makefile").read_text().splitlines() if line.startswith("BENCH = "))

        self.assertEqual(sorted(line.split()[2:]), sorted({*catalogue.BENCHES} - {"recovery"}))
