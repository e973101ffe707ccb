"""A run that passes, fails, is interrupted, terminated or killed leaves nothing, or nothing for long."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from harness import daemon
from harness.runs import flag, identity
from harness.runs.sweep import sweep
from harness.waiting import wait_until
from rtmanager.fakes.signals import as_in_a_terminal

ROOT = Path(__file__).parents[3]

#: A test with every kind of object that a run can leave. It prints them and then follows the instruction from stdin.
MODULE = """
import signal, sys, time
# A shell gives a command in the background an interrupt that is ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from harness import start_container, start_services
from harness.rtm import RuntimeTestCase
from harness.rtm.manager import ADDRESS_VARIABLE, start
from harness.runs.identity import current

def setUpModule():
    start_services()

class Everything(RuntimeTestCase):
    def test_it(self):
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        process = start({ADDRESS_VARIABLE: "127.0.0.1:1"}, self.log, sleeper)
        self.addCleanup(process.kill)
        self.start_runtime()
        self.post("start", {"image_ref": self.engine.ref})
        self.start_container(self.engine.ref, entrypoint=["sleep"], command=["600"])
        start_container(self.engine.ref, entrypoint=["sleep"], command=["600"])  # no clean-up is registered
        print(current().run, self.network.name, process.pid, flush=True)
        match sys.stdin.readline().strip():
            case "fail": self.fail("as told")
            case "hang": print("hanging", flush=True); time.sleep(600)
"""


def setUpModule() -> None:
    flag.check()


class Run:
    """A run of MODULE in a process of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        variables = {**os.environ, "RTM_IT_STATE_DIR": str(folder / "states"), **environment}
        (folder / "test_everything.py").write_text(MODULE)
        self.states = folder / "states"
        with (folder / "errors").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "unittest", "test_everything"],
                env={**variables, **identity.python_path(ROOT, folder)},
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        self.run, self.network, self.manager = [*self.process.stdout.readline().split(), "", "", "0"][:3]

    def send(self, word: str) -> None:
        """Send the test an instruction; returns when it blocks, or when the run has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def left(self) -> list[str]:
        """What Docker, the file system and the process table still contain of this run."""
        client = daemon.client()
        label = {"label": f"{identity.PREFIX}run={self.run}"}
        found = client.containers(all=True, filters=label) + client.networks(filters=label)
        found += client.containers(all=True, filters={"network": self.network})
        states = self.states.iterdir() if self.states.exists() else ()
        alive = [self.manager] if identity.process_start_time(int(self.manager)) else []
        return [each["Id"] for each in found] + [str(each) for each in states] + alive

    def errors(self) -> str:
        """The run's standard error."""
        return (self.folder / "errors").read_text()


class EndingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        as_in_a_terminal(cls)

    def run_of_its_own(self, **environment: str) -> Run:
        run = Run(Path(self.enterContext(tempfile.TemporaryDirectory())), environment)
        self.addCleanup(run.process.communicate)
        self.addCleanup(run.process.kill)
        self.assertTrue(run.run, run.errors())
        self.assertGreater(len(run.left()), 5)
        return run

    def test_nothing_is_left_after_a_pass(self) -> None:
        run = self.run_of_its_own()
        run.send("pass")
        self.assertEqual(run.process.wait(), 0, run.errors())
        self.assertEqual(run.left(), [])

    def test_after_a_failure_only_its_artefacts_are_left_and_their_place_is_reported(self) -> None:
        run = self.run_of_its_own()
        run.send("fail")
        self.assertEqual(run.process.wait(), 1)
        [directory] = run.left()
        self.assertIn(f"see {directory}", run.errors())
        there = {str(each.relative_to(directory)) for each in Path(directory).rglob("*") if each.is_file()}
        for name in ("logs/manager.log", "tables/runtime_records.jsonl", "streams/runtime:health_events.jsonl"):
            self.assertIn(name, there)
        game = [name for name in there if name.startswith("containers/galaxy-game-") and name.endswith(".log")]
        self.assertIn("engine", (Path(directory) / game[0]).read_text())

    def test_nothing_is_left_after_ctrl_c_sigterm_and_sighup(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number.name):
                run = self.run_of_its_own()
                run.send("hang")
                run.process.send_signal(number)
                self.assertNotEqual(run.process.wait(), 0)
                self.assertEqual(run.left(), [], run.errors())

    def test_nothing_is_left_of_a_demo_that_is_ended_while_its_servers_start(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for delay_s in (0.2, 0.6, 1.2):
                with self.subTest(signal=number, delay_s=delay_s):
                    self.end_a_demo(number, delay_s)

    def end_a_demo(self, number: signal.Signals, delay_s: float) -> None:
        states = self.enterContext(tempfile.TemporaryDirectory())
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.rtm", "demo"],
            cwd=ROOT,
            env={**os.environ, "RTM_IT_STATE_DIR": states},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertTrue(any("starting PostgreSQL" in line for line in process.stdout))
        time.sleep(delay_s)
        process.send_signal(number)
        self.assertNotIn("Traceback", process.communicate(timeout=60)[0])
        self.assertEqual(process.returncode, 128 + number)
        mine = {"label": f"{identity.PREFIX}pid={process.pid}"}
        left = daemon.client().containers(all=True, filters=mine) + daemon.client().networks(filters=mine)
        self.assertEqual(left, [])

    def test_what_a_killed_run_left_goes_with_the_next_and_a_run_beside_it_is_not_touched(self) -> None:
        beside = self.run_of_its_own()
        before = beside.left()
        killed = self.run_of_its_own()
        killed.send("hang")
        killed.process.kill()
        killed.process.wait()
        self.assertGreater(len(killed.left()), 5)

        with mock.patch.dict(os.environ, {"RTM_IT_STATE_DIR": str(killed.states)}):
            sweep()

        self.assertEqual(killed.left(), [])
        self.assertEqual(sorted(beside.left()), sorted(before))
        beside.send("pass")
        self.assertEqual(beside.process.wait(), 0, beside.errors())

    def test_what_is_to_be_kept_is_kept_until_it_is_requested(self) -> None:
        run = self.run_of_its_own(RTM_IT_KEEP="1")
        run.send("pass")
        self.assertEqual(run.process.wait(), 0, run.errors())
        found = re.search("sweep --kept ([0-9a-f]+)` takes", run.errors())
        assert found is not None
        kept = run.left()
        self.assertGreater(len(kept), 5)
        with mock.patch.dict(os.environ, {"RTM_IT_STATE_DIR": str(run.states)}):
            sweep()
            self.assertEqual(run.left(), kept)
            sweep(kept=True, runs=["0123456789ab"])
            self.assertEqual(run.left(), kept)
            sweep(kept=True, runs=[found[1]])
        wait_until("the end of all that was kept", lambda: not run.left())
