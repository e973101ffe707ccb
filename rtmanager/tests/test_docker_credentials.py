"""Credentials are found as the docker CLI finds them; the expectations were compared with CLI 28.2.2."""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from rtmanager.adapters.docker.credentials import DockerConfig, HelperHangs
from rtmanager.domain.errors import Unavailable
from rtmanager.tests.fake_daemon import AT_ONCE_S, FakeDaemon, until

REGISTRY = "registry.test:5000"
HUB = "https://index.docker.io/v1/"
BOTH = {"username": "u", "password": "p"}
LOGGER = logging.getLogger("rtmanager.tests.credentials")


def encoded(pair: str) -> str:
    return base64.b64encode(pair.encode()).decode()


LOGIN = {"auth": encoded("u:p")}

#: Shell scripts of credential helpers, by the helper's name.
HELPERS = {
    "knows": 'read key; echo "{\\"ServerURL\\":\\"$key\\",\\"Username\\":\\"hu\\",\\"Secret\\":\\"hs\\"}"',
    "token": 'echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"t\\"}"',
    "lower": 'echo "{\\"username\\":\\"hu\\",\\"secret\\":\\"hs\\"}"',
    "deaf": 'exec 0<&-; echo "{\\"Username\\":\\"hu\\",\\"Secret\\":\\"hs\\"}"',
    "number": 'echo "{\\"n\\":$(head -c 5000 /dev/zero | tr "\\\\0" 9),\\"Username\\":\\"hu\\",\\"Secret\\":\\"hs\\"}"',
    "talks-on": 'echo "{\\"Username\\":\\"hu\\",\\"Secret\\":\\"hs\\"} and more"',
    "not-found": 'echo "credentials not found in native keychain"; exit 1',
    "fails": 'echo "oh dear"; exit 1',
    "garbage": "echo garbage",
    "empty": "true",
    "object": 'echo "{}"',
    "null": "echo null",
    "list": 'echo "[1]"',
    "types": 'echo "{\\"Username\\":5}"',
    "too-much": "head -c 400000 /dev/zero | tr '\\0' x",
    "too-large": 'echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"$(head -c 60000 /dev/zero | tr "\\\\0" x)\\"}"',
}
FOUND = {"username": "hu", "password": "hs"}
#: The credentials of each helper, and whether it answers for the registry; if not, the file's entry is used.
ANSWERS: dict[str, tuple[dict[str, str], bool]] = {
    "knows": (FOUND, True),
    "token": ({"identitytoken": "t"}, True),
    "lower": (FOUND, True),
    "deaf": (FOUND, True),
    "number": (FOUND, True),
    "talks-on": (FOUND, True),
    "not-found": ({}, True),
    "object": ({}, True),
    "null": ({}, True),
    "fails": ({}, False),
    "garbage": ({}, False),
    "empty": ({}, False),
    "list": ({}, False),
    "types": ({}, False),
    "too-much": ({}, False),
    "too-large": ({}, False),
    "not-installed": ({}, False),
    "not-executable": ({}, False),
    "nul\0": ({}, False),
}

