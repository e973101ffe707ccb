"""RTM_IT_TIMING: what counts as Docker's work, and the report of a real run."""

import io
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from harness import timing
from harness.errors import HarnessError
from harness.runs import flag
from harness.timing import report
from harness.timing.relay import Exchange
from harness.timing.spans import Segment, Spans, overlap, union

ROOT = Path(__file__).parents[2]


class ExchangeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.journal = io.StringIO()
        self.exchange = Exchange(self.journal)

    def kinds(self) -> list[str]:
        return [each.kind for each in report.read(self.journal.getvalue().splitlines())]

    def test_a_request_in_several_chunks_with_an_answer_in_several_is_one(self) -> None:
        self.exchange.requested(b"POST /v1.41/containers/create?name=x HTTP/1.1\r\nHost: x\r\n\r\n")
        self.exchange.requested(b'{"Image": "x"}')
        self.exchange.answered(b"HTTP/1.1 201 Created\r\n\r\n")
        self.exchange.answered(b"{}")
        self.exchange.requested(b"POST /v1.41/containers/abc/start HTTP/1.1\r\n\r\n")
        self.exchange.answered(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.exchange.close()
        self.assertEqual(self.kinds(), ["containers create", "containers start"])

    def test_one_without_an_answer_lasts_until_its_connection_ends(self) -> None:
        self.exchange.requested(b"DELETE /v1.41/networks/abc HTTP/1.1\r\n\r\n")
        self.exchange.close()
        [request] = report.read(self.journal.getvalue().splitlines())
        self.assertEqual(request.kind, "networks delete")
        self.assertGreaterEqual(request.ended, request.began)

    def test_what_only_waits_is_no_work(self) -> None:
        for path in ("events?since=1", "containers/abc/wait", "containers/abc/attach"):
            self.exchange.requested(f"GET /v1.41/{path} HTTP/1.1\r\n\r\n".encode())
            self.exchange.answered(b"HTTP/1.1 200 OK\r\n\r\n")
        self.exchange.close()
        self.assertEqual(self.kinds(), [])


class ArithmeticTest(unittest.TestCase):
    def test_what_overlaps_counts_once(self) -> None:
        joined = union([(5, 6), (0, 2), (1, 3), (3, 4)])
        self.assertEqual(joined, [(0, 4), (5, 6)])
        self.assertEqual(overlap(3.5, 5.5, joined), 1.0)

    def test_of_nested_spans_the_outermost_counts(self) -> None:
        spans = Spans(0.0, "tests")
        with spans.span("outer"), spans.span("inner"):
            pass
        spans.turn("")
        self.assertEqual([each.what for each in spans.segments], ["tests", "outer", "tests"])

    def test_the_table_has_docker_first_and_the_rest_without_it(self) -> None:
        requests = [report.Request(0.0, 6.0, "POST", "/v1.41/containers/x/start")]
        table = report.table(requests, [Segment("tests", 0.0, 8.0), Segment("waiting", 8.0, 10.0)])
        self.assertRegex(table, r"(?s)10\.0 s went.*Docker at work +6\.0 s +60\.0%.*tests +2\.0 s.*waiting +2\.0 s")

    def test_processes_side_by_side_share_one_table(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "1.timing").write_text("10.0 14.0\n10.0 12.0 POST /v1.41/containers/x/start\n")
        (folder / "2.timing").write_text("11.0 20.0\n11.0 13.0 POST /v1.41/containers/y/start\n")
        self.assertRegex(report.merged(folder), r"(?s)2 processes.*10\.0 s went.*Docker at work +3\.0 s +30\.0%")

    def test_a_folder_in_which_nobody_noted_anything_is_named(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        with self.assertRaisesRegex(HarnessError, f"{folder}.*RTM_IT_TIMING=1"):
            report.merged(folder)

    def test_switched_off_nothing_is_in_between(self) -> None:
        if timing.enabled():
            self.skipTest("this run is timed")
        self.assertEqual(timing.relayed("unix:///somewhere"), "unix:///somewhere")


class TimedRunTest(unittest.TestCase):
    def test_a_timed_run_reports_docker_and_itself_and_leaves_nothing(self) -> None:
        flag.check()
        folder = self.enterContext(tempfile.TemporaryDirectory())
        test = "harness.tests.test_container.ContainerTest.test_exec_gives_exit_code_and_output"
        run = subprocess.run(
            [sys.executable, "-m", "unittest", test],
            env=os.environ | {"RTM_IT_TIMING": "1", "TMPDIR": folder},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertRegex(run.stderr, r"Docker at work +\d")
        self.assertIn("containers start", run.stderr)
        self.assertNotIn("Traceback", run.stderr)
        self.assertEqual([each.name for each in Path(folder).iterdir() if "timing" in each.name], [])
