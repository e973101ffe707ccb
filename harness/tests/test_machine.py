"""Provision of a daemon on a bare machine, with stand-ins for apt-get and dockerd: nothing is installed."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from dataclasses import asdict
from pathlib import Path
from unittest import mock

from harness import daemon
from harness.errors import DaemonUnavailable, MachineNotReady
from harness.fixtures import dockerd as own_dockerd
from harness.fixtures.dockerd import needs
from harness.images.catalogue import USUAL
from harness.machine import apt, dockerd, doctor, up
from harness.runs.identity import process_start_time

#: Answers the request for the API's version on the socket of DOCKER_HOST.
FAKE_DOCKERD = """#!{python}
import http.server, json, os, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"ApiVersion": "1.41", "Version": "0"}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "client"
socketserver.UnixStreamServer(os.environ["DOCKER_HOST"].removeprefix("unix://"), Handler).serve_forever()
"""

#: dockerd's output when its store contains a partial network, as one line of shell.
PANIC = """printf 'panic: index out of range\\n\\ngithub.com/docker/libnetwork.New()\\n' >&2; seq 40 >&2
"""

#: Panics while there is a network store; Python's script follows.
PANICKING_DOCKERD = f"""#!{sys.executable}
import os, pathlib, sys
if list(pathlib.Path(os.environ["DOCKER_HOST"].removeprefix("unix://")).parent.glob("network/files/*.db")):
    sys.exit("panic: index out of range\\n\\ngithub.com/docker/libnetwork.New()")
"""

FAILING_DOCKERD = "#!/bin/sh\necho failed to mount the overlay >&2; exit 4\n"

#: Records its arguments; `install` fails until `update` was called.
FAKE_APT = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *update*) touch {log}.updated ;; *) test -e {log}.updated || {{ echo no such package; exit 100; }} ;; esac
"""


class MachineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.programs = self.directory / "bin"
        self.programs.mkdir()
        environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "XDG_STATE_HOME": str(self.directory / "state"),
            "DOCKER_HOST": f"unix://{self.directory}/docker.sock",
        }
        self.enterContext(mock.patch.dict(os.environ, environment))
        self.enterContext(mock.patch.object(dockerd, "systemd_runs", return_value=False))

    def program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)


class DockerdTest(MachineTest):
    def test_it_is_started_waited_for_remembered_and_stopped(self) -> None:
        self.program("dockerd", FAKE_DOCKERD.format(python=sys.executable))
        dockerd.start()
        self.addCleanup(dockerd.stop)
        daemon.connect().close()
        started = dockerd.ours()
        assert started is not None
        self.assertNotEqual(os.getsid(started.pid), os.getsid(0), "it outlives this session")
        self.assertTrue(dockerd.stop())
        self.assertIsNone(dockerd.ours())
        self.assertFalse(started.is_running())

    def test_networks_that_it_cannot_read_are_set_aside_and_kept(self) -> None:
        self.program("dockerd", PANICKING_DOCKERD + FAKE_DOCKERD.format(python=sys.executable).partition("\n")[2])
        store = self.directory / "network" / "files" / "local-kv.db"
        store.parent.mkdir(parents=True)
        store.write_text("half a network")
        self.enterContext(mock.patch.object(dockerd, "_data_root", return_value=self.directory))
        dockerd.start()
        self.addCleanup(dockerd.stop)
        daemon.connect().close()
        [aside] = store.parent.iterdir()
        self.assertEqual(aside.read_text(), "half a network")
        self.assertRegex(aside.name, r"local-kv\.db\.unreadable-\d{8}T\d{6}")

    def test_a_second_panic_is_the_failure_and_shows_where_it_began(self) -> None:
        self.program("dockerd", "#!/bin/sh\n" + PANIC + "exit 2\n")
        store = self.directory / "network" / "files" / "local-kv.db"
        store.parent.mkdir(parents=True)
        self.enterContext(mock.patch.object(dockerd, "_data_root", return_value=self.directory))
        for stored in (False, True):
            if stored:
                store.write_text("half a network")
            with self.subTest(stored=stored), self.assertRaisesRegex(MachineNotReady, r"(?s)exit code 2.*panic: index"):
                dockerd.start()

    def test_its_failure_shows_its_log_at_once(self) -> None:
        self.program("dockerd", FAILING_DOCKERD)
        with self.assertRaisesRegex(MachineNotReady, r"(?s)exit code 4.*failed to mount the overlay"):
            dockerd.start()

    def test_without_one_of_ours_nothing_is_stopped(self) -> None:
        self.assertFalse(dockerd.stop())

    def test_another_process_with_its_pid_is_not_stopped(self) -> None:
        process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        self.addCleanup(process.communicate)
        ours = dockerd.Started(process.pid, (process_start_time(process.pid) or 0) - 1)
        (dockerd.state_directory() / "dockerd.json").write_text(json.dumps(asdict(ours)))
        self.assertFalse(dockerd.stop())
        self.assertIsNone(process.poll())


class AptTest(MachineTest):
    def setUp(self) -> None:
        super().setUp()
        self.log = self.directory / "apt.log"
        self.program("apt-get", FAKE_APT.format(log=self.log))

    @mock.patch("os.geteuid", return_value=0)
    def test_lists_are_read_anew_only_when_that_is_needed(self, _root: mock.Mock) -> None:
        apt.install(["docker.io"])
        apt.install(["iptables"])
        calls = [line.split()[3] for line in self.log.read_text().splitlines()]
        self.assertEqual(calls, ["install", "update", "install", "install"])

    @mock.patch("os.geteuid", return_value=1000)
    def test_a_failure_shows_what_apt_printed(self, _user: mock.Mock) -> None:
        with self.assertRaisesRegex(MachineNotReady, r"(?s)install.*exit code 100.*no such package"):
            apt.install(["docker.io"])