#: Contents of the file, its credentials for REGISTRY, and whether a problem is reported.
FILES: tuple[tuple[object, dict[str, str], bool], ...] = (
    (b"", {}, False),
    (b" \n", {}, False),
    (b"null", {}, False),
    (b"{", {}, True),
    (b"[]", {}, True),
    (b"\xff\xfe\x00", {}, True),
    (b"\xef\xbb\xbf{}", {}, True),
    (b"[" * 100_000, {}, True),
    (b'{"auths": {"registry.test:5000": {"auth": "' + encoded("u:p").encode() + b'"}}} behind it', BOTH, False),
    ({"auths": {REGISTRY: LOGIN}}, BOTH, False),
    ({"AUTHS": {REGISTRY: {"Auth": encoded("u:p")}}}, BOTH, False),
    ({"auths": {f"https://{REGISTRY}": LOGIN}}, BOTH, False),
    ({"auths": {f"http://{REGISTRY}/v1/": LOGIN}}, BOTH, False),
    ({"auths": {f"{REGISTRY}/some/path": LOGIN}}, BOTH, False),
    ({"auths": {"registry.test": LOGIN}}, {}, False),
    ({"auths": {"https://registry.test:port": LOGIN}}, {}, False),
    ({"auths": {REGISTRY: {"username": "u", "password": "p"}}}, BOTH, False),
    ({"auths": {REGISTRY: {"identitytoken": "t"}}}, {"identitytoken": "t"}, False),
    ({"auths": {REGISTRY: {"auth": encoded("u:p:q\0")}}}, {"username": "u", "password": "p:q"}, False),
    ({"auths": {REGISTRY: {"auth": "%"}}}, {}, True),
    ({"auths": {REGISTRY: {"auth": encoded("no colon")}}}, {}, True),
    ({"auths": {REGISTRY: {"auth": encoded(":p")}}}, {}, True),
    ({"auths": {REGISTRY: {"auth": 5}}}, {}, False),
    ({"auths": {REGISTRY: None}}, {}, False),
    ({"auths": {REGISTRY: 5}}, {}, True),
    ({"auths": {REGISTRY: LOGIN, "other.test": 5}}, BOTH, True),
    (b'{"n": ' + b"9" * 5000 + b', "auths": {"registry.test:5000": {"username": "u", "password": "p"}}}', BOTH, False),
    ({"auths": {REGISTRY: {"identitytoken": "x" * 40_000}}}, {"identitytoken": "x" * 40_000}, False),
    ({"auths": {REGISTRY: {"identitytoken": "x" * 900_000}}}, {}, True),
    ({"auths": {REGISTRY: {**LOGIN, "email": "x" * 900_000}}}, {}, True),
    ({"auths": {f"{REGISTRY}/{'x' * 900_000}": LOGIN}}, {}, True),
    ({"auths": {REGISTRY: {"auth": encoded("u:" + "x" * 600_000)}}}, {}, True),
    ({"auths": {REGISTRY: LOGIN, "other.test": {"identitytoken": "x" * 900_000}}}, BOTH, True),
    ({"auths": None, "credHelpers": None, "credsStore": None}, {}, False),
    ({"auths": []}, {}, True),
    ({"credHelpers": 5, "credsStore": [], "auths": {REGISTRY: LOGIN}}, BOTH, True),
    ({"credHelpers": {REGISTRY: 5}, "auths": {REGISTRY: LOGIN}}, BOTH, True),
    ({"credHelpers": {REGISTRY: ""}, "credsStore": "knows", "auths": {REGISTRY: LOGIN}}, BOTH, False),
    ({"credHelpers": {f"https://{REGISTRY}": "knows"}, "auths": {REGISTRY: LOGIN}}, BOTH, False),
    ({"proxies": None, "HttpHeaders": None, "unknown": [1], "auths": {REGISTRY: LOGIN}}, BOTH, False),
    ({"proxies": 5, "auths": {REGISTRY: LOGIN}}, BOTH, False),
)


class CredentialsTestCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.home = Path(directory.name)
        self.file = self.home / "config.json"
        programs = self.home / "bin"
        programs.mkdir()
        for name, script in HELPERS.items():
            self.install(name, script)
        (programs / "docker-credential-not-executable").write_text("")
        environment = {
            "DOCKER_CONFIG": directory.name,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "RTMANAGER_SECRET": "ours",
        }
        patch = mock.patch.dict(os.environ, environment)
        patch.start()
        self.addCleanup(patch.stop)
        self.config = DockerConfig(LOGGER)

    def install(self, name: str, script: str) -> None:
        program = self.home / "bin" / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def write(self, content: object) -> None:
        self.file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def header(self, registry: str = REGISTRY, limit_s: float = 20.0) -> dict[str, str]:
        """The registry header, decoded, without the address that every header has."""
        return read_header(self.config.credentials(registry, limit_s, lambda: False).header)

    def note(self) -> str:
        return self.config.credentials(REGISTRY, 20.0, lambda: False).note


def read_header(header: str) -> dict[str, str]:
    """A decoded header; empty without credentials, which the CLI sends as a header, too."""
    found: dict[str, str] = json.loads(base64.urlsafe_b64decode(header)) if header else {}
    found.pop("serveraddress", None)
    return found if found.keys() - {"auth", "email"} else {}


