"""Odd user environments: proxies, missing certificates or packages, an odd config.json.

Each ends in a run, or in a skip (a failure with `require`) that names the cause; never in a traceback of the SDK.
"""

import http.server
import importlib.util
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest
from contextlib import suppress
from pathlib import Path
from unittest import mock

from harness import daemon, packages
from harness.errors import DaemonUnavailable
from harness.fixtures.closing import Closing
from harness.fixtures.faults.dialling import targets_of
from harness.fixtures.faults.listener import TcpDoor
from harness.fixtures.faults.proxy import TcpProxy
from harness.runs import flag, identity

ROOT = Path(__file__).parents[2]

#: Nothing listens there.
DEAD_PROXY = "http://127.0.0.1:9"


class _FakeDaemon(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"ApiVersion": "1.41", "Version": "0"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


class AddressTest(unittest.TestCase):
    """With a stand-in for a daemon on the loopback address."""

    def setUp(self) -> None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _FakeDaemon)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.url = f"tcp://127.0.0.1:{server.server_address[1]}"
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.set(DOCKER_HOST=self.url, DOCKER_CONFIG=str(self.folder))

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

    def test_a_credential_helper_that_is_not_installed_is_left_out(self) -> None:
        from docker import auth

        self.configure('{"credsStore": "nowhere", "credHelpers": {"registry.invalid": "nowhere"}}')
        client = daemon.connect()
        self.addCleanup(client.close)
        self.assertIsNone(auth.get_config_header(client, "registry.invalid"))
        self.assertEqual(vars(client)["_auth_configs"].get_all_credentials(), {})

    def test_one_that_is_installed_is_run(self) -> None:
        from docker import auth

        helper = self.folder / "docker-credential-here"
        helper.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"Username": "me", "Secret": "s"}\'\n')
        helper.chmod(0o755)
        self.set(PATH=f"{self.folder}:{os.environ['PATH']}")
        self.configure('{"credHelpers": {"registry.invalid": "here"}}')
        client = daemon.connect()
        self.addCleanup(client.close)
        self.assertIsNotNone(auth.get_config_header(client, "registry.invalid"))

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
        """Each in its own process, in which the package cannot be imported."""
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
                        env={**os.environ, **identity.python_path(ROOT), "MISSING": name, flag.VARIABLE: value},
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


class RemoteTest(unittest.TestCase):
    """The real daemon over TCP, as from a machine whose daemon is elsewhere."""

    def setUp(self) -> None:
        flag.check()
        if daemon.configured_host():
            self.skipTest("the daemon is not the one at the local socket")
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "test_shop.py").write_text(
            "from harness import ServicesTestCase, images, start_services\n"
            "def setUpModule(): start_services()\n"
            "class Shop(ServicesTestCase):\n"
            "    def test_it(self):\n"
            "        self.assertEqual(self.redis.incr('n'), 1)\n"
            "        network = self.create_network()\n"
            "        client = self.start_container(images.redis(), network=network.name,\n"
            "                                      entrypoint=['redis-cli', '-h', 'redis.test', 'INCR', 'n'])\n"
            "        self.assertEqual((client.wait_for_exit(), client.logs()), (0, '2\\n'))\n"
        )
        self.socket = daemon.LOCAL_SOCKET.removeprefix("unix://")

    def run_tests(self, **variables: str) -> None:
        run = subprocess.run(
            [sys.executable, "-m", "unittest"],
            env={**os.environ, **identity.python_path(ROOT), "RTM_INTEGRATION": "require", **variables},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_over_tcp_and_with_proxies_all_around(self) -> None:
        (self.folder / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": DEAD_PROXY}}}))
        proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), DEAD_PROXY)
        with TcpProxy(TcpDoor(), targets_of(self.socket)) as line:
            self.run_tests(DOCKER_HOST=line.url, DOCKER_CONFIG=str(self.folder), **proxies)

    @unittest.skipUnless(shutil.which("openssl"), "openssl is not installed")
    def test_over_tls_with_certificates_on_both_sides(self) -> None:
        certify(self.folder)
        with TlsFront(self.folder, self.socket) as front:
            self.run_tests(
                DOCKER_HOST=f"tcp://127.0.0.1:{front.port}", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(self.folder)
            )
            doctor = subprocess.run(
                [sys.executable, "-S", "-m", "harness", "doctor"],
                env={
                    **os.environ,
                    "DOCKER_HOST": f"tcp://127.0.0.1:{front.port}",
                    "DOCKER_TLS_VERIFY": "1",
                    "DOCKER_CERT_PATH": str(self.folder),
                },
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
        self.assertRegex(doctor.stdout, "ok +Docker daemon", doctor.stderr)

    def test_over_ssh_without_what_the_sdk_needs_for_it_the_cause_is_reported(self) -> None:
        if importlib.util.find_spec("paramiko"):
            self.skipTest("paramiko is installed")
        with (
            mock.patch.dict(os.environ, {"DOCKER_HOST": "ssh://nobody@127.0.0.1"}),
            self.assertRaisesRegex(DaemonUnavailable, "ssh://nobody@127.0.0.1: Install paramiko"),
        ):
            daemon.connect()


def certify(folder: Path) -> None:
    """Create an authority, and a certificate for both sides, in the files that Docker's clients read."""
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    sign = ["x509", "-req", "-in", "request.pem"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *key, "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem"],
        ["req", *key, "-subj", "/CN=both", "-keyout", "key.pem", "-out", "request.pem"],
        [*sign, "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", "names", "-out", "cert.pem"],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)


class TlsFront(Closing):
    """Accepts TLS from clients with a certificate, and forwards to a unix socket."""

    def __init__(self, folder: Path, target: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._context.load_verify_locations(folder / "ca.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._pass, args=(self._listener.accept()[0],), daemon=True).start()

    def _pass(self, raw: socket.socket) -> None:
        with (
            suppress(OSError),
            self._context.wrap_socket(raw, server_side=True) as client,
            socket.socket(socket.AF_UNIX) as server,
        ):
            server.connect(self._target)
            answers = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            answers.start()
            self._copy(client, server)
            answers.join(5)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(1 << 16):
                target.sendall(chunk)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
