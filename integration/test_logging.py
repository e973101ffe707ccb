"""Log and output that are not read or cannot be written, and workers that fail by a defect; on real services."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from harness import start_services, web
from harness.rtm import RuntimeTestCase, manager
from harness.rtm.manager import ManagerProcess
from rtmanager.operations.executor import Executor
from rtmanager.workers.crash_restarts import CrashRestarts
from rtmanager.workers.ingest import Ingest
from rtmanager.workers.inspector import Inspector
from rtmanager.workers.lease import LeaseKeeper
from rtmanager.workers.loop import Loop
from rtmanager.workers.outbox import Relay
from rtmanager.workers.prober import Prober
from rtmanager.workers.reconcile.listener import EventListener
from rtmanager.workers.reconcile.scan import DriftScan
from rtmanager.workers.retention import Retention

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "rtmanager")
#: Seconds: an orderly end without work takes one or two, and the last lines of the log one more.
END_S = 30.0

WORKERS: Mapping[str, Any] = {
    "lease": LeaseKeeper,
    "outbox": Relay,
    "executor": Executor,
    "ingest": Ingest,
    "events": EventListener,
    "reconcile": DriftScan,
    "inspect": Inspector,
    "probe": Prober,
    "retention": Retention,
    "crash-restarts": CrashRestarts,
}


def failing_while(broken: threading.Event, step: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A worker's step that raises an error of a defect while `broken` is set."""

    def defective(worker: object) -> bool:
        if broken.is_set():
            raise TypeError("nobody foresaw this")
        return step(worker)

    return defective


def setUpModule() -> None:
    start_services()


