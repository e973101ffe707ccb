"""What a user's environment may hold: proxies, certificates that are missing, an odd config.json, a package too few.

Each ends in a run, or in a skip (a failure under `require`) that tells the cause; never in a traceback of the SDK's.
"""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from harness import daemon, packages
from harness.errors import DaemonUnavailable
from harness.fixtures import faults
from harness.runs import flag

ROOT = Path(__file__).parents[2]

#: Nobody listens there.
DEAD_PROXY = "http://127.0.0.1:9"


class _FakeDaemon(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"ApiVersion": "1.41", "Version": "0"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class AddressTest(unittest.TestCase):
    """With a stand-in for a daemon on the loopback address."""

    def setUp(self) -> None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _FakeDaemon)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.url = f"tcp://127.0.0.1:{server.server_address[1]}"
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.set(DOCKER_HOST=self.url, DOCKER_CONFIG=str(self.folder), RTMANAGER_DOCKER_HOST="")

    def set(self, **variables: str) -> None:
        self.enterContext(mock.patch.dict(os.environ, variables))

    def configure(self, text: str) -> None:
        (self.folder / "config.json").write_text(text)

    def cause(self) -> str:
        with self.assertRaises(DaemonUnavailable) as refused:
            daemon.connect()
        self.assertIn("harness doctor", str(refused.exception))
        return str(refused.exception)

    def test_no_proxy_of_the_environment_stands_before_a_daemon(self) -> None:
        self.set(HTTP_PROXY=DEAD_PROXY, http_proxy=DEAD_PROXY, ALL_PROXY=DEAD_PROXY, NO_PROXY="", no_proxy="")
        daemon.connect().close()

    def test_nor_one_of_dockers_configuration(self) -> None:
        self.configure(json.dumps({"proxies": {"default": {"httpProxy": DEAD_PROXY}, self.url: {}}}))
        daemon.connect().close()

    def test_certificates_that_are_missing_are_the_cause(self) -> None:
        for variables in ({"DOCKER_TLS_VERIFY": "1"}, {"DOCKER_CERT_PATH": "/nowhere"}):
            with self.subTest(variables), mock.patch.dict(os.environ, {"DOCKER_CERT_PATH": "", **variables}):
                self.assertIn("certificates in", self.cause())

    def test_certificates_are_not_for_a_local_socket(self) -> None:
        self.set(DOCKER_TLS_VERIFY="1", DOCKER_HOST=f"unix://{self.folder}/docker.sock")
        self.assertIn("no such socket", self.cause())

    def test_a_configuration_that_the_sdk_cannot_read_is_the_cause(self) -> None:
        for text in (
            '{"auths": {"registry.invalid": "secret"}}',
            '{"auths": ["registry.invalid"]}',
            '{"auths": {"registry.invalid": {"auth": "?"}}}',
            '{"proxies": null}',
            '{"proxies": {"default": []}}',
            '{"HttpHeaders": 1, "auths": 7}',
            "[]",
            "[1, 2]",
        ):
            with self.subTest(text):
                self.configure(text)
                try:
                    daemon.connect().close()
                except DaemonUnavailable as refused:
                    self.assertIn("config", str(refused).lower())

    def test_an_address_that_is_none_is_the_cause(self) -> None:
        for address in (
            "tcp://",
            "tcp://[::1",
            "tcp://127.0.0.1:port",
            "nonsense",
            "unix:///nowhere/docker.sock",
            "unix://",
            "ftp://host:21",
            "npipe:////./pipe/docker",
            "tcp://127.0.0.1:9",
        ):
            with self.subTest(address), mock.patch.dict(os.environ, {"DOCKER_HOST": address}):
                self.assertIn(address, self.cause())

    def test_what_answers_and_is_no_daemon_is_the_cause(self) -> None:
        with mock.patch.object(_FakeDaemon, "do_GET", lambda handler: handler.send_error(418)):
            self.assertIn("418", self.cause())


class PackagesTest(unittest.TestCase):
    def test_a_package_that_is_missing_is_the_cause(self) -> None:
        """Each in a process of its own, in which it cannot be imported."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "test_shop.py").write_text(
            "import os, sys\nsys.modules[os.environ['MISSING']] = None\n"
            "from harness import ServicesTestCase, start_services, daemon\n"
            "daemon.why_unavailable.__globals__['_knock'] = lambda _address: None\n"
            "def setUpModule(): start_services()\n"
            "class Shop(ServicesTestCase):\n    def test_it(self): self.fail('it must not run')\n"
        )
        for name in ("docker", "psycopg", "redis"):
            for value, code in (("1", 0), ("require", 1)):
                with self.subTest(name=name, value=value):
                    run = subprocess.run(
                        [sys.executable, "-m", "unittest"],
                        env={**os.environ, "PYTHONPATH": str(ROOT), "MISSING": name, flag.VARIABLE: value},
                        cwd=folder,
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    self.assertEqual(run.returncode, code, run.stderr)
                    self.assertIn(f"the Python package {name} is missing: pip install", run.stderr)

    def test_one_that_does_not_load_says_why(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "half.py").write_text("raise ImportError('no pq wrapper available')")
        with (
            mock.patch.object(sys, "path", [str(folder), *sys.path]),
            mock.patch.dict(packages.NEEDED, half="'half[all]'"),
        ):
            self.assertEqual(
                packages.why_unusable("half"),
                "the Python package half does not load (no pq wrapper available): pip install 'half[all]'",
            )
        self.assertIsNone(packages.why_unusable("json"))


class ProxyTest(unittest.TestCase):
    def test_a_run_with_proxies_all_around_runs(self) -> None:
        """By the real daemon, over TCP, as a machine behind a proxy has it."""
        flag.check()
        if daemon.configured_host():
            self.skipTest("the daemon is not the one at the local socket")
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": DEAD_PROXY}}}))
        (folder / "test_shop.py").write_text(
            "from harness import ServicesTestCase, start_services\n"
            "def setUpModule(): start_services()\n"
            "class Shop(ServicesTestCase):\n"
            "    def test_it(self): self.assertEqual(self.redis.incr('n'), 1)\n"
        )
        socket = daemon.LOCAL_SOCKET.removeprefix("unix://")
        with faults.before(socket) as line:
            # Any client of TCP would do; the proxy stands for the one that a remote daemon has.
            variables = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), DEAD_PROXY)
            run = subprocess.run(
                [sys.executable, "-m", "unittest"],
                env={
                    **os.environ,
                    **variables,
                    "PYTHONPATH": str(ROOT),
                    "DOCKER_CONFIG": str(folder),
                    "DOCKER_HOST": line.url,
                    "RTM_INTEGRATION": "require",
                },
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
        self.assertEqual(run.returncode, 0, run.stderr)
