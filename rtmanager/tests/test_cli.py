"""The command line: the output of `check` for each dependency, and the effect of signals on commands."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import IO, Any
from unittest import mock

from rtmanager import cli, resources
from rtmanager.bootstrap.app import Runtime
from rtmanager.bootstrap.dependencies import Dependencies
from rtmanager.bootstrap.startup import StartupFailed
from rtmanager.config.settings import Config
from rtmanager.fakes.signals import as_in_a_terminal
from rtmanager.tests.fake_daemon import FakeDaemon

#: Nothing listens at port 1.
ENVIRONMENT = {
    "RTMANAGER_POSTGRES_PRIMARY_DSN": "postgresql://nobody@127.0.0.1:1/x",
    "RTMANAGER_REDIS_MASTER_ADDR": "127.0.0.1:1",
    "RTMANAGER_GAME_STATE_ROOT": f"{tempfile.gettempdir()}/rtmanager-test-games",
    "RTMANAGER_LOBBY_INTERNAL_BASE_URL": "http://lobby",
    "RTMANAGER_STARTUP_WAIT": "1ms",
}
AWAY = "check that Docker runs there, and that RTMANAGER_DOCKER_HOST is right"


class CheckOfDockerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)

    def lines(self, host: str = "", names: tuple[str, ...] = ("docker", "network")) -> dict[str, str]:
        """Docker's lines in the output of `check`, by name, with their remedies; the last of several with one name."""
        output = io.StringIO()
        config = Config.from_environment({**ENVIRONMENT, "RTMANAGER_DOCKER_HOST": host or self.daemon.host})
        with redirect_stdout(output):
            self.assertEqual(cli.check(config, logging.getLogger("test")), cli.FAILED)
        text = output.getvalue().replace("\n" + " " * 20, " ")
        lines = {line[8:18].strip(): line[18:].strip() for line in text.splitlines()}
        return {name: lines[name] for name in names}

    def test_a_message_with_a_remedy_has_no_other(self) -> None:
        lines = self.lines()
        self.assertRegex(lines["docker"], f"does not answer: No such file or directory; {AWAY}$")

    def test_the_network_is_unknown_while_docker_is_away(self) -> None:
        lines = self.lines()
        self.assertRegex(lines["network"], f"^whether the Docker network 'galaxy-net' exists is unknown: .*{AWAY}$")
        self.assertNotIn("create", lines["network"])

    def test_a_network_that_is_missing_has_its_remedy(self) -> None:
        self.daemon.start()
        self.daemon.answers["GET /networks"] = lambda exchange: exchange.reply(200, [])
        lines = self.lines()
        self.assertEqual(lines["docker"], "Docker 0 (API 1.41)")
        self.assertRegex(lines["network"], "does not exist.* remedy: docker network create galaxy-net$")

    def test_a_log_driver_that_docker_lacks_has_its_remedy_and_one_that_may_not_be_queried_is_a_warning(self) -> None:
        self.daemon.start()
        self.daemon.answers["GET /plugins"] = lambda exchange: exchange.reply(200, [])
        self.daemon.answers["GET /info"] = lambda exchange: exchange.reply(200, {"Plugins": {"Log": ["journald"]}})
        line = self.lines(names=("log driver",))["log driver"]
        self.assertRegex(line, "^Docker has no log driver 'json-file'; it has journald, none remedy: .*LOG_DRIVER")
        self.daemon.answers["GET /info"] = lambda exchange: exchange.refuse(403, "forbidden")
        line = self.lines(names=("log driver",))["log driver"]
        self.assertRegex(line, "^whether Docker has the log driver json-file is unknown: .*pass `GET /info`")

    def test_two_networks_of_one_name_have_theirs(self) -> None:
        self.daemon.start()
        networks = [{"Id": number, "Name": "galaxy-net"} for number in "12"]
        self.daemon.answers["GET /networks"] = lambda exchange: exchange.reply(200, networks)
        self.assertRegex(self.lines()["network"], "^2 Docker networks are called 'galaxy-net'.* remedy: .*network rm")

    def test_an_answer_without_a_remedy_gets_one_of_docker(self) -> None:
        self.daemon.start()
        self.daemon.answers["GET /version"] = lambda exchange: exchange.refuse(500, "no space left on device")
        for line in self.lines().values():
            self.assertRegex(
                line, "answered 500 to `GET /version`: no space.* remedy: read the log of the Docker daemon"
            )