class LogTestCase(RuntimeTestCase):
    def serve(self, stderr: int, *command: str) -> ManagerProcess:
        """Start a manager that logs at debug level to that descriptor, which is closed here."""
        address = manager.free_address()
        environment = self.environment(INTERNAL_HTTP_ADDR=address, LOG_LEVEL="debug")
        process = subprocess.Popen(
            command or (*COMMAND, "serve"),
            env=manager.whole_environment(environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        os.close(stderr)
        made = ManagerProcess(process, address, self.log)
        self.addCleanup(made.kill)
        self.log.touch()
        return made

    def pipe(self, *, full: bool = False) -> tuple[int, int]:
        """A pipe whose reading end stays open; with `full`, its buffer is full."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        while full:
            try:
                os.write(writer, b"x" * 4095 + b"\n")
            except BlockingIOError:
                break
        os.set_blocking(writer, True)
        return reader, writer

    def metric(self, process: ManagerProcess, name: str) -> float:
        """The value of one of its metrics."""
        lines = web.text(f"{process.base_url}/metrics").splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


class NobodyReads(LogTestCase):
    def test_with_a_full_pipe_for_a_log_jobs_are_done_and_the_process_ends_in_time(self) -> None:
        reader, writer = self.pipe(full=True)
        self.addCleanup(os.close, reader)
        process = self.serve(writer)
        process.wait_until_ready()
        self.base_url = process.base_url

        self.add_start_job()
        self.assertEqual([each["outcome"] for each in self.results()], ["success"])
        for _ in range(200):
            self.assertEqual(web.call("GET", f"{process.base_url}/readyz"), (200, {"status": "ready"}))
        self.post("stop", {"reason": "finished"})

        self.assertEqual(process.terminate(END_S), 0)

    def test_a_reader_that_comes_late_gets_every_line(self) -> None:
        reader, writer = self.pipe(full=True)
        process = self.serve(writer)
        process.wait_until_ready()
        with open(reader, "rb") as read:
            for _ in range(16):
                self.assertEqual(read.readline(), b"x" * 4095 + b"\n")
            first = json.loads(read.readline())
            process.process.terminate()
            lines = [first, *map(json.loads, read)]
        self.assertEqual(process.wait(END_S), 0)
        messages = [line["message"] for line in lines]
        self.assertEqual(messages[-1], "stopped")
        self.assertLess(messages.index("serving"), messages.index("stopping"))

    def test_whatever_stderr_is_the_process_serves_and_ends_with_0(self) -> None:
        gone_reader, gone = self.pipe()
        os.close(gone_reader)
        terminal, stopped = pty.openpty()
        self.addCleanup(os.close, terminal)
        shell = ("sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "serve")
        processes = {
            "nobody reads the pipe any more": self.serve(gone),
            "a full disk": self.serve(os.open("/dev/full", os.O_WRONLY)),
            "a terminal that shows nothing": self.serve(stopped),
            "closed": self.serve(os.open(os.devnull, os.O_WRONLY), *shell),
        }
        for process in processes.values():
            process.wait_until_ready()
        # No descriptor that was opened later has the number of the closed stream.
        self.assertEqual(os.readlink(f"/proc/{processes['closed'].pid}/fd/2"), os.devnull)

        self.add_start_job()
        self.assertEqual([each["outcome"] for each in self.results()], ["success"])
        lost = {what: self.metric(each, "rtmanager_log_lines_dropped_total") for what, each in processes.items()}
        for process in processes.values():
            process.send("TERM")

        self.assertEqual({process.wait(END_S) for process in processes.values()}, {0}, processes)
        self.assertGreater(lost["nobody reads the pipe any more"], 0)
        self.assertGreater(lost["a full disk"], 0)

    def test_commands_keep_their_exit_code(self) -> None:
        run = " ".join(COMMAND)
        good = manager.whole_environment(self.environment())
        bad = {**good, "RTMANAGER_DOCKER_NETWORK": "no-such-network"}
        wrong = {**good, "RTMANAGER_PROBE_INTERVAL": "soon"}
        nowhere = {**good, "RTMANAGER_GAME_STATE_ROOT": "/nowhere/é"}
        ascii_only = {**nowhere, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
        wanted = {
            (f"{run} migrate 2>&1 | true", 0): good,
            (f"{run} check | true", 0): good,
            (f"{run} check >/dev/full", 0): good,
            (f"{run} check >&- 2>&- <&-", 0): good,
            (f"{run} --help | true", 0): good,
            (f"{run} check | head -1", 1): bad,
            (f"{run} check", 1): ascii_only,
            (f"{run} serve 2>&-", 2): wrong,
        }
        codes = {}
        for (line, _), environment in wanted.items():
            ended = subprocess.run(
                ["bash", "-c", f"{line}\nexit ${{PIPESTATUS[0]}}"],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                timeout=60,
                check=False,
            )
            codes[line] = ended.returncode
            self.assertNotIn(b"Traceback", ended.stdout + ended.stderr, line)
            self.assertNotIn(b"Exception ignored", ended.stdout + ended.stderr, line)
        self.assertEqual(codes, dict(list(wanted)))


class Defects(LogTestCase):
    def test_a_worker_that_fails_each_time_is_reported_until_it_works_again(self) -> None:
        broken = self.state_root.directory / "broken"
        broken.touch()
        command = (sys.executable, "-m", "integration.support.defective", str(broken))
        process = self.serve(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), *command)
        url = f"{process.base_url}/readyz"

        def message() -> str:
            try:
                return str(web.call("GET", url)[1].get("error", {}).get("message", "ready"))
            except ConnectionRefusedError:
                return ""

        pattern = (
            r"worker outbox: fails by a defect since 20\S+Z, \d+ times in a row: NotImplementedError: a date style\\n"
        )
        self.wait_until("it to be named", lambda: re.fullmatch(f"not ready: {pattern}.*", message()))
        self.assertEqual(web.call("GET", f"{process.base_url}/healthz")[0], 200)
        self.add_start_job()
        failures = 'rtmanager_worker_failures_total{worker="outbox"}'
        self.wait_until("more of them", lambda: self.metric(process, failures) > 5)

        broken.unlink()
        self.assertEqual([each["outcome"] for each in self.results()], ["success"])
        self.wait_until("it to be ready", lambda: message() == "ready")
        broken.touch()
        self.assertEqual(process.terminate(END_S), 0)

        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        traces = [line for line in lines if "traceback" in line]
        messages = [(line["message"], line.get("worker")) for line in traces]
        self.assertEqual(messages[0], ("worker step failed", "outbox"))
        self.assertEqual(messages[-1], ("messages stay in the outbox by a defect", None))
        self.assertLess(len(traces), 5, "each repetition is in the log")
        self.assertIn("NotImplementedError", traces[0]["traceback"])

    def test_whichever_worker_it_is(self) -> None:
        broken = threading.Event()
        broken.set()
        for worker in WORKERS.values():
            self.enterContext(mock.patch.object(worker, "step", failing_while(broken, worker.step)))
        live = self.start_runtime(CRASH_RESTART="on")

        def named() -> set[str]:
            message = str(web.call("GET", f"{live.base_url}/readyz")[1])
            return {name for name in WORKERS if f"worker {name}: fails by a defect" in message}

        self.wait_until("all of them to be named", lambda: named() == set(WORKERS))
        broken.clear()
        self.wait_until("all but the events, which are listened to for a while", lambda: named() <= {"events"})

    def test_a_thread_that_is_gone_is_reported(self) -> None:
        with mock.patch.object(Loop, "_guarded_step", side_effect=SystemExit):
            live = self.start_runtime()
            url = f"{live.base_url}/readyz"
            reason = "worker lease: its thread has ended"
            self.wait_until("it to be named", lambda: reason in str(web.call("GET", url)))


class InTheTestsProcess(RuntimeTestCase):
    def test_what_libraries_log_goes_to_the_managers_log_and_not_to_the_terminal(self) -> None:
        terminal = mock.Mock(wraps=logging.lastResort, level=logging.NOTSET)
        self.enterContext(mock.patch.object(logging, "lastResort", terminal))
        live = self.start_runtime()
        logging.getLogger("psycopg.pool").warning("a line of the pool")
        live.stop()

        self.assertEqual(self.log.read_text().count("a line of the pool"), 1)
        terminal.handle.assert_not_called()
        self.assertEqual(logging.getLogger("psycopg").handlers, [])
