"""A manager process, with a stand-in program instead of the manager."""

import os
import sys
import tempfile
import time
import unittest
from pathlib import Path

from harness.errors import WaitFailed
from harness.rtm import manager

#: Answers 200 to the third GET /readyz and not before; prints each request's path on stderr.
READY_PROGRAM = """
import http.server, itertools, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
count = itertools.count(1)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if next(count) >= 3 else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()
host, port = os.environ["RTMANAGER_INTERNAL_HTTP_ADDR"].split(":")
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""

FAILING_PROGRAM = "import sys; sys.exit('RTMANAGER_GAME_STATE_ROOT is missing')"

DEAF_PROGRAM = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
while True: signal.pause()
"""


class ManagerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.log = Path(self.enterContext(tempfile.TemporaryDirectory())) / "manager.log"

    def start(self, program: str, **environment: str) -> manager.ManagerProcess:
        environment.setdefault(manager.ADDRESS_VARIABLE, manager.free_address())
        return self.enterContext(manager.start(environment, self.log, [sys.executable, "-c", program]))

    def test_it_is_waited_for_until_it_is_ready(self) -> None:
        process = self.start(READY_PROGRAM)
        process.wait_until_ready()
        self.assertIsNone(process.exit_code)
        self.assertEqual(self.log.read_text().count("/readyz"), 3)

    def test_terminate_gives_its_exit_code(self) -> None:
        process = self.start(READY_PROGRAM)
        process.wait_until_ready()
        self.assertEqual(process.terminate(), 3)

    def test_kill_ends_it_by_signal_9(self) -> None:
        process = self.start(READY_PROGRAM)
        process.kill()
        self.assertEqual(process.exit_code, -9)

    def test_the_wait_ends_with_the_process_and_shows_its_last_log_lines(self) -> None:
        began = time.monotonic()
        with self.assertRaisesRegex(WaitFailed, r"(?s)exit code 1.*RTMANAGER_GAME_STATE_ROOT is missing"):
            self.start(FAILING_PROGRAM).wait_until_ready()
        self.assertLess(time.monotonic() - began, 10)

    def test_one_that_does_not_heed_sigterm_is_killed_and_reported(self) -> None:
        process = self.start(DEAF_PROGRAM)
        while "deaf" not in self.log.read_text():
            time.sleep(0.01)
        with self.assertRaisesRegex(WaitFailed, "did not end"):
            process.terminate(timeout_s=0.1)
        self.assertEqual(process.exit_code, -9)

    def test_the_runners_own_settings_of_a_manager_are_not_handed_on(self) -> None:
        os.environ["RTMANAGER_TEST_LEAK"] = "x"
        self.addCleanup(os.environ.pop, "RTMANAGER_TEST_LEAK")
        script = "import os; print('leak' if 'RTMANAGER_TEST_LEAK' in os.environ else 'none')"
        process = self.start(script)
        process.process.wait()
        self.assertEqual(self.log.read_text(), "none\n")

    def test_the_default_address_is_reached_over_loopback(self) -> None:
        process = self.start(FAILING_PROGRAM, RTMANAGER_INTERNAL_HTTP_ADDR=":8096")
        self.assertEqual(process.base_url, "http://127.0.0.1:8096")