#: Checks that depend on the results of others.
LATER = ("daemon", "room", "directory", "container")


class CheckForAProgramTest(unittest.TestCase):
    def run_check(self, *options: str, **environment: str) -> tuple[int, dict[str, Any], str]:
        done = subprocess.run(
            [sys.executable, "-m", "rtmanager", "check", "--json", *options],
            env=os.environ | ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout), done.stderr

    def test_it_is_one_object_on_stdout_whatever_is_wrong(self) -> None:
        code, found, _ = self.run_check(RTMANAGER_DOCKER_HOST="unix:///nowhere")
        names = [*("postgres", "redis", "docker", "network", "log driver", "state root", "access"), *LATER]
        self.assertEqual((code, found["ok"], [each["name"] for each in found["checks"]]), (cli.FAILED, False, names))
        not_tried = [each["name"] for each in found["checks"] if each["ok"] is None]
        self.assertEqual(not_tried, ["log driver", *LATER])

    def test_faults_of_the_environment_are_results_too(self) -> None:
        code, found, output = self.run_check(RTMANAGER_GAME_STATE_ROOT="/etc", RTMANAGER_GAME_STATE_DIR_MODE="2750")
        self.assertEqual((code, found["ok"], len(found["checks"])), (cli.MISUSED, False, 2))
        for each, name in zip(found["checks"], ("STATE_ROOT: '/etc'", "STATE_DIR_MODE: '2750'"), strict=True):
            self.assertEqual((each["name"], each["ok"]), ("settings", False))
            self.assertIn(f"RTMANAGER_GAME_{name}", each["message"])
            self.assertIn(each["message"], output)


