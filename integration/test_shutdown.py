"""Shutdown: running operations may complete, others are handed over, and nothing is left behind but games."""

import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import daemon, start_services, web
from harness.rtm import RuntimeTestCase
from harness.rtm.in_process import LiveRuntime
from integration.support import images
from rtmanager.fakes.signals import as_in_a_terminal

#: Cycles of start and stop; RTM_IT_CYCLES=200 for the long form.
CYCLES = int(os.environ.get("RTM_IT_CYCLES", "6"))

#: The threads that read jobs from Redis and then from PostgreSQL.
READING = {"rtm-ingest", "rtm-executor"}


def setUpModule() -> None:
    start_services()


class Signals(RuntimeTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        as_in_a_terminal(cls)

    def test_a_process_that_is_signalled_to_end_leaves_its_games_running_and_exits_0(self) -> None:
        """The third is frozen when the signal comes, and handles it after the thaw."""
        ways = (("TERM",), ("INT",), ("STOP", "TERM", "CONT"), ("USR1", "USR2", "HUP"))
        with ThreadPoolExecutor(len(ways)) as threads:
            started = [threads.submit(self.start_process) for _ in ways]
        processes = [each.result() for each in started]
        self.post("start", {"image_ref": self.engine.ref})
        for process, signals in zip(processes, ways, strict=True):
            for signal in signals:
                process.send(signal)

        self.assertEqual([process.wait(30) for process in processes], [0] * len(ways))

        [container] = self.containers()
        self.assertTrue(container["State"]["Running"])
        self.assertEqual(self.record()["status"], "running")
        for signal in ("SIGTERM", "SIGINT", "SIGHUP"):
            self.assertIn(f'"signal": "{signal}"', self.log.read_text())


class Stop(RuntimeTestCase):
    def start_patient(self, **changes: str) -> LiveRuntime:
        """Start a manager that gives a container a minute to end, after its program has started."""
        # Before its program runs and ignores the signal, the signal ends the container.
        return self.start_runtime(CONTAINER_STOP_TIMEOUT_SECONDS="60", FIRST_START_WATCH="1s", **changes)

    def stopping(self) -> str:
        """Begin a stop that ends only when its container is killed; return the container's id."""
        started = self.post("start", {"image_ref": images.tiny("ignores-signals")})
        self.add_stop_job()
        self.wait_until("the stop to begin", lambda: self.rows("SELECT FROM operations WHERE state = 'running'"))
        return str(started["current_container_id"])

    def test_what_runs_may_end_and_is_published_and_nothing_new_is_taken(self) -> None:
        live = self.start_patient(SHUTDOWN_TIMEOUT="60s")
        container_id = self.stopping()
        with ThreadPoolExecutor(1) as threads:
            end = threads.submit(live.stop)
            message = self.wait_until("calls to be refused", self.refusal)
            # Requests are rejected first; entries that were already read are still accepted.
            self.wait_until("reading to end", lambda: not READING & {each.name for each in threading.enumerate()})
            self.add_start_job()
            self.assertFalse(end.done())
            self.docker.kill(container_id)
            end.result()

        self.assertIn("stopping", message)
        [result] = self.entries("runtime:job_results")
        self.assertEqual((result["outcome"], result["error_code"]), ("success", ""))
        self.assertEqual(self.record()["status"], "stopped", "the start was not taken any more")

    def refusal(self) -> str:
        """The message of a request that is rejected because the instance stops; empty before that."""
        url = f"{self.base_url}/api/v1/internal/runtimes/unknown/stop"
        status, answer = web.call("POST", url, {"reason": "finished"})
        message = str(answer["error"]["message"])
        return message if status == 503 and "ask again" in message else ""

    def test_what_outlives_the_stop_is_handed_back_and_done_by_the_next(self) -> None:
        live = self.start_patient(SHUTDOWN_TIMEOUT="200ms")
        container_id = self.stopping()

        began = time.monotonic()
        live.stop()
        took = time.monotonic() - began

        self.assertLess(took, 30, "a stop is bounded by its timeout, not by Docker")
        self.assertEqual(self.entries("runtime:job_results"), [])
        [operation] = self.rows("SELECT state, owner FROM operations WHERE state <> 'done'")
        self.assertEqual(operation, {"state": "due", "owner": None})
        self.assertTrue(self.docker.inspect_container(container_id)["State"]["Running"])
        self.start_runtime(CONTAINER_STOP_TIMEOUT_SECONDS="0")
        self.assertEqual(self.results()[0]["outcome"], "success")
        self.assertEqual(self.record()["status"], "stopped")


class Cycles(RuntimeTestCase):
    def test_starting_and_stopping_again_and_again_leaves_nothing_behind(self) -> None:
        daemon.client().version()
        for _ in range(2):  # creates the objects that exist once per process
            self.start_runtime().stop()
        before = _held()
        for _ in range(CYCLES):
            self.start_runtime().stop()
        after = _held()

        self.assertEqual(after["threads"], before["threads"])
        self.assertEqual(after["descriptors"], before["descriptors"])
        self.assertLess(after["kilobytes"] - before["kilobytes"], 4096 + 10 * CYCLES)


def _held() -> dict[str, Any]:
    """The resources of this process, after a garbage collection."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "kilobytes": int(status.partition("VmRSS:")[2].split()[0]),
    }
