"""The short form of `make bench`: one start job against the bare SDK's create and start."""

import io
import json
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from bench.cli import main
from harness.runs import flag


def setUpModule() -> None:
    flag.check()


class OneRound(unittest.TestCase):
    def test_each_side_does_its_work_and_has_its_figure(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "start.json")
            with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
                code = main(["start", "--runs", "1", "--json", str(path)])

            self.assertEqual(code, 0, err.getvalue())
            figures = json.loads(path.read_text())["figures"]
            self.assertTrue(figures)
            self.assertEqual([each["rounds"] for each in figures], [1] * len(figures))
            self.assertIn(figures[0]["contest"], out.getvalue())