class ResourcesTest(unittest.TestCase):
    """A limit of the system is reported in one line with the remedy, without a traceback."""

    def run_limited(self, command: str, kind: int, most: int) -> tuple[int, str]:
        def limit() -> None:
            resource.setrlimit(kind, (most, most))

        done = subprocess.run(
            [sys.executable, "-m", "rtmanager", command],
            env=os.environ | ENVIRONMENT,
            preexec_fn=limit,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def test_too_few_open_files(self) -> None:
        for command, lines in (("serve", 1), ("check", 2)):
            code, output = self.run_limited(command, resource.RLIMIT_NOFILE, resources.files_needed(16, 32) - 1)
            self.assertEqual((code, output.count("\n")), (cli.FAILED, lines), output)
            self.assertIn("this process may have 271 open files, and needs 272", output)
            self.assertRegex(output, "ulimit -n .*RTMANAGER_MAX_PARALLEL_OPERATIONS")

    def test_too_small_a_stack(self) -> None:
        for command, lines in (("serve", 1), ("check", 2)):
            code, output = self.run_limited(command, resource.RLIMIT_STACK, 128 << 10)
            self.assertEqual((code, output.count("\n")), (cli.FAILED, lines), output)
            self.assertIn("may have a stack of 128 KiB, and needs 256", output)
            self.assertIn("ulimit -s", output)

    def test_too_few_threads(self) -> None:
        start, before = threading.Thread.start, threading.active_count()
        starts = iter(range(resources.THREADS))

        def few(thread: threading.Thread) -> None:
            if next(starts) == 3:
                raise RuntimeError("can't start new thread")
            start(thread)

        with (
            mock.patch.object(threading.Thread, "start", few),
            self.assertRaisesRegex(StartupFailed, "can start 3 more threads, and needs 40; remedy: .*ulimit -u"),
        ):
            Runtime(Config.from_environment(ENVIRONMENT), logging.getLogger("test")).start()
        self.assertEqual(threading.active_count(), before)

    def test_what_is_used_up_later_in_a_start(self) -> None:
        for error, expected in (
            (MemoryError(), "no more memory; remedy: .*ulimit -v"),
            (RuntimeError("can't start new thread"), "no more threads; remedy: .*ulimit -u"),
            (OSError(errno.EMFILE, "Too many open files"), "no more files; remedy: .*ulimit -n"),
            (OSError(errno.ENFILE, "Too many open files in system"), "no more files; remedy: .*fs.file-max"),
        ):
            with (
                mock.patch.object(Dependencies, "of", side_effect=error),
                self.assertRaisesRegex(StartupFailed, expected),
            ):
                Runtime(Config.from_environment(ENVIRONMENT), logging.getLogger("test")).start()

    def test_a_defect_is_no_lack(self) -> None:
        with mock.patch.object(Dependencies, "of", side_effect=RuntimeError("oops")), self.assertRaises(RuntimeError):
            Runtime(Config.from_environment(ENVIRONMENT), logging.getLogger("test")).start()


class SignalsTest(unittest.TestCase):
    """A signal ends a command at once, without a traceback, or is ignored."""

    @classmethod
    def setUpClass(cls) -> None:
        as_in_a_terminal(cls)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | ENVIRONMENT | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_while_a_dependency_is_silent(self) -> None:
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        dsn = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/x"
        for command in ("check", "migrate", "serve"):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                process = self.start("-m", "rtmanager", command, RTMANAGER_POSTGRES_PRIMARY_DSN=dsn)
                silent.settimeout(20)
                connection, _ = silent.accept()
                with connection, self.subTest(command=command, signal=number):
                    process.send_signal(number)
                    output = "".join(process.communicate(timeout=20))
                    lines = 1 if command == "serve" else 0
                    self.assertEqual((process.returncode, output.count("\n")), (128 + number, lines), output)
                    self.assertNotIn("Traceback", output)

    @contextmanager
    def serving(self, *command: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
        """Start a command, and yield it with its log once it waits for PostgreSQL."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            dsn = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/x"
            process = self.start(*command, RTMANAGER_POSTGRES_PRIMARY_DSN=dsn, **environment)
            assert process.stderr is not None
            silent.settimeout(20)
            with silent.accept()[0]:
                yield process, process.stderr

    def test_serve_logs_the_signals_that_it_ignores(self) -> None:
        # A thread that must not receive signals logs the unknown name first.
        with self.serving("-m", "rtmanager", "serve", RTMANAGER_UNKNOWN="x") as (process, log):
            output = log.readline()
            for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
                process.send_signal(number)
                output += log.readline()
            process.send_signal(signal.SIGHUP)
            output += process.communicate(timeout=20)[1]
        self.assertEqual((process.returncode, output.count("\n")), (128 + signal.SIGHUP, 5), output)
        self.assertEqual([output.count(f"SIG{name}") for name in ("USR1", "USR2", "HUP")], [2, 1, 1], output)

    def test_a_signal_that_nohup_ignores_is_ignored(self) -> None:
        nohup = (
            "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
            "os.execl(sys.executable, sys.executable, '-m', 'rtmanager', 'serve')"
        )
        with self.serving("-c", nohup) as (process, log):
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGUSR1)
            self.assertIn("SIGUSR1", log.readline())
            process.terminate()
            process.communicate(timeout=20)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)

    def test_while_modules_are_imported(self) -> None:
        for command in ("serve", "check", "migrate"):
            for number in (signal.SIGINT, signal.SIGTERM):
                process = self.start("-X", "importtime", "-m", "rtmanager", command)
                assert process.stderr is not None
                with self.subTest(command=command, signal=number):
                    self.assertTrue(any("psycopg" in line for line in process.stderr))
                    process.send_signal(number)
                    rest = process.communicate(timeout=20)[1]
                    self.assertEqual(process.returncode, 128 + number)
                    self.assertNotIn("Traceback", rest)


if __name__ == "__main__":
    unittest.main()