class FileTest(CredentialsTestCase):
    def test_whatever_is_in_the_file_the_rest_is_used(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        for content, expected, reported in FILES:
            with self.subTest(str(content)[:100]):
                self.write(content)
                self.assertEqual(self.header(), expected)
                self.assertEqual(bool(self.note()), reported, self.note())

    def test_the_default_registry_has_a_key_of_its_own(self) -> None:
        for key, expected in {
            HUB: BOTH,
            "docker.io": {},
            "index.docker.io": {},
            "https://index.docker.io/v1": {},
        }.items():
            with self.subTest(key):
                self.write({"auths": {key: LOGIN}})
                self.assertEqual(self.header("docker.io"), expected)

    def test_what_is_no_file_is_reported_and_not_waited_for(self) -> None:
        makers: dict[str, Callable[[], object]] = {
            "directory": lambda: self.file.mkdir(),
            "no file": lambda: os.mkfifo(self.file),
            "symbolic links": lambda: self.file.symlink_to(self.file),
            "more than": lambda: self.file.write_bytes(b" " * (2 << 20)),
        }
        for expected, make in makers.items():
            with self.subTest(expected), self.assertLogs(LOGGER, "WARNING"):
                make()
                self.assertIn(expected, self.note())
            self.file.rmdir() if expected == "directory" else self.file.unlink()
        self.assertEqual((self.header(), self.note()), ({}, ""))

    def test_an_entry_that_is_too_large_is_named_with_its_file(self) -> None:
        self.write({"auths": {REGISTRY: {"registrytoken": "x" * 900_000}}})
        with self.assertLogs(LOGGER, "WARNING"):
            self.assertRegex(self.note(), f"{self.file}: auths of '{REGISTRY}' is too large, 65536 bytes at most")

    def test_a_note_is_one_line_of_text(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        nested = {"credsStore": "a\nb\x1b[2J\u202e"}, b"[" * 100_000
        for content in nested:
            with self.subTest(str(content)[:50]):
                self.write(content)
                self.assertTrue(self.note().isprintable(), self.note())
                self.assertNotIn("RecursionError", self.note())
        broken = self.home / "a\nb\x1b[2J"
        broken.mkdir()
        (broken / "config.json").write_text("{")
        with mock.patch.dict(os.environ, {"DOCKER_CONFIG": str(broken)}):
            self.assertTrue(self.note().isprintable(), self.note())

    def test_a_problem_is_reported_once_and_a_file_that_is_mended_is_read(self) -> None:
        self.write(b"{")
        with self.assertLogs(LOGGER, "WARNING") as logs:
            self.header()
            self.header()
        self.assertEqual(len(logs.output), 1)
        self.write({"auths": {REGISTRY: LOGIN}})
        self.assertEqual(self.header(), BOTH)

    def test_no_secret_is_in_what_is_reported(self) -> None:
        self.write(b'{"auths": {"registry.test:5000": {"auth": "c2VjcmV0OnNlY3JldA==" oops')
        with self.assertLogs(LOGGER, "WARNING") as logs:
            self.assertNotIn("c2Vj", self.note())
        self.assertNotIn("c2Vj", "".join(logs.output))


class HelperTest(CredentialsTestCase):
    def test_an_answer_counts_and_without_one_the_files_entry_does(self) -> None:
        for name, (answer, counts) in ANSWERS.items():
            for helpers in ({"credHelpers": {REGISTRY: name}}, {"credsStore": name}):
                with self.subTest(name, helpers=helpers):
                    self.write(helpers)
                    self.assertEqual(self.header(), answer)
                    self.write({**helpers, "auths": {REGISTRY: LOGIN}})
                    self.assertEqual(self.header(), answer if counts else BOTH)
                    self.assertEqual(self.note() == "", counts, self.note())

    def test_what_this_process_lacks_is_no_reason_to_pull_without_a_login(self) -> None:
        self.write({"credsStore": "knows"})
        for call, number in (
            ("subprocess.Popen", errno.EAGAIN),
            ("subprocess.Popen", errno.EMFILE),
            ("os.open", errno.EMFILE),
        ):
            with (
                self.subTest(call, number=number),
                mock.patch(call, side_effect=OSError(number, "")),
                self.assertRaises(Unavailable),
            ):
                self.header()

    def test_it_is_queried_for_the_registry_as_the_cli_names_it(self) -> None:
        self.install(
            "asked", f"cat > {self.home}/asked; echo $1 >> {self.home}/asked; env > {self.home}/env; echo null"
        )
        self.write({"credsStore": "asked"})
        for registry, key in ((REGISTRY, REGISTRY), ("docker.io", HUB)):
            self.header(registry)
            self.assertEqual((self.home / "asked").read_text(), f"{key}get\n")
        self.assertNotIn("RTMANAGER_", (self.home / "env").read_text())

    def test_one_that_hangs_is_killed_with_its_children_when_its_time_is_over(self) -> None:
        for script in (
            "sleep 600",
            f"sleep 600 & echo $! > {self.home}/child; wait",
            "trap '' TERM; while :; do sleep 1; done",
        ):
            with self.subTest(script):
                self.install("hangs", f"echo $$ > {self.home}/pid; {script}")
                self.write({"credsStore": "hangs"})
                with self.assertRaisesRegex(HelperHangs, "docker-credential-hangs had not answered after 0.3 s"):
                    self.header(limit_s=0.3)
                for name in ("pid", "child"):
                    if (self.home / name).exists():
                        self.assert_ended(int((self.home / name).read_text()))

    def test_one_that_nobody_waits_for_any_more_is_killed(self) -> None:
        self.install("hangs", f"echo $$ > {self.home}/pid; exec sleep 600")
        self.write({"credsStore": "hangs"})
        unwanted = threading.Event()

        def resolve() -> None:
            with self.assertRaises(HelperHangs):
                self.config.credentials(REGISTRY, 600.0, unwanted.is_set)

        resolving = threading.Thread(target=resolve)
        resolving.start()
        until(lambda: (self.home / "pid").exists() and (self.home / "pid").read_text().strip() != "")
        unwanted.set()
        resolving.join(AT_ONCE_S)
        self.assertFalse(resolving.is_alive())
        self.assert_ended(int((self.home / "pid").read_text()))

    def test_a_child_that_keeps_its_output_open_is_not_waited_for(self) -> None:
        self.install(
            "leaves",
            f'sleep 600 & echo $! > {self.home}/child; echo "{{\\"Username\\":\\"hu\\",\\"Secret\\":\\"hs\\"}}"',
        )
        self.write({"credsStore": "leaves"})
        began = time.monotonic()
        self.assertEqual(self.header(limit_s=60.0), FOUND)
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
        os.kill(int((self.home / "child").read_text()), 9)

    def test_no_process_and_no_open_file_is_left(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for name in HELPERS:
            self.write({"credsStore": name})
            self.header()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        with self.assertRaises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def test_a_secret_in_a_failed_answer_is_not_shown(self) -> None:
        self.install("tells", 'echo "{\\"Username\\":\\"u\\",\\"Secret\\":\\"hidden\\"}"; exit 1')
        self.write({"credsStore": "tells"})
        self.assertNotIn("hidden", self.note())

    def assert_ended(self, pid: int) -> None:
        def ended() -> bool:
            try:
                return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except (FileNotFoundError, ProcessLookupError):
                return True

        until(ended)


@unittest.skipUnless(shutil.which("docker"), "needs the docker CLI")
class CliTest(CredentialsTestCase):
    """The same files given to the docker CLI, with a daemon that records its requests."""

    def test_the_cli_sends_the_same(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        daemon = FakeDaemon()
        self.addCleanup(daemon.close)
        daemon.answers["POST /images/create"] = lambda exchange: exchange.stream([{"status": "ok"}])
        daemon.answers["GET /_ping"] = lambda exchange: exchange.reply_raw(200, b"OK")
        daemon.start()
        contents = [content for content, _, _ in FILES[8:20]]
        contents += [{"credsStore": name, "auths": {REGISTRY: LOGIN}} for name in ("knows", "token", "fails", "empty")]
        for content in contents:
            with self.subTest(str(content)[:100]):
                self.write(content)
                subprocess.run(
                    ["docker", "-H", daemon.host, "pull", "-q", f"{REGISTRY}/game:1"], check=True, capture_output=True
                )
                self.assertEqual(read_header(daemon.headers[-1].get("X-Registry-Auth", "")), self.header())