class UpTest(unittest.TestCase):
    def setUp(self) -> None:
        self.environment = self.enterContext(mock.patch.dict(os.environ))
        for name in ("DOCKER_HOST",):
            os.environ.pop(name, None)
        replace = self.enterContext
        self.unavailable = replace(mock.patch.object(daemon, "why_unavailable", return_value="none answers"))
        self.install = replace(mock.patch.object(apt, "install"))
        self.start = replace(mock.patch.object(dockerd, "start"))
        self.missing = replace(mock.patch.object(up, "missing_programs", return_value=["dockerd", "iptables"]))
        self.lacking = replace(mock.patch.object(needs, "missing", return_value={}))
        self.user = replace(mock.patch("os.geteuid", return_value=0))
        self.has_apt = replace(mock.patch.object(apt, "available", return_value=True))
        replace(mock.patch.object(dockerd, "ours", return_value=None))
        replace(mock.patch.object(dockerd, "running_pid", return_value=None))
        replace(mock.patch.object(dockerd, "systemd_runs", return_value=False))

    def test_a_daemon_that_answers_is_all_there_is_to_do(self) -> None:
        self.unavailable.return_value = None
        up.up()
        self.install.assert_not_called()
        self.start.assert_not_called()

    def test_on_a_bare_machine_it_is_installed_and_started(self) -> None:
        up.up()
        self.install.assert_called_once_with(("docker.io", "iptables", "iproute2"))
        self.start.assert_called_once_with()

    def test_what_is_installed_is_only_started(self) -> None:
        self.missing.return_value = []
        up.up()
        self.install.assert_not_called()
        self.start.assert_called_once_with()

    def test_what_only_daemons_of_a_tests_own_need_is_installed_beside_one_that_answers(self) -> None:
        self.unavailable.return_value = None
        self.lacking.return_value = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux"}
        up.up()
        self.install.assert_called_once_with(["iproute2", "util-linux"])
        self.start.assert_not_called()

    def test_for_a_daemon_that_the_environment_names_nothing_is_installed(self) -> None:
        for name in ("DOCKER_HOST",):
            with self.subTest(name), mock.patch.dict(os.environ, {name: "tcp://elsewhere:2375"}):
                self.lacking.return_value = {"ip": "iproute2"}
                self.assertRaisesRegex(MachineNotReady, "nothing is installed", up.up)
                with mock.patch.object(daemon, "why_unavailable", return_value=None):
                    up.up()
        self.install.assert_not_called()
        self.start.assert_not_called()

    def test_without_root_it_says_what_root_does(self) -> None:
        self.user.return_value = 1000
        self.assertRaisesRegex(MachineNotReady, "as root", up.up)
        self.install.assert_not_called()

    def test_without_apt_it_says_what_to_install(self) -> None:
        self.has_apt.return_value = False
        self.assertRaisesRegex(MachineNotReady, "install the Docker Engine and iptables", up.up)
        self.start.assert_not_called()


class OwnDaemonTest(unittest.TestCase):
    def test_without_root_it_is_not_tried_and_a_test_is_skipped_with_the_cause(self) -> None:
        with mock.patch("os.geteuid", return_value=1000), mock.patch("sys.platform", "linux"):
            with self.assertRaisesRegex(MachineNotReady, "needs root"):
                own_dockerd.start()
            with self.assertRaisesRegex(unittest.SkipTest, "needs root"):
                needs.check()

    def test_programs_that_are_missing_are_named_with_their_packages(self) -> None:
        with (
            mock.patch("os.geteuid", return_value=0),
            mock.patch("shutil.which", side_effect=lambda name, path: None if name in ("ip", "nsenter") else name),
        ):
            self.assertRegex(str(needs.why_unavailable()), "ip, nsenter: apt-get install iproute2 util-linux")

    def test_elsewhere_than_on_linux_the_cause_is_the_system(self) -> None:
        with mock.patch("sys.platform", "darwin"):
            self.assertRegex(str(needs.why_unavailable()), "needs Linux")


class DoctorTest(unittest.TestCase):
    def test_without_a_daemon_every_check_that_fails_has_a_remedy(self) -> None:
        with mock.patch.object(daemon, "why_unavailable", return_value="none answers"):
            checks = list(doctor.examine(USUAL))
        failed = [check for check in checks if not check.ok]
        self.assertIn("Docker daemon", [check.name for check in failed])
        self.assertTrue(all(check.remedy for check in failed))


class DaemonTest(MachineTest):
    def test_no_socket_is_reported_in_plain_text(self) -> None:
        with self.assertRaisesRegex(DaemonUnavailable, "there is no such socket"):
            daemon.connect()

    def test_ports_of_a_remote_daemon_are_reached_at_its_host(self) -> None:
        with mock.patch.dict(os.environ, {"DOCKER_HOST": "tcp://elsewhere:2375"}):
            self.assertEqual(daemon.published_address(), ("0.0.0.0", "elsewhere"))
        self.assertEqual(daemon.published_address(), ("127.0.0.1", "127.0.0.1"))
