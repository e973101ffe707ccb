"""Volumes, networks that a test connects and disconnects, ports, and environment files."""

import os
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from harness import ContainerService, DockerTestCase, HarnessError, Mount, base_image, create_volume, daemon
from harness.fixtures.container import Container, Settings
from harness.fixtures.listening import free_port
from harness.runs import flag
from harness.runs.sweep import sweep

ROOT = Path(__file__).parents[2]

#: Answers each datagram with itself.
ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 53))
while True:
    server.sendto(*server.recvfrom(100))
"""


def setUpModule() -> None:
    flag.check()


def volumes() -> set[str]:
    """The names of all volumes of the daemon."""
    return {each["Name"] for each in daemon.client().volumes()["Volumes"] or ()}


class ShellTestCase(DockerTestCase):
    def start(self, script: str = "exec sleep 600", **settings: Any) -> Container:
        return self.start_container(base_image(), entrypoint=["sh", "-c", script], **settings)


class VolumeTest(ShellTestCase):
    def test_what_one_container_writes_another_one_reads(self) -> None:
        volume = self.create_volume()
        self.start("echo hello > /data/file", mounts=[Mount(volume, "/data")]).wait_for_exit()
        reader = self.start(
            "cat /there/file; touch /there/x || echo read-only", mounts=[Mount(volume, "/there", read_only=True)]
        )
        reader.wait_for_exit()
        self.assertEqual(reader.logs(stderr=False), "hello\nread-only\n")

    def test_it_goes_with_the_test(self) -> None:
        class Case(ShellTestCase):
            def runTest(self) -> None:
                self.start(mounts=[Mount(self.create_volume(), "/data")])
                self.names = volumes()

        before, case = volumes(), Case()
        result = unittest.TestResult()
        case.run(result)
        self.assertEqual((result.errors, result.failures), ([], []))
        made = [name for name in case.names - before if name.startswith("rtm-it-")]
        self.assertTrue(made)
        self.assertFalse(volumes() & set(made))

    def test_that_of_a_killed_run_is_swept(self) -> None:
        script = "import os, harness; print(harness.create_volume().name, flush=True); os.kill(os.getpid(), 9)"
        killed = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        left = killed.stdout.strip()
        self.assertIn(left, volumes())
        with create_volume() as mine:
            sweep()
            self.assertNotIn(left, volumes())
            self.assertIn(mine.name, volumes())
        self.assertNotIn(mine.name, volumes())


class NetworkTest(ShellTestCase):
    def test_a_container_is_connected_and_cut_off(self) -> None:
        one, other = self.create_network(), self.create_network()
        server = self.start("exec python3 -m http.server 80 --directory /tmp", network=one.name)
        client = self.start(network=other.name)
        code = "import urllib.request as r; print(r.urlopen('http://shop', timeout=2).status)"

        def exit_code() -> int:
            return client.exec(["python3", "-c", code])[0]

        self.assertNotEqual(exit_code(), 0)
        other.connect(server, aliases=["shop"])
        self.wait_until("an answer", lambda: exit_code() == 0)
        other.disconnect(server)
        self.assertNotEqual(exit_code(), 0)
        other.connect(server, aliases=["shop"])
        self.wait_until("an answer", lambda: exit_code() == 0)
        self.assertEqual(server.ip(one.name), server.ip(one.name))


class PortTest(ShellTestCase):
    def test_datagrams_reach_a_port_of_dockers_choice(self) -> None:
        made = self.start_container(base_image(), entrypoint=["python3", "-c", ECHO], ports=["53/udp"])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)

            def answer() -> bytes:
                client.sendto(b"hello", made.address("53/udp"))
                return client.recv(100)

            self.assertEqual(made.wait_until("an answer", answer), b"hello")

    def test_a_port_may_be_fixed(self) -> None:
        port = free_port()
        made = self.start(
            "exec python3 -m http.server 80 --directory /tmp", ports=[81], port_bindings={80: ("127.0.0.1", port)}
        )
        made.wait_for_http(80)
        self.assertEqual(made.address(80)[1], port)
        self.assertNotEqual(made.address("81/tcp")[1], port)


class EnvironmentFileTest(ShellTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = Path(self.enterContext(tempfile.TemporaryDirectory())) / "env"

    def test_a_later_file_goes_before_an_earlier_one_and_the_test_before_both(self) -> None:
        other = self.file.with_name("other")
        self.file.write_text("# of the shop\n\nA=1\nB=a = 'b'\nC=1\nFROM_HERE\nNOT_HERE\n")
        other.write_text("C=2\nD=2\n")
        with mock.patch.dict("os.environ", {"FROM_HERE": "here"}):
            made = self.start("env", env_files=[self.file, other], env={"D": "3"})
        made.wait_for_exit()
        lines = set(made.logs().splitlines())
        self.assertLessEqual({"A=1", "B=a = 'b'", "C=2", "D=3", "FROM_HERE=here"}, lines)
        self.assertFalse([line for line in lines if line.startswith("NOT_HERE")])

    def test_a_line_or_file_that_cannot_be_read_is_named(self) -> None:
        self.file.write_text("A=1\nB c=2\n")
        with self.assertRaisesRegex(HarnessError, "line 2 of .*env is not NAME=value: 'B c=2'"):
            self.start(env_files=[self.file])
        with self.assertRaisesRegex(HarnessError, "nowhere cannot be read"):
            self.start(env_files=[self.file.with_name("nowhere")])

    def test_a_mark_at_its_start_is_no_part_of_a_name_and_only_a_newline_ends_a_value(self) -> None:
        self.file.write_bytes("\ufeffA=1\r\n\tB=a\u2028b\x0cc\u00e9\n\r\n".encode())
        made = self.start("env", env_files=[self.file])
        made.wait_for_exit()
        self.assertLessEqual({"A=1", "B=a\u2028b\x0cc\u00e9"}, set(made.logs().split("\n")))
        self.file.write_text("A=1\n=2\n")
        with self.assertRaisesRegex(HarnessError, "line 2 of .*env is not NAME=value: '=2'"):
            self.start(env_files=[self.file])


class SettingsTest(ShellTestCase):
    def test_a_container_has_a_directory_and_a_platform(self) -> None:
        platform = "linux/" + daemon.client().version()["Arch"]
        made = self.start("pwd", working_dir="/srv", platform=platform)
        made.wait_for_exit()
        self.assertEqual(made.logs(), "/srv\n")


class Web(ContainerService):
    port = 80

    def image(self) -> str:
        return base_image()

    def settings(self) -> Settings:
        return {"entrypoint": ["python3", "-m", "http.server", "80", "--directory", "/srv"], "env": {"A": "1"}}

    def wait_until_ready(self) -> None:
        self.container.wait_for_http(80)


class Datagrams(ContainerService):
    port = "53/udp"

    def image(self) -> str:
        return base_image()

    def settings(self) -> Settings:
        return {"entrypoint": ["sleep", "600"], "labels": {"com.example": "datagrams"}}


class ContainerServiceTest(DockerTestCase):
    web: Web

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.web = cls.enterClassContext(Web(files={"/srv/page": "hello"}, ports=[81]))

    def test_it_answers_and_has_the_settings_of_its_class_and_of_the_test(self) -> None:
        with socket.create_connection((self.web.host, self.web.host_port)) as connection:
            connection.sendall(b"GET /page HTTP/1.0\r\n\r\n")
            self.assertIn(b"200 OK", connection.recv(1000))
        self.assertEqual(self.web.address, f"{self.web.host}:{self.web.host_port}")
        self.assertNotEqual(self.web.container.address(81), (self.web.host, self.web.host_port))

    def test_a_port_may_be_fixed_and_settings_replaced_under_any_of_their_names(self) -> None:
        page = {"/srv/page": "hello"}
        for key in (80, "80/tcp"):
            port = free_port()
            with self.subTest(key), Web(port_bindings={key: ("127.0.0.1", port)}, files=page, ports=[]) as web:
                self.assertEqual(web.host_port, port)
        with Web(
            host_config={"port_bindings": {80: ("127.0.0.1", free_port())}}, environment={"B": "3"}, files=page
        ) as web:
            found = web.container.inspect()["Config"]
            self.assertIn("B=3", found["Env"])

    def test_a_service_without_tcp_says_at_once_how_to_wait_for_it(self) -> None:
        with self.assertRaisesRegex(HarnessError, "port 53/udp of .*: wait for a log instead"):
            Datagrams()
        self.assertEqual(self.docker.containers(filters={"label": "com.example=datagrams"}), [])

    def test_one_that_does_not_come_up_shows_its_log_and_is_removed(self) -> None:
        before = {each["Id"] for each in self.docker.containers(all=True)}
        with self.assertRaisesRegex(Exception, "(?s)exit code 3.*sold out"):
            Web(entrypoint=["sh", "-c", "echo sold out; exit 3"], labels={"com.example": "web"})
        mine = self.docker.containers(all=True, filters={"label": "com.example=web"})
        self.assertEqual([each["Id"] for each in mine if each["Id"] not in before], [])

    def test_a_failed_test_has_the_log_of_its_classs_container_too(self) -> None:
        case = Failing("fails")
        with mock.patch("sys.stderr"):
            case.run(unittest.TestResult())
        folder = case.state_root.directory / "containers"
        self.addCleanup(case.state_root.remove)
        self.assertIn(f"{self.web.container.name}.log", os.listdir(folder))


class Failing(DockerTestCase):
    def fails(self) -> None:
        self.fail("as told")
